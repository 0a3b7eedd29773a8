"""Hit-and-run: a random line through the state, and a point on it from the density there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_count
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_langevin.in_and_out import Placed
from ppcore_langevin.moves import Step, engine_of


@dataclass(frozen=True)
class HitAndRun:
    """Draw x + t F u, u uniform on the sphere, with t from γ's restriction to the line, by a slice.

    With h = U γ(x) the chord is {t : γ(x + t F u) > h}, an interval where γ is log-concave or
    uniform on a convex body (log γ = −∞ outside). A bracket of length w is laid at random over
    t = 0 and both its ends are moved outwards by w while they are on the chord; t is drawn
    uniformly from the bracket, which shrinks to each t that misses. Given the line, this is
    reversible for γ's restriction to it for any γ; where the chord is an interval shorter than the
    widest bracket, t is uniform on it. Steps outwards are limited to ``max_steps``, split between
    the ends at random, and tries to ``max_tries``, after which the chain stays; both keep
    reversibility. w is tuned for the share of tries that hit. No gradient.

    Parameters
    ----------
    max_steps : int
        Most steps outwards of both ends together, and one.
    max_tries : int
        Most points tried on a line.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is not a positive integer.

    Source: Smith 1984, doi:10.1287/opre.32.6.1296; Lovász & Vempala 2006,
    doi:10.1137/S009753970544727X; Neal 2003, doi:10.1214/aos/1056562461 (the bracket).

    >>> HitAndRun().needs
    ()
    """

    max_steps: int = 64
    max_tries: int = 64
    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()
    target_accept: ClassVar[float] = 0.6
    error_order: ClassVar[float] = 1.0
    first_step: ClassVar[float] = 2.0

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, 1)
        check_count("max_tries", self.max_tries, 1)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Step:
        return Step(preconditioner, step)

    def init(self, key: Any, target: Any, x: Any, params: Step) -> Placed:
        return Placed(x, target.log_density(x))

    def refresh(self, target: Any, state: Placed) -> Placed:
        return Placed(state.x, target.log_density(state.x))

    def step(
        self, key: Any, target: Any, state: Placed, params: Step
    ) -> tuple[Placed, dict[str, Any]]:
        k_line, k_level, k_tries = random.split(key, 3)
        dtype = state.x.dtype
        z = random.normal(k_line, state.x.shape, dtype)
        direction = params.preconditioner.push(z / jnp.linalg.norm(z))
        u = random.uniform(k_level, (3,), dtype)
        tries = random.uniform(k_tries, (self.max_tries,), dtype)
        level = state.log_density + jnp.log1p(-u[0])

        def value(t: Any) -> Any:
            return target.log_density(state.x + t * direction)

        ends, outward = self._bracket(value, level, params.step_size, u)
        t, found, tried = self._shrink(value, level, ends, tries)
        hit = found > level
        new = Placed(
            jnp.where(hit, state.x + t * direction, state.x),
            jnp.where(hit, found, state.log_density),
        )
        info = {
            "acceptance_rate": jnp.where(hit, 1.0 / tried, 0.0),
            "log_density": new.log_density,
            "diverging": ~hit,
            "n_evaluations": outward + tried,
        }
        return new, info

    def _bracket(self, value: Any, level: Any, width: Any, u: Any) -> tuple[Any, Any]:
        """The ends (float[2]) around 0 after stepping out, and evaluations spent."""
        left = jnp.floor(self.max_steps * u[2])
        side = jnp.array([-1.0, 1.0], u.dtype) * width

        def going(at: tuple[Any, Any, Any, Any]) -> Any:
            return jnp.any(at[2])

        def out(at: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
            ends, left, moving, spent = at
            moving = moving & (left > 0) & (jax.vmap(value)(ends) > level)
            return ends + jnp.where(moving, side, 0.0), left - moving, moving, spent + 2

        low = -width * u[1]
        room = jnp.stack([left, self.max_steps - 1 - left])
        start = jnp.stack([low, low + width]), room, room > 0, jnp.zeros((), jnp.int32)
        ends, _, _, spent = jax.lax.while_loop(going, out, start)
        return ends, spent

    def _shrink(self, value: Any, level: Any, ends: Any, tries: Any) -> tuple[Any, Any, Any]:
        """The first t on the chord, its log density, and how many were tried."""

        def going(at: tuple[Any, Any, Any, Any]) -> Any:
            _, _, found, tried = at
            return ~(found > level) & (tried < self.max_tries)

        def draw(at: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
            ends, before, _, tried = at
            missed = tried > 0
            low = jnp.where(missed & (before < 0), before, ends[0])
            high = jnp.where(missed & (before >= 0), before, ends[1])
            t = low + tries[tried] * (high - low)
            return jnp.stack([low, high]), t, value(t), tried + 1

        none = jnp.full((), -jnp.inf, ends.dtype)
        start = ends, jnp.zeros((), ends.dtype), none, jnp.zeros((), jnp.int32)
        _, t, found, tried = jax.lax.while_loop(going, draw, start)
        return t, found, tried


def engine(
    max_steps: int = 64,
    target_accept: float = 0.6,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 48,
) -> KernelEngine:
    """:class:`HitAndRun` with many chains in lockstep, tuned together.

    Parameters
    ----------
    max_steps : int
        Most steps that widen a bracket.
    target_accept : float
        Share of the tries on a line that hit, to tune the bracket for.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most where chains have not settled.
    most_thin : int
        The most transitions that may make one draw.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    >>> engine(metric="diagonal").default_chains
    64
    """
    kernel = HitAndRun(max_steps)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
