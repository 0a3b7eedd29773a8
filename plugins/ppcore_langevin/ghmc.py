"""Generalised Hamiltonian Monte Carlo: one leapfrog step at a time, a momentum that persists."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_between
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_langevin.moves import engine_of, report, score
from ppcore_langevin.underdamped import Friction, Moving, energy_lost, refreshed, verlet


class Sliding(NamedTuple):
    """``x``, its whitened momentum ``p`` and the acceptance variable ``v``, with caches at x."""

    x: Any
    p: Any
    v: Any
    log_density: Any
    gradient: Any


@dataclass(frozen=True)
class GHMC:
    """Partly refresh the momentum, take one leapfrog step, accept it by a threshold that slides.

    Leaves γ(x) N(p; 0, I) U(v; −1, 1) invariant, as each of its parts does:

    1. p ← c p + √(1 − c²) z with c = exp(−γh), z ~ N(0, I);
    2. v ← v + ``slide``, modulo the interval (−1, 1);
    3. with (x′, p′) the leapfrog step from (x, p) and r = exp(H(x, p) − H(x′, p′)): if |v| < r,
       (x, p, v) ← (x′, p′, v/r), else p ← −p. With p′ turned round first, the map
       (x, p, v) → (x′, −p′, v/r) is its own inverse; its Jacobian 1/r makes up for the change of
       exp(−H), and |v| < r says that v/r is in (−1, 1): so it keeps the joint law, and so does
       turning p round, which undoes it.

    As v moves slowly, rejections, which turn the chain round, come in clusters with long runs of
    acceptances between. Not reversible.

    Parameters
    ----------
    friction : float
        γ, in (0, 1000).
    slide : float
        How far v moves at each step, in (0, 2).

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Horowitz 1991, doi:10.1016/0370-2693(91)90812-5; Neal 2020, arXiv:2001.11950.

    >>> GHMC().contract
    Invariant(reversible=False, irreducible=True)
    """

    friction: float = 1.0
    slide: float = 0.05
    contract: ClassVar[Contract] = Invariant(reversible=False)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    auxiliary: ClassVar[tuple[str, ...]] = ("p", "v")
    target_accept: ClassVar[float] = 0.9
    error_order: ClassVar[float] = 3.0

    def __post_init__(self) -> None:
        check_between("friction", self.friction, 0, 1000)
        check_between("slide", self.slide, 0, 2)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Friction:
        return Friction(preconditioner, step, self.friction)

    def init(self, key: Any, target: Any, x: Any, params: Friction) -> Sliding:
        k_momentum, k_threshold = random.split(key)
        point = score(target, x)
        p = random.normal(k_momentum, x.shape, x.dtype)
        v = 2.0 * random.uniform(k_threshold, (), x.dtype) - 1.0
        return Sliding(x, p, v, point.log_density, point.gradient)

    def refresh(self, target: Any, state: Sliding) -> Sliding:
        point = score(target, state.x)
        return state._replace(log_density=point.log_density, gradient=point.gradient)

    def step(
        self, key: Any, target: Any, state: Sliding, params: Friction
    ) -> tuple[Sliding, dict[str, Any]]:
        f, h, friction = params
        z = random.normal(key, state.x.shape, state.x.dtype)
        p = refreshed(state.p, z, jnp.exp(-friction * h))
        v = jnp.mod(state.v + self.slide + 1.0, 2.0) - 1.0
        start = Moving(state.x, p, state.log_density, state.gradient)
        end = verlet(target, start, f, h)
        ratio = energy_lost(start, end)
        accept = jnp.log(jnp.abs(v)) < ratio
        new = Sliding(end.x, end.p, v * jnp.exp(-ratio), end.log_density, end.gradient)
        old = Sliding(state.x, -p, v, state.log_density, state.gradient)
        moved = Sliding(*(jnp.where(accept, a, b) for a, b in zip(new, old, strict=True)))
        return moved, report(ratio, moved)


def engine(
    friction: float = 1.0,
    slide: float = 0.05,
    target_accept: float = 0.9,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 8,
) -> KernelEngine:
    """:class:`GHMC` with many chains in lockstep, tuned together.

    Parameters
    ----------
    friction : float
        γ in units of one over the whitened diffusion's time.
    slide : float
        How far the threshold of acceptance moves at each step, in (0, 2).
    target_accept : float
        Mean acceptance probability to tune the step size for, in (0, 1).
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
    kernel = GHMC(friction, slide)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
