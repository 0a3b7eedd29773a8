"""Gibbs kernels: exact conditionals of Gaussian targets, and of finite ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.testing.reference.metropolis import REVERSIBLE, Position


@dataclass(frozen=True)
class Scan:
    """Draws coordinates from their conditionals in the order that :meth:`order` gives.

    Geman and Geman (1984), doi:10.1109/TPAMI.1984.4767596.
    """

    contract: Contract = Invariant(reversible=False, irreducible=True)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Position(x)

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def order(self, key: Any, x: Any) -> Any:
        """Coordinates to update, int[m]; systematic: 0 … d − 1."""
        return jnp.arange(x.shape[0])

    def conditional(self, key: Any, target: Any, x: Any, i: Any) -> Any:
        raise NotImplementedError

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_order, k_sweep = random.split(key)
        order = self.order(k_order, state.x)

        def update(k: Any, x: Any, i: Any) -> tuple[Any, Any]:
            return x.at[i].set(self.conditional(k, target, x, i)), ()

        x, _ = random.scan(update, k_sweep, state.x, order, order.shape[0])
        return Position(x), {}


@dataclass(frozen=True)
class GaussianGibbs(Scan):
    """x_i | rest ~ N(x_i + g_i/Λ_ii, 1/Λ_ii), with g = ∇log γ and Λ = −∇²log γ: exact where γ is
    Gaussian."""

    def conditional(self, key: Any, target: Any, x: Any, i: Any) -> Any:
        gradient, along = jax.jvp(
            jax.grad(target.log_density), (x,), (jnp.zeros_like(x).at[i].set(1.0),)
        )
        precision = -along[i]
        return x[i] + gradient[i] / precision + random.normal(key) / jnp.sqrt(precision)


@dataclass(frozen=True)
class RandomScan(GaussianGibbs):
    """One coordinate, chosen uniformly: reversible."""

    contract: Contract = REVERSIBLE

    def order(self, key: Any, x: Any) -> Any:
        return random.randint(key, (1,), x.shape[0])


@dataclass(frozen=True)
class Palindrome(GaussianGibbs):
    """0 … d − 1 … 0: reversible again."""

    contract: Contract = REVERSIBLE

    def order(self, key: Any, x: Any) -> Any:
        d = x.shape[0]
        return jnp.concatenate([jnp.arange(d), jnp.arange(d - 2, -1, -1)])


@dataclass(frozen=True)
class FiniteGibbs(Scan):
    """x_i | rest by listing the values of x_i; systematic scan."""

    def conditional(self, key: Any, target: Any, x: Any, i: Any) -> Any:
        size = max(target.sizes)
        values = jnp.arange(size)
        here = jax.vmap(lambda v: target.log_density(x.at[i].set(v)))(values.astype(x.dtype))
        inside = values < jnp.asarray(target.sizes)[i]
        return random.categorical(key, jnp.where(inside, here, -jnp.inf)).astype(x.dtype)


@dataclass(frozen=True)
class FiniteRandomScan(FiniteGibbs):
    """One coordinate, chosen uniformly: reversible."""

    contract: Contract = REVERSIBLE

    def order(self, key: Any, x: Any) -> Any:
        return random.randint(key, (1,), x.shape[0])


@dataclass(frozen=True)
class FiniteMetropolis:
    """A neighbour on a randomly chosen axis, cyclic; accept with min(1, γ(y)/γ(x))."""

    contract: Contract = REVERSIBLE

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Position(x)

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def move(self, key: Any, target: Any, x: Any) -> Any:
        k_axis, k_side = random.split(key)
        axis = random.randint(k_axis, (), target.dim)
        side = jnp.where(random.bernoulli(k_side), 1.0, -1.0)
        size = jnp.asarray(target.sizes, x.dtype)[axis]
        return x.at[axis].set(jnp.mod(x[axis] + side, size))

    def probability(self, log_ratio: Any) -> Any:
        return jnp.exp(jnp.minimum(0.0, log_ratio))

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_move, k_accept = random.split(key)
        y = self.move(k_move, target, state.x)
        p = self.probability(target.log_density(y) - target.log_density(state.x))
        return Position(jnp.where(random.bernoulli(k_accept, p), y, state.x)), {}
