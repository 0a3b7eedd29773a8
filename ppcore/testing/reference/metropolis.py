"""Metropolis kernels: random walk, independence, and two that use the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Biased, Contract, Invariant

REVERSIBLE = Invariant(reversible=True, irreducible=True)


class Position(NamedTuple):
    x: Any


class Scored(NamedTuple):
    """A position with its log density and gradient."""

    x: Any
    log_density: Any
    gradient: Any


@dataclass(frozen=True)
class RandomWalk:
    """y = x + h z; accept with min(1, γ(y)/γ(x)). Reversible for γ. Metropolis et al. (1953)."""

    contract: Contract = REVERSIBLE

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Position(x)

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def propose(self, key: Any, x: Any, params: Any) -> Any:
        return x + params["step_size"] * random.normal(key, x.shape, x.dtype)

    def log_ratio(self, target: Any, x: Any, y: Any, params: Any) -> Any:
        here, there = jax.vmap(target.log_density)(jnp.stack([x, y]))
        return there - here

    def accept(self, key: Any, log_ratio: Any) -> Any:
        return random.bernoulli(key, jnp.exp(jnp.minimum(0.0, log_ratio)))

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_propose, k_accept = random.split(key)
        y = self.propose(k_propose, state.x, params)
        accept = self.accept(k_accept, self.log_ratio(target, state.x, y, params))
        return Position(jnp.where(accept, y, state.x)), {}


@dataclass(frozen=True)
class Independence(RandomWalk):
    """y from the reference; accept with min(1, L(y)/L(x)), L = γ/reference. Works on finite
    targets too. Reversible for γ. Hastings (1970), doi:10.1093/biomet/57.1.97."""

    def log_ratio(self, target: Any, x: Any, y: Any, params: Any) -> Any:
        here, there = jax.vmap(target.log_likelihood)(jnp.stack([x, y]))
        return target.beta * (there - here)

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_propose, k_accept = random.split(key)
        y = target.sample_reference(k_propose, 1)[0]
        accept = self.accept(k_accept, self.log_ratio(target, state.x, y, params))
        return Position(jnp.where(accept, y, state.x)), {}


@dataclass(frozen=True)
class Langevin:
    """y = x + h ∇log γ(x) + √(2h) z, unadjusted: stationary law off by O(h). Biased of order 1."""

    contract: Contract = Biased(order=1)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return self.score(target, x)

    def refresh(self, target: Any, state: Any) -> Any:
        return self.score(target, state.x)

    def score(self, target: Any, x: Any) -> Any:
        return Scored(x, *jax.value_and_grad(target.log_density)(x))

    def propose(self, key: Any, state: Any, h: Any) -> Any:
        noise = random.normal(key, state.x.shape, state.x.dtype)
        return state.x + h * state.gradient + jnp.sqrt(2.0 * h) * noise

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        return self.score(target, self.propose(key, state, params["step_size"])), {}


@dataclass(frozen=True)
class MALA(Langevin):
    """The Langevin proposal q with a Metropolis test: min(1, γ(y)q(x|y) / γ(x)q(y|x)).

    Reversible for γ. Roberts and Tweedie (1996), doi:10.2307/3318418.
    """

    contract: Contract = REVERSIBLE

    def log_q(self, to: Any, at: Any, h: Any) -> Any:
        return -jnp.sum((to.x - at.x - h * at.gradient) ** 2) / (4.0 * h)

    def log_ratio(self, state: Any, new: Any, h: Any) -> Any:
        forth, back = self.log_q(new, state, h), self.log_q(state, new, h)
        return new.log_density - state.log_density + back - forth

    def select(self, accept: Any, new: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, old)

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_propose, k_accept = random.split(key)
        h = params["step_size"]
        new = self.score(target, self.propose(k_propose, state, h))
        p = jnp.exp(jnp.minimum(0.0, self.log_ratio(state, new, h)))
        return self.select(random.bernoulli(k_accept, p), new, state), {}
