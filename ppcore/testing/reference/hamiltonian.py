"""Hamiltonian kernels: HMC, generalised HMC with a persistent momentum, BAOAB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Biased, Contract, Invariant
from ppcore.testing.reference.metropolis import REVERSIBLE, Position

LEAPS = 5


class Moving(NamedTuple):
    """A position and a momentum."""

    x: Any
    p: Any


@dataclass(frozen=True)
class HMC:
    """p ~ N(0, I), five leapfrog steps of size h, accept with min(1, exp(H₀ − H₁)).

    Reversible for γ. Duane et al. (1987), doi:10.1016/0370-2693(87)91197-X.
    """

    contract: Contract = REVERSIBLE

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Position(x)

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def momentum(self, key: Any, x: Any) -> Any:
        return random.normal(key, x.shape, x.dtype)

    def velocity(self, p: Any) -> Any:
        return p

    def kinetic(self, p: Any) -> Any:
        return 0.5 * jnp.sum(p**2)

    def step_size(self, key: Any, x: Any, params: Any) -> Any:
        return params["step_size"]

    def first_kick(self, p: Any, g: Any, h: Any) -> Any:
        return p + 0.5 * h * g

    def last_kick(self, p: Any, g: Any, h: Any) -> Any:
        return p + 0.5 * h * g

    def flow(self, target: Any, x: Any, p: Any, h: Any) -> tuple[Any, Any]:
        """Half kick, then drifts with full kicks between them, half kick."""
        gradient = jax.grad(target.log_density)
        p = self.first_kick(p, gradient(x), h)

        def leap(state: Any, last: Any) -> tuple[Any, None]:
            x, p = state
            x = x + h * self.velocity(p)
            g = gradient(x)
            return (x, jnp.where(last, self.last_kick(p, g, h), p + h * g)), None

        (x, p), _ = jax.lax.scan(leap, (x, p), jnp.arange(LEAPS) == LEAPS - 1)
        return x, p

    def log_ratio(self, target: Any, x: Any, p: Any, y: Any, r: Any) -> Any:
        kinetic = self.kinetic(p) - self.kinetic(r)
        here, there = jax.vmap(target.log_density)(jnp.stack([x, y]))
        return there - here + kinetic

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_step, k_momentum, k_accept = random.split(key, 3)
        p = self.momentum(k_momentum, state.x)
        y, r = self.flow(target, state.x, p, self.step_size(k_step, state.x, params))
        log_ratio = self.log_ratio(target, state.x, p, y, r)
        accept = random.bernoulli(k_accept, jnp.exp(jnp.minimum(0.0, log_ratio)))
        return Position(jnp.where(accept, y, state.x)), {}


@dataclass(frozen=True)
class GeneralisedHMC(HMC):
    """The momentum persists, p ← a p + √(1 − a²) z, and turns round on rejection.

    Leaves γ(x) N(p; 0, I) invariant; not reversible. Horowitz (1991),
    doi:10.1016/0370-2693(91)90812-5.
    """

    contract: Contract = Invariant(reversible=False, irreducible=True)
    persistence: float = 0.7

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Moving(x, random.normal(key, x.shape, x.dtype))

    def rejected(self, p: Any) -> Any:
        return -p

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_momentum, k_accept = random.split(key)
        a = self.persistence
        fresh = random.normal(k_momentum, state.x.shape, state.x.dtype)
        p = a * state.p + jnp.sqrt(1.0 - a**2) * fresh
        y, r = self.flow(target, state.x, p, params["step_size"])
        log_ratio = self.log_ratio(target, state.x, p, y, r)
        accept = random.bernoulli(k_accept, jnp.exp(jnp.minimum(0.0, log_ratio)))
        moved = Moving(y, r), Moving(state.x, self.rejected(p))
        return jax.tree.map(lambda u, v: jnp.where(accept, u, v), *moved), {}


@dataclass(frozen=True)
class BAOAB:
    """Underdamped Langevin, split B-A-O-A-B; the law of x is off by O(h²).

    Leimkuhler and Matthews (2013), doi:10.1093/amrx/abs010.
    """

    contract: Contract = Biased(order=2)
    friction: float = 2.0

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Moving(x, random.normal(key, x.shape, x.dtype))

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        h, gradient = params["step_size"], jax.grad(target.log_density)
        x, p = state
        p = p + 0.5 * h * gradient(x)
        x = x + 0.5 * h * p
        decay = jnp.exp(-self.friction * h)
        p = decay * p + jnp.sqrt(1.0 - decay**2) * random.normal(key, x.shape, x.dtype)
        x = x + 0.5 * h * p
        return Moving(x, p + 0.5 * h * gradient(x)), {}
