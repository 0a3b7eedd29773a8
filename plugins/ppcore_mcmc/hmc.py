"""Hamiltonian Monte Carlo with jittered step and length, one chain at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_count
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.barker import Climbing
from ppcore_mcmc.metropolis import choose


class Trajectory(NamedTuple):
    """F, the step size ε in whitened units, and the mean trajectory length in whitened time."""

    preconditioner: Preconditioner
    step_size: Any
    length: Any


@dataclass(frozen=True)
class HMC:
    """Follow the Hamiltonian −log γ(x) + ½ zᵀz from a fresh momentum, then accept or not.

    z ~ N(0, I); ε′ = ε U(0.9, 1.1) and L = round(T U(0.6, 1.4)/ε), drawn independently of the
    state, so that no trajectory keeps step with the target's periods; L leapfrog steps
    (z += ½ε′Fᵀ∇log γ, x += ε′F z, z += ½ε′Fᵀ∇log γ); accept with min(1, exp(−ΔH)). Each draw of
    (ε′, L) gives a kernel reversible for γ, and so does their mixture. In lockstep, chains wait
    for the longest trajectory; the engine ``ensemble`` draws one L for all of them.

    Parameters
    ----------
    max_steps : int
        Most leapfrog steps of a transition.

    Raises
    ------
    ppcore.errors.SettingsError
        If ``max_steps`` is not a positive integer.

    Source: Duane, Kennedy, Pendleton & Roweth 1987, doi:10.1016/0370-2693(87)91197-X; Neal 2011,
    arXiv:1206.1901 (jitter).

    >>> HMC(max_steps=64).contract.reversible
    True
    """

    max_steps: int = 1024
    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.8
    learns_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, 1)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Trajectory:
        return Trajectory(preconditioner, step, length)

    def init(self, key: Any, target: Any, x: Any, params: Trajectory) -> Climbing:
        return Climbing(x, *jax.value_and_grad(target.log_density)(x))

    def refresh(self, target: Any, state: Climbing) -> Climbing:
        return Climbing(state.x, *jax.value_and_grad(target.log_density)(state.x))

    def step(
        self, key: Any, target: Any, state: Climbing, params: Trajectory
    ) -> tuple[Climbing, dict[str, Any]]:
        k_momentum, k_jitter, k_accept = random.split(key, 3)
        f = params.preconditioner
        z = random.normal(k_momentum, state.x.shape, state.x.dtype)
        u = random.uniform(k_jitter, (2,), state.x.dtype)
        step = params.step_size * (0.9 + 0.2 * u[0])
        steps = jnp.round(params.length * (0.6 + 0.8 * u[1]) / params.step_size)
        steps = jnp.clip(steps, 1, self.max_steps).astype(jnp.int32)
        score = jax.value_and_grad(target.log_density)

        def leap(_: Any, at: tuple[Climbing, Any]) -> tuple[Climbing, Any]:
            point, p = at
            p = p + 0.5 * step * f.pull(point.gradient)
            x = point.x + step * f.push(p)
            point = Climbing(x, *score(x))
            return point, p + 0.5 * step * f.pull(point.gradient)

        end, p = jax.lax.fori_loop(0, steps, leap, (state, z))
        kinetic = 0.5 * (jnp.sum(z**2) - jnp.sum(p**2))
        state, info = choose(k_accept, end.log_density - state.log_density + kinetic, end, state)
        return state, info | {"n_gradients": steps}


def hmc(
    target_accept: float = 0.8,
    length: float = 1.5707963,
    learn_length: bool = True,
    max_steps: int = 1024,
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    metric: str = "auto",
    most_thin: int | None = None,
) -> KernelEngine:
    """Chains of :class:`HMC`, tuned together, as an engine.

    Parameters
    ----------
    target_accept : float
        Mean acceptance probability to tune ε for.
    length : float
        First mean trajectory length in whitened time; π/2 makes draws from a Gaussian independent.
    learn_length : bool
        Whether warm-up may lengthen it.
    max_steps : int
        Most leapfrog steps of a transition.
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most until the chains have settled.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    most_thin : int, optional
        The most transitions that may make one draw; by default 8.

    >>> hmc(max_steps=64).kernel
    HMC(max_steps=64)
    """
    return KernelEngine(
        HMC(max_steps),
        warmup_draws,
        max_warmup_draws,
        target_accept,
        length,
        learn_length,
        metric,
        most_thin=most_thin,
    )
