"""Kernels made of kernels: cycle, mixture, the identity, two tempered replicas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import contract as rules
from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.testing.reference.metropolis import Position, RandomWalk


@dataclass(frozen=True)
class Identity:
    """Stays where it is: reversible for everything, and irreducible for nothing."""

    contract: Contract = Invariant(reversible=True, irreducible=False)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Position(x)

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return state, {}


@dataclass(frozen=True)
class Cycle:
    """K₁ then K₂, on position-only states."""

    first: Any
    second: Any

    @property
    def contract(self) -> Contract:
        return rules.cycle(self.first.contract, self.second.contract)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Position(x)

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_first, k_second = random.split(key)
        state, _ = self.first.step(k_first, target, state, params)
        return self.second.step(k_second, target, state, params)


@dataclass(frozen=True)
class Mixture(Cycle):
    """K₁ or K₂, with a probability that does not depend on the state."""

    @property
    def contract(self) -> Contract:
        return rules.mix(self.first.contract, self.second.contract)

    def odds(self, target: Any, x: Any) -> Any:
        """The probability of K₁."""
        return 0.5

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_which, k_first, k_second = random.split(key, 3)
        first, _ = self.first.step(k_first, target, state, params)
        second, _ = self.second.step(k_second, target, state, params)
        which = random.bernoulli(k_which, self.odds(target, state.x))
        return Position(jnp.where(which, first.x, second.x)), {}


class Replicas(NamedTuple):
    """The chain at β = 1 and a hot one at β = 0."""

    x: Any
    hot: Any


@dataclass(frozen=True)
class TwoReplicas:
    """Parallel tempering with β ∈ {1, 0}: each replica moves, then they may swap with probability
    min(1, (L(hot)/L(x))^{1−0}). Leaves γ₁ ⊗ γ₀ invariant. Geyer (1991)."""

    contract: Contract = Invariant(reversible=False, irreducible=True)
    walk: RandomWalk = RandomWalk()

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Replicas(x, target.sample_reference(key, 1)[0])

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def log_swap(self, target: Any, state: Any) -> Any:
        return target.log_likelihood(state.hot) - target.log_likelihood(state.x)

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_cold, k_hot, k_swap = random.split(key, 3)
        zero = jnp.zeros((), state.x.dtype)
        cold, _ = self.walk.step(k_cold, target, Position(state.x), params)
        hot, _ = self.walk.step(k_hot, target.tempered(zero), Position(state.hot), params)
        state = Replicas(cold.x, hot.x)
        swap = random.bernoulli(k_swap, jnp.exp(jnp.minimum(0.0, self.log_swap(target, state))))
        swapped = Replicas(state.hot, state.x)
        return jax.tree.map(lambda a, b: jnp.where(swap, a, b), swapped, state), {}
