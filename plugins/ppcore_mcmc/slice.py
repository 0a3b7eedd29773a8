"""Slice sampling along random directions: no gradient, and no step size to tune."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_between, check_count
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.metropolis import Scored, score

LEFT, RIGHT, SHRINK, DONE = 0, 1, 2, 3


class Directions(NamedTuple):
    """F, whose image of a random unit vector is the direction of an update."""

    preconditioner: Preconditioner


class Search(NamedTuple):
    """An interval [low, high] around 0 that is stepped out and shrunk.

    ``phase`` says what the next evaluation is for; ``left`` and ``right`` count the steps still
    allowed; ``tried`` counts points tried while shrinking; ``t`` is the one evaluated next.
    """

    low: Any
    high: Any
    left: Any
    right: Any
    tried: Any
    t: Any
    phase: Any
    evaluations: Any
    found: Scored


@dataclass(frozen=True)
class Slice:
    """Draw uniformly from {t : γ(x + t u) > h}, found by stepping out and shrinking.

    h = U γ(x); u = F z/|z|, z ~ N(0, I). An interval of length ``width`` is laid at random over
    t = 0 and stepped out while its ends are in the slice, at most ``max_steps`` − 1 times, split at
    random between the ends; then points are drawn from it uniformly, and each that is not in the
    slice becomes its new end. Each update is reversible for γ, and so is their repetition, one
    update a coordinate by default. After ``max_tries`` points the chain stays where it is: the
    points that were refused on the way from x to y refuse in the same way on the way back, so that
    the limit keeps reversibility.

    Parameters
    ----------
    width : float
        Length of the first interval, in standard deviations of the warm-up's F.
    updates : int, optional
        Directions a transition; by default as many as coordinates.
    max_steps : int
        Most intervals that stepping out may join.
    max_tries : int
        Most points drawn while shrinking.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Neal 2003, doi:10.1214/aos/1056562461.

    >>> Slice(width=2.0).needs
    ()
    """

    width: float = 3.0
    updates: int | None = None
    max_steps: int = 8
    max_tries: int = 32
    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()
    target_accept: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_between("width", self.width, 0, 1e6)
        check_count("max_steps", self.max_steps, 1)
        check_count("max_tries", self.max_tries, 1)
        if self.updates is not None:
            check_count("updates", self.updates, 1)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Directions:
        return Directions(preconditioner)

    def init(self, key: Any, target: Any, x: Any, params: Directions) -> Scored:
        return score(target, x)

    def refresh(self, target: Any, state: Scored) -> Scored:
        return score(target, state.x)

    def step(
        self, key: Any, target: Any, state: Scored, params: Directions
    ) -> tuple[Scored, dict[str, Any]]:
        def update(k: Any, at: Scored, _: Any) -> tuple[Scored, Any]:
            return self._along(k, target, at, params)

        updates = self.updates or state.x.shape[0]
        state, evaluations = random.scan(update, key, state, None, updates)
        info = {"log_density": state.log_density, "n_evaluations": evaluations.sum()}
        return state, info

    def _along(self, key: Any, target: Any, at: Scored, params: Directions) -> tuple[Scored, Any]:
        """One update along a random direction. One loop both steps out and shrinks, so that the
        program holds the log density once and chains in lockstep need not be in the same phase."""
        k_direction, k_place, k_shrink = random.split(key, 3)
        dtype = at.x.dtype
        z = random.normal(k_direction, at.x.shape, dtype)
        direction = params.preconditioner.push(z / jnp.linalg.norm(z))
        u = random.uniform(k_place, (3,), dtype)
        uniforms = random.uniform(k_shrink, (self.max_tries,), dtype)
        height = at.log_density + jnp.log1p(-u[0])
        low = -self.width * u[1]
        left = jnp.floor(self.max_steps * u[2]).astype(jnp.int32)
        right = self.max_steps - 1 - left
        zero = jnp.zeros((), jnp.int32)
        start = Search(low, low + self.width, left, right, zero, low, zero, zero, at)

        def going(search: Search) -> Any:
            return search.phase != DONE

        def look(search: Search) -> Search:
            point = score(target, at.x + search.t * direction)
            inside = point.log_density > height
            return self._next(search, point, inside, uniforms)

        end = jax.lax.while_loop(going, look, self._skip(start, uniforms))
        return end.found, end.evaluations

    def _next(self, s: Search, point: Scored, inside: Any, uniforms: Any) -> Search:
        """The search after the point at ``s.t`` was evaluated."""
        out_left, out_right = (s.phase == LEFT) & inside, (s.phase == RIGHT) & inside
        shrinking = s.phase == SHRINK
        miss, hit = shrinking & ~inside, shrinking & inside
        low = jnp.where(out_left, s.low - self.width, jnp.where(miss & (s.t < 0), s.t, s.low))
        high = jnp.where(out_right, s.high + self.width, jnp.where(miss & (s.t >= 0), s.t, s.high))
        left = jnp.where(s.phase == LEFT, jnp.where(inside, s.left - 1, 0), s.left)
        right = jnp.where(s.phase == RIGHT, jnp.where(inside, s.right - 1, 0), s.right)
        found = Scored(*(jnp.where(hit, a, b) for a, b in zip(point, s.found, strict=True)))
        tried = s.tried + shrinking
        over = hit | (shrinking & (tried >= self.max_tries))
        phase = jnp.where(over, DONE, s.phase)
        counted = s.evaluations + 1
        return self._skip(
            Search(low, high, left, right, tried, s.t, phase, counted, found), uniforms
        )

    def _skip(self, s: Search, uniforms: Any) -> Search:
        """On to the next phase where this one is over, and the point to evaluate in it."""
        phase = jnp.where((s.phase == LEFT) & (s.left == 0), RIGHT, s.phase)
        phase = jnp.where((phase == RIGHT) & (s.right == 0), SHRINK, phase)
        u = uniforms[jnp.minimum(s.tried, self.max_tries - 1)]
        inner = s.low + u * (s.high - s.low)
        t = jnp.where(phase == LEFT, s.low, jnp.where(phase == RIGHT, s.high, inner))
        return s._replace(phase=phase.astype(jnp.int32), t=t)


def slice_sampler(
    width: float = 3.0,
    updates: int | None = None,
    max_steps: int = 8,
    max_tries: int = 32,
    warmup_draws: int = 160,
    max_warmup_draws: int = 1280,
    metric: str = "auto",
    most_thin: int | None = None,
) -> KernelEngine:
    """Chains of :class:`Slice`, tuned together, as an engine.

    Parameters
    ----------
    width, updates, max_steps, max_tries
        See :class:`Slice`.
    warmup_draws, max_warmup_draws : int
        Draws per chain to learn F with, and the most until the chains have settled.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    most_thin : int, optional
        The most transitions that may make one draw; by default 48.

    >>> slice_sampler(updates=2).kernel.updates
    2
    """
    return KernelEngine(
        Slice(width, updates, max_steps, max_tries),
        warmup_draws,
        max_warmup_draws,
        metric=metric,
        most_thin=most_thin,
    )
