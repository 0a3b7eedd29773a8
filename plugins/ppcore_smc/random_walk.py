"""Random-walk Metropolis moves for populations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_smc.hmc import Position


class Scale(NamedTuple):
    """F and the step size ε in whitened units."""

    preconditioner: Preconditioner
    step_size: Any


@dataclass(frozen=True)
class RandomWalk:
    """y = x + ε F z, z ~ N(0, I); accept with min(1, γ(y)/γ(x)). Reversible; needs no gradient.

    Source: Metropolis et al. 1953, doi:10.1063/1.1699114; Roberts, Gelman & Gilks 1997,
    doi:10.1214/aoap/1034625254, for the acceptance rate.

    >>> RandomWalk().needs
    ()
    """

    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()
    target_accept: ClassVar[float] = 0.3
    error_order: ClassVar[float] = 1.0

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Scale:
        return Scale(preconditioner, step)

    def init(self, key: Any, target: Any, x: Any, params: Scale) -> Position:
        return Position(x)

    def refresh(self, target: Any, state: Position) -> Position:
        return state

    def step(
        self, key: Any, target: Any, state: Position, params: Scale
    ) -> tuple[Position, dict[str, Any]]:
        k_propose, k_accept = random.split(key)
        x = state.x
        z = random.normal(k_propose, x.shape, x.dtype)
        y = x + params.step_size * params.preconditioner.push(z)
        here, there = jax.lax.map(target.log_density, jnp.stack([x, y]))
        log_ratio = there - here
        odds = jnp.exp(jnp.minimum(0.0, jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)))
        accept = random.bernoulli(k_accept, odds)
        info = {
            "acceptance_rate": odds,
            "n_gradients": jnp.asarray(2, jnp.int32),
            "log_density_before": here,
            "log_density": jnp.where(accept, there, here),
        }
        return Position(jnp.where(accept, y, x)), info
