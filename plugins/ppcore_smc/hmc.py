"""Hamiltonian moves for populations: all particles take the same number of leapfrog steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_count
from ppcore.tuning.preconditioner import Preconditioner


class Position(NamedTuple):
    """Where a particle is; nothing is cached, so no temperature is ever stale."""

    x: Any


class Flight(NamedTuple):
    """F, the step size ε in whitened units, and the number of leapfrog steps L."""

    preconditioner: Preconditioner
    step_size: Any
    steps: Any


@dataclass(frozen=True)
class HMC:
    """z ~ N(0, I), ε′ = ε U(0.7, 1.3), L leapfrog steps, accept with min(1, exp(−ΔH)).

    Reversible for γ. The loop evaluates log γ and its gradient at all L + 1 points of the
    trajectory, the first included: one gradient in the compiled program, none kept between
    temperatures, and particles in lockstep because L is common to all of them.

    Parameters
    ----------
    max_steps : int
        Bound on L = ⌈length/ε⌉.

    Source: Duane, Kennedy, Pendleton & Roweth 1987, doi:10.1016/0370-2693(87)91197-X.

    >>> HMC().contract.reversible
    True
    """

    max_steps: int = 64
    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.8
    learns_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_count("max_steps", self.max_steps, 1)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Flight:
        """ε is ``step``, and L the number of steps that reach ``length``."""
        steps = jnp.clip(jnp.ceil(length / step), 1, self.max_steps)
        return Flight(preconditioner, step, steps.astype(jnp.int32))

    def init(self, key: Any, target: Any, x: Any, params: Flight) -> Position:
        return Position(x)

    def refresh(self, target: Any, state: Position) -> Position:
        return state

    def step(
        self, key: Any, target: Any, state: Position, params: Flight
    ) -> tuple[Position, dict[str, Any]]:
        k_momentum, k_uniform = random.split(key)
        x, f = state.x, params.preconditioner
        z = random.normal(k_momentum, x.shape, x.dtype)
        u = random.uniform(k_uniform, (2,), x.dtype)
        h = params.step_size * (0.7 + 0.6 * u[0])
        last = params.steps

        def leap(i: Any, at: tuple[Any, ...]) -> tuple[Any, ...]:
            y, p, first, _ = at
            value, gradient = jax.value_and_grad(target.log_density)(y)
            kick = jnp.where((i == 0) | (i == last), 0.5, 1.0) * h
            p = p + kick * f.pull(gradient)
            y = y + jnp.where(i == last, 0.0, h) * f.push(p)
            return y, p, jnp.where(i == 0, value, first), value

        zero = jnp.zeros((), x.dtype)
        y, p, first, value = jax.lax.fori_loop(0, last + 1, leap, (x, z, zero, zero))
        log_ratio = value - first + 0.5 * (jnp.sum(z**2) - jnp.sum(p**2))
        odds = jnp.exp(jnp.minimum(0.0, jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)))
        accept = u[1] < odds
        info = {
            "acceptance_rate": odds,
            "n_gradients": last + 1,
            "log_density_before": first,
            "log_density": jnp.where(accept, value, first),
        }
        return Position(jnp.where(accept, y, x)), info
