"""What the Langevin kernels share: scored positions, the Langevin proposal, and the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Biased, Contract, Invariant
from ppcore.tuning.preconditioner import Preconditioner

DIVERGENCE = 1000.0


class Scored(NamedTuple):
    """``x`` float[d] with its ``log_density`` float[] and ``gradient`` ∇ log γ(x) float[d]."""

    x: Any
    log_density: Any
    gradient: Any


class Step(NamedTuple):
    """F, and the step size h in units of the whitened diffusion's time."""

    preconditioner: Preconditioner
    step_size: Any


def score(target: Any, x: Any) -> Scored:
    """``x`` with log γ(x) and its gradient."""
    return Scored(x, *jax.value_and_grad(target.log_density)(x))


def diffusion_time(step: Any) -> Any:
    """h = ε²/2, the time in which the whitened diffusion spreads by ε, as a warm-up counts.

    >>> float(diffusion_time(2.0))
    2.0
    """
    return 0.5 * step**2


def propose(state: Any, drift: Any, z: Any, params: Step) -> Any:
    """y = x + F (h b + √(2h) z), b the whitened ``drift``: float[d]."""
    h = params.step_size
    return state.x + params.preconditioner.push(h * drift + jnp.sqrt(2.0 * h) * z)


def log_ratio(old: Any, new: Any, drifts: tuple[Any, Any], z: Any, h: Any) -> Any:
    """log γ(y) q(y, x) / (γ(x) q(x, y)) for q of :func:`propose`, without solving for F.

    The proposal draws z = F⁻¹(y − x − h F b(x))/√(2h), of log density −½|z|² up to a constant;
    the way back needs z′ = F⁻¹(x − y − h F b(y))/√(2h) = −(z + √(h/2) (b(x) + b(y))). So the
    log ratio is log γ(y) − log γ(x) + ½|z|² − ½|z′|².
    """
    back = z + jnp.sqrt(0.5 * h) * (drifts[0] + drifts[1])
    return new.log_density - old.log_density + 0.5 * (jnp.sum(z**2) - jnp.sum(back**2))


def report(ratio: Any, state: Any, gradients: int = 1) -> dict[str, Any]:
    """A kernel's info for a log acceptance ratio; NaN counts as a rejection."""
    ratio = jnp.where(jnp.isnan(ratio), -jnp.inf, ratio)
    return {
        "acceptance_rate": jnp.exp(jnp.minimum(0.0, ratio)),
        "log_density": state.log_density,
        "diverging": ~(ratio > -DIVERGENCE),
        "n_gradients": jnp.full((), gradients, jnp.int32),
    }


def choose(
    key: Any, ratio: Any, new: Any, old: Any, gradients: int = 1
) -> tuple[Any, dict[str, Any]]:
    """``new`` with probability min(1, exp(ratio)), else ``old``; a NaN ratio is a rejection."""
    probability = jnp.exp(jnp.minimum(0.0, jnp.where(jnp.isnan(ratio), -jnp.inf, ratio)))
    accept = random.bernoulli(key, probability)
    state = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)
    return state, report(ratio, state, gradients)


def unadjusted(new: Any, old: Any, ratio: Any, gradients: int = 1) -> tuple[Any, dict[str, Any]]:
    """``new`` whatever the ratio, unless its log density is not finite: then the chain stays.

    The rate that the omitted test would have had stands in the info: since that test would leave
    γ alone, one transition from γ leaves it by at most one minus the mean rate in total variation.
    """
    sound = jnp.isfinite(new.log_density) & jnp.all(jnp.isfinite(new.gradient))
    state = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, old)
    return state, report(jnp.where(sound, ratio, -jnp.inf), state, gradients)


@dataclass(frozen=True)
class Adjusted:
    """The Langevin proposal with a drift b, and a Metropolis test; reversible for γ.

    y = x + F (h b(x) + √(2h) z), accepted with min(1, γ(y) q(y, x) / (γ(x) q(x, y))), the ratio
    of :func:`log_ratio`: any drift is corrected. A subclass gives :meth:`drift`.
    """

    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.574
    error_order: ClassVar[float] = 3.0

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Step:
        return Step(preconditioner, diffusion_time(step))

    def init(self, key: Any, target: Any, x: Any, params: Step) -> Any:
        return self.score(target, x)

    def refresh(self, target: Any, state: Any) -> Any:
        return self.score(target, state.x)

    def score(self, target: Any, x: Any) -> Any:
        """The state at ``x``, with all that :meth:`drift` needs."""
        return score(target, x)

    def drift(self, target: Any, state: Any, params: Step) -> Any:
        """b(x) in whitened coordinates: float[d]; by default Fᵀ∇ log γ."""
        return params.preconditioner.pull(state.gradient)

    def _move(self, key: Any, target: Any, state: Any, params: Step) -> tuple[Any, Any]:
        """The proposal, scored, and the log ratio of its test."""
        z = random.normal(key, state.x.shape, state.x.dtype)
        here = self.drift(target, state, params)
        new = self.score(target, propose(state, here, z, params))
        drifts = here, self.drift(target, new, params)
        return new, log_ratio(state, new, drifts, z, params.step_size)

    def step(self, key: Any, target: Any, state: Any, params: Step) -> tuple[Any, dict[str, Any]]:
        k_move, k_accept = random.split(key)
        new, ratio = self._move(k_move, target, state, params)
        return choose(k_accept, ratio, new, state)


@dataclass(frozen=True)
class Unadjusted(Adjusted):
    """The same proposal without the test; its step is kept so small that the test would rarely
    refuse (see :func:`unadjusted`)."""

    contract: ClassVar[Contract] = Biased(order=1)
    target_accept: ClassVar[float] = 0.98

    def step(self, key: Any, target: Any, state: Any, params: Step) -> tuple[Any, dict[str, Any]]:
        new, ratio = self._move(key, target, state, params)
        return unadjusted(new, state, ratio)


def engine_of(
    kernel: Any,
    target_accept: float,
    metric: str,
    warmup_draws: int,
    max_warmup_draws: int,
    most_thin: int,
) -> KernelEngine:
    """``kernel`` with many chains in lockstep and the shared warm-up."""
    return KernelEngine(
        kernel,
        warmup_draws,
        max_warmup_draws,
        target_accept,
        metric=metric,
        most_thin=most_thin,
    )
