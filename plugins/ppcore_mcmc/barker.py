"""The Barker proposal: each coordinate's sign leans up the gradient; robust to its scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.metropolis import Step, choose


class Climbing(NamedTuple):
    """``x`` float[d] with its ``log_density`` float[] and ``gradient`` ∇ log γ(x) float[d]."""

    x: Any
    log_density: Any
    gradient: Any


@dataclass(frozen=True)
class Barker:
    """A symmetric step whose signs are skewed by the gradient, with a Metropolis test.

    In whitened coordinates, with g = Fᵀ∇log γ: w ~ N(0, ε² I); each b_i = ±1, with
    P(b_i = 1) = σ(w_i g_i), σ(t) = 1/(1 + e⁻ᵗ); y = x + F (b∘w). With v = b∘w the density of the
    proposal is Π 2 φ_ε(v_i) σ(v_i g_i(x)), so y is accepted with probability
    min(1, γ(y)/γ(x) Π σ(−v_i g_i(y)) / σ(v_i g_i(x))). Reversible for γ. Unlike Langevin's, the
    step never grows with the gradient, so a step size that is too long, or a light tail, costs
    acceptance and not stability.

    Source: Livingstone & Zanella 2022, arXiv:1908.11812 (whose 0.4 is the acceptance tuned for).

    >>> Barker().needs
    ('gradient',)
    """

    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.4
    error_order: ClassVar[float] = 3.0

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Step:
        return Step(preconditioner, step)

    def init(self, key: Any, target: Any, x: Any, params: Step) -> Climbing:
        return self._score(target, x)

    def refresh(self, target: Any, state: Climbing) -> Climbing:
        return self._score(target, state.x)

    def _score(self, target: Any, x: Any) -> Climbing:
        return Climbing(x, *jax.value_and_grad(target.log_density)(x))

    def step(
        self, key: Any, target: Any, state: Climbing, params: Step
    ) -> tuple[Climbing, dict[str, Any]]:
        k_size, k_sign, k_accept = random.split(key, 3)
        f = params.preconditioner
        w = params.step_size * random.normal(k_size, state.x.shape, state.x.dtype)
        here = f.pull(state.gradient)
        v = jnp.where(random.bernoulli(k_sign, jax.nn.sigmoid(w * here)), w, -w)
        new = self._score(target, state.x + f.push(v))
        back, forth = jax.nn.log_sigmoid(-v * f.pull(new.gradient)), jax.nn.log_sigmoid(v * here)
        log_ratio = new.log_density - state.log_density + jnp.sum(back - forth)
        state, info = choose(k_accept, log_ratio, new, state)
        return state, info | {"n_gradients": jnp.ones((), jnp.int32)}


def barker(
    target_accept: float = 0.4,
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    metric: str = "auto",
    most_thin: int | None = None,
) -> KernelEngine:
    """Chains of :class:`Barker`, tuned together, as an engine.

    Parameters
    ----------
    target_accept : float
        Mean acceptance probability to tune ε for.
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most until the chains have settled.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    most_thin : int, optional
        The most transitions that may make one draw; by default 8.

    >>> barker().contract.reversible
    True
    """
    return KernelEngine(
        Barker(),
        warmup_draws,
        max_warmup_draws,
        target_accept,
        metric=metric,
        most_thin=most_thin,
    )
