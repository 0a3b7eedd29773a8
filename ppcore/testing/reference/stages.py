"""Correct stages on populations: importance sampling, resampling, annealed SMC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.population import Population, reweight
from ppcore.stages.resampling import SCHEMES
from ppcore.testing.reference.metropolis import Independence, Position


@dataclass(frozen=True)
class Importance:
    """Weights γ_target/γ_source at the particles as they are: w = L(x)^{β' − β}."""

    contract: Contract = ProperlyWeighted()

    def log_g(self, source: Any, target: Any, x: Any) -> Any:
        return target.log_density(x) - source.log_density(x)

    def reweight(self, population: Population, log_g: Any) -> Population:
        return reweight(population, log_g)

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        log_g = jax.vmap(lambda x: self.log_g(source, target, x))(population.x)
        return self.reweight(population, log_g)


@dataclass(frozen=True)
class Proposal(Importance):
    """Fresh particles from a flat q on a finite grid, weights γ/q."""

    def log_q(self, target: Any) -> Any:
        return -jnp.log(1.0 * len(target.states))

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        codes = random.randint(key, (population.size,), len(target.states))
        x = target.states[codes]
        log_g = jax.vmap(target.log_density)(x) - self.log_q(target)
        zero = jnp.zeros((), x.dtype)
        return self.reweight(Population(x, jnp.zeros(x.shape[0], x.dtype), zero), log_g)


@dataclass(frozen=True)
class AnnealedSMC(Importance):
    """Reweight from γ_{β_{t−1}} to γ_{β_t}, resample, move with a γ_{β_t}-invariant kernel.

    Properly weighted for the target at every temperature, with E[Ẑ] = Z. Del Moral, Doucet and
    Jasra (2006), doi:10.1111/j.1467-9868.2006.00553.x.
    """

    betas: tuple[float, ...] = (0.4, 1.0)
    scheme: str = "multinomial"
    move: Any = Independence()
    threshold: float = 1.0

    def ancestors(self, key: Any, w: Any) -> Any:
        return SCHEMES[self.scheme](key, w)

    def resample(self, key: Any, population: Population) -> Population:
        """Equal weights after; only where ESS ≤ threshold · N (always, at 1)."""
        index = self.ancestors(key, population.weights)
        do = population.ess <= self.threshold * population.size + 1e-9
        x = jnp.where(do, population.x[index], population.x)
        log_weight = jnp.where(do, 0.0, population.log_weight)
        return Population(x, log_weight, population.log_z)

    def mutate(self, key: Any, target: Any, population: Population) -> Population:
        x = random.each(
            lambda k, x: self.move.step(k, target, Position(x), {"step_size": 0.5})[0].x,
            key,
            population.x,
        )
        return Population(x, population.log_weight, population.log_z)

    def advance(self, key: Any, old: Any, new: Any, population: Population) -> Population:
        """One temperature on."""
        k_resample, k_move = random.split(key)
        log_g = jax.vmap(lambda x: self.log_g(old, new, x))(population.x)
        population = self.reweight(population, log_g)
        return self.mutate(k_move, new, self.resample(k_resample, population))

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        steps = [source] + [target.tempered(jnp.full((), b) * target.beta) for b in self.betas]
        for k, old, new in zip(
            random.split(key, len(self.betas)), steps[:-1], steps[1:], strict=True
        ):
            population = self.advance(k, old, new, population)
        return population
