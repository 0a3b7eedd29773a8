"""Underdamped Langevin by splittings, OBABO and BAOAB: second order, unadjusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Biased, Contract
from ppcore.settings import check_between
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_langevin.moves import Scored, engine_of, score, unadjusted


class Moving(NamedTuple):
    """``x`` and its whitened momentum ``p``, float[d] each, with log γ and ∇ log γ at x."""

    x: Any
    p: Any
    log_density: Any
    gradient: Any


class Friction(NamedTuple):
    """F, the step size h in whitened time, and the friction γ."""

    preconditioner: Preconditioner
    step_size: Any
    friction: Any


def refreshed(p: Any, z: Any, decay: Any) -> Any:
    """c p + √(1 − c²) z: the exact Ornstein–Uhlenbeck step with c = ``decay``."""
    return decay * p + jnp.sqrt(1.0 - decay**2) * z


@dataclass(frozen=True)
class Underdamped:
    """dx = F p dt, dp = Fᵀ∇ log γ(x) dt − γ p dt + √(2γ) dW, which leaves γ(x) N(p; 0, I) alone.

    What the kernels here share; they split it into B (p += h Fᵀ∇ log γ), A (x += h F p) and O
    (the exact refreshment of p).

    Parameters
    ----------
    friction : float
        γ, in (0, 1000).

    Raises
    ------
    ppcore.errors.SettingsError
        If the friction is out of range.
    """

    friction: float = 1.0
    contract: ClassVar[Contract] = Biased(order=2)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    auxiliary: ClassVar[tuple[str, ...]] = ("p",)
    target_accept: ClassVar[float] = 0.99
    error_order: ClassVar[float] = 3.0

    def __post_init__(self) -> None:
        check_between("friction", self.friction, 0, 1000)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Friction:
        return Friction(preconditioner, step, self.friction)

    def init(self, key: Any, target: Any, x: Any, params: Friction) -> Moving:
        return _moving(score(target, x), random.normal(key, x.shape, x.dtype))

    def refresh(self, target: Any, state: Moving) -> Moving:
        return _moving(score(target, state.x), state.p)


def _moving(point: Scored, p: Any) -> Moving:
    return Moving(point.x, p, point.log_density, point.gradient)


def verlet(target: Any, state: Moving, preconditioner: Preconditioner, h: Any) -> Moving:
    """B(h/2) A(h) B(h/2): reversible in time, keeps volume, one gradient."""
    f = preconditioner
    p = state.p + 0.5 * h * f.pull(state.gradient)
    point = score(target, state.x + h * f.push(p))
    return _moving(point, p + 0.5 * h * f.pull(point.gradient))


def energy_lost(old: Moving, new: Moving) -> Any:
    """H(old) − H(new), H = −log γ(x) + ½|p|²."""
    kinetic = 0.5 * (jnp.sum(old.p**2) - jnp.sum(new.p**2))
    return new.log_density - old.log_density + kinetic


@dataclass(frozen=True)
class OBABO(Underdamped):
    """O(h/2) B(h/2) A(h) B(h/2) O(h/2) of :class:`Underdamped`.

    The stationary law of (x, p) differs from γ(x) N(p; 0, I) by O(h²). With a Metropolis test of
    the middle part it is generalised HMC, exactly; the step size is chosen as if it were, for a
    rate near one.

    Source: Bussi & Parrinello 2007, arXiv:0803.4083.

    >>> OBABO(friction=2.0).contract
    Biased(order=2, in_='step_size')
    """

    def step(
        self, key: Any, target: Any, state: Moving, params: Friction
    ) -> tuple[Moving, dict[str, Any]]:
        first, last = random.split(key)
        f, h, friction = params
        decay = jnp.exp(-0.5 * friction * h)
        shape, dtype = state.x.shape, state.x.dtype
        start = state._replace(p=refreshed(state.p, random.normal(first, shape, dtype), decay))
        end = verlet(target, start, f, h)
        lost = energy_lost(start, end)
        end = end._replace(p=refreshed(end.p, random.normal(last, shape, dtype), decay))
        return unadjusted(end, state, lost)


@dataclass(frozen=True)
class BAOAB(Underdamped):
    """B(h/2) A(h/2) O(h) A(h/2) B(h/2) of :class:`Underdamped`.

    The stationary law of x differs from γ by O(h²), by O(h⁴) at large friction, and not at all
    for a Gaussian. The step size is chosen by the energy that is lost other than as heat, which is
    the log ratio of a Metropolis test of the whole step.

    Source: Leimkuhler & Matthews 2013, doi:10.1093/amrx/abs010.

    >>> BAOAB().auxiliary
    ('p',)
    """

    def step(
        self, key: Any, target: Any, state: Moving, params: Friction
    ) -> tuple[Moving, dict[str, Any]]:
        f, h, friction = params
        before = state.p + 0.5 * h * f.pull(state.gradient)
        z = random.normal(key, state.x.shape, state.x.dtype)
        after = refreshed(before, z, jnp.exp(-friction * h))
        point = score(target, state.x + 0.5 * h * f.push(before + after))
        end = _moving(point, after + 0.5 * h * f.pull(point.gradient))
        heat = 0.5 * (jnp.sum(after**2) - jnp.sum(before**2))
        return unadjusted(end, state, energy_lost(state, end) + heat)


def engine(
    friction: float = 1.0,
    target_accept: float = 0.99,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 16,
) -> KernelEngine:
    """:class:`BAOAB` with many chains in lockstep, tuned together.

    Parameters
    ----------
    friction : float
        γ in units of one over the whitened diffusion's time.
    target_accept : float
        Mean of min(1, exp(−ΔH)), ΔH the energy error of a step, to tune the step size for.
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
    kernel = BAOAB(friction)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)


def obabo_engine(
    friction: float = 1.0,
    target_accept: float = 0.99,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 16,
) -> KernelEngine:
    """:class:`OBABO` with many chains in lockstep, tuned together.

    Parameters
    ----------
    friction : float
        γ in units of one over the whitened diffusion's time.
    target_accept : float
        Mean of min(1, exp(−ΔH)), ΔH the energy error of a step, to tune the step size for.
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

    >>> obabo_engine(metric="diagonal").default_chains
    64
    """
    kernel = OBABO(friction)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
