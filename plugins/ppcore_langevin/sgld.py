"""Stochastic-gradient Langevin dynamics over minibatches of a plate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Biased, Contract
from ppcore.minibatch import Minibatched, largest_plate, minibatch
from ppcore.settings import check_count
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_langevin.moves import Step, diffusion_time, engine_of


class Place(NamedTuple):
    """``x``: float[d]; a noisy gradient is no cache of it."""

    x: Any


@dataclass(frozen=True)
class Stochastic:
    """What the stochastic-gradient kernels share: the estimate of the gradient.

    A model's target is taken in minibatches of ``plate``; one whose plate has no more than
    ``size`` elements, one without plates with evidence, and any other target, by full gradients.

    Parameters
    ----------
    plate : str, optional
        By default the largest that holds evidence.
    size : int
        Elements in a minibatch.

    Raises
    ------
    ppcore.errors.SettingsError
        If ``size`` is not a positive integer.
    ppcore.errors.UnsupportedError
        If the target has no plate of that name.
    """

    plate: str | None = None
    size: int = 32
    contract: ClassVar[Contract] = Biased(order=1)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.97
    error_order: ClassVar[float] = 2.0

    def __post_init__(self) -> None:
        check_count("size", self.size, 1)

    def batched(self, target: Any) -> Minibatched | None:
        """The target in minibatches, or None where full gradients are as good."""
        if isinstance(target, Minibatched):
            return target
        plate = largest_plate(target) if self.plate is None else self.plate
        if plate is None:
            return None
        whole = minibatch(target, plate, 1)
        return minibatch(target, plate, self.size) if self.size < whole.elements else None

    def check_target(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.UnsupportedError` for a plate that the target lacks."""
        self.batched(target)

    def gradient(self, key: Any, target: Any, x: Any) -> Any:
        """An unbiased estimate of ∇ log γ(x): float[d]."""
        batched = self.batched(target)
        if batched is None:
            return jax.grad(target.log_density)(x)
        return jax.grad(batched.estimate, 1)(key, x)


@dataclass(frozen=True)
class SGLD(Stochastic):
    """Langevin steps with the gradient of a minibatch.

    y = x + h F Fᵀ ĝ + √(2h) F z, with E[ĝ | x] = ∇ log γ(x): ĝ is the gradient of
    a(x) + (N/n) Σ_{i∈S} ℓ_i(x), S a fresh minibatch of the plate. The noise of ĝ adds h² v to the
    variance 2h of a step, v its whitened variance, and the Euler step is off by O(h) too: biased
    at first order at fixed n. In a Gaussian the stationary variance is too large by the factor
    1 + h(1 + v)/2 + O(h²), and h|Fᵀĝ|²/2d has just the mean h(1 + v)/2: the step size is tuned so
    that exp of minus it has mean ``target_accept``.

    Source: Welling & Teh 2011 (ICML), "Bayesian learning via stochastic gradient Langevin
    dynamics"; Vollmer, Zygalakis & Teh 2016, arXiv:1501.00438 (the bias).

    >>> SGLD(size=10).contract
    Biased(order=1, in_='step_size')
    """

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Step:
        return Step(preconditioner, diffusion_time(step))

    def init(self, key: Any, target: Any, x: Any, params: Step) -> Place:
        return Place(x)

    def refresh(self, target: Any, state: Place) -> Place:
        return state

    def step(
        self, key: Any, target: Any, state: Place, params: Step
    ) -> tuple[Place, dict[str, Any]]:
        k_batch, k_noise = random.split(key)
        f, h = params
        b = f.pull(self.gradient(k_batch, target, state.x))
        z = random.normal(k_noise, state.x.shape, state.x.dtype)
        x = state.x + f.push(h * b + jnp.sqrt(2.0 * h) * z)
        return moved(Place(x), state, 0.5 * h * jnp.mean(b**2))


def moved(new: Any, old: Any, excess: Any) -> tuple[Any, dict[str, Any]]:
    """``new`` where it is finite, and info; ``excess`` is the relative variance that is added."""
    sound = jnp.all(jnp.isfinite(new.x))
    state = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, old)
    info = {
        "acceptance_rate": jnp.where(sound, jnp.exp(-excess), 0.0),
        "diverging": ~sound,
        "n_gradients": jnp.ones((), jnp.int32),
    }
    return state, info


def engine(
    plate: str | None = None,
    size: int = 32,
    target_accept: float = 0.97,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 32,
) -> KernelEngine:
    """:class:`SGLD` with many chains in lockstep, tuned together.

    Parameters
    ----------
    plate : str, optional
        The plate to draw minibatches from; by default the largest that holds evidence.
    size : int
        Elements in a minibatch.
    target_accept : float
        Mean of exp(−excess), with the excess of a Gaussian's stationary variance as a share of
        it, to tune the step size for.
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
    kernel = SGLD(plate, size)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
