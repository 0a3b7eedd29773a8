"""Mutants of stages on populations: weights, evidence, ancestors, moves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import ProperlyWeighted
from ppcore.population import Population, reweight
from ppcore.testing.reference.stages import AnnealedSMC, Importance, Proposal
from ppcore.testing.subject import Subject
from ppcore.testing.zoo.entry import Animal


class ProposalDensityMissing(Proposal):
    def log_q(self, target: Any) -> Any:
        return 0.0


class SelfNormalised(Importance):
    """Knows Z and reports it with self-normalised weights: E[Ẑ ΣWf] ≠ Zπ(f)."""

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        end = super().__call__(key, source, target, population)
        return Population(end.x, end.log_weight, jax.nn.logsumexp(target.log_gamma))


class MeanWeightDropped(AnnealedSMC):
    def reweight(self, population: Population, log_g: Any) -> Population:
        return Population(population.x, reweight(population, log_g).log_weight, population.log_z)


class MeanOfLogs(AnnealedSMC):
    """Adds the mean log weight to log Ẑ, not the log mean weight."""

    def reweight(self, population: Population, log_g: Any) -> Population:
        end = reweight(population, log_g)
        return Population(end.x, end.log_weight, population.log_z + population.weights @ log_g)


class WeightsKept(AnnealedSMC):
    """Every particle keeps its ancestor's weight after it was chosen by that weight."""

    def resample(self, key: Any, population: Population) -> Population:
        index = self.ancestors(key, population.weights)
        return Population(population.x[index], population.log_weight[index], population.log_z)


class AncestorsOffByOne(AnnealedSMC):
    def ancestors(self, key: Any, w: Any) -> Any:
        return jnp.mod(super().ancestors(key, w) + 1, w.shape[0])


class NoRandomOffset(AnnealedSMC):
    """Systematic resampling with its offset fixed at one half."""

    def ancestors(self, key: Any, w: Any) -> Any:
        n = w.shape[0]
        u = (jnp.arange(n) + 0.5) / n
        return jnp.minimum(jnp.searchsorted(jnp.cumsum(w), u, side="right"), n - 1)


class FlatAncestors(AnnealedSMC):
    """Ancestors drawn ∝ √W, weights set equal all the same."""

    def ancestors(self, key: Any, w: Any) -> Any:
        return super().ancestors(key, jnp.sqrt(w) / jnp.sum(jnp.sqrt(w)))


class BestSurvives(AnnealedSMC):
    """The heaviest particle always takes the first place."""

    def ancestors(self, key: Any, w: Any) -> Any:
        return super().ancestors(key, w).at[0].set(jnp.argmax(w))


class ClippedWeights(Importance):
    def reweight(self, population: Population, log_g: Any) -> Population:
        return reweight(population, jnp.minimum(log_g, 0.2))


class Float32Weights(AnnealedSMC):
    """Adds up the log evidence in single precision."""

    def reweight(self, population: Population, log_g: Any) -> Population:
        end = reweight(population, log_g)
        short = end.log_z.astype(jnp.float32)
        return Population(end.x, end.log_weight, short.astype(population.x.dtype))


class MovesAtOldTemperature(AnnealedSMC):
    def advance(self, key: Any, old: Any, new: Any, population: Population) -> Population:
        k_resample, k_move = random.split(key)
        log_g = jax.vmap(lambda x: self.log_g(old, new, x))(population.x)
        population = self.resample(k_resample, self.reweight(population, log_g))
        return self.mutate(k_move, old, population)


class WeighsAfterMove(AnnealedSMC):
    """Moves with the new temperature's kernel first, then weighs the moved particle."""

    def advance(self, key: Any, old: Any, new: Any, population: Population) -> Population:
        k_resample, k_move = random.split(key)
        population = self.mutate(k_move, new, population)
        log_g = jax.vmap(lambda x: self.log_g(old, new, x))(population.x)
        return self.resample(k_resample, self.reweight(population, log_g))


class LastTemperatureTwice(AnnealedSMC):
    """The increment of the last temperature is counted twice."""

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        end = super().__call__(key, source, target, population)
        old = target.tempered(jnp.full((), self.betas[-2]))
        return self.reweight(end, jax.vmap(lambda x: self.log_g(old, target, x))(end.x))


class DuplicatedAncestor(AnnealedSMC):
    """All particles share the first ancestor that was drawn: proper, if wasteful, were it not
    for the evidence, which is read off after it."""

    def resample(self, key: Any, population: Population) -> Population:
        end = super().resample(key, population)
        mean = jnp.mean(population.weights) * population.size
        return replace(end, log_z=end.log_z + jnp.log(mean) + 0.01)


@dataclass(frozen=True)
class StopsEarly(AnnealedSMC):
    """Skips the move when all particles agree."""

    def mutate(self, key: Any, target: Any, population: Population) -> Population:
        end = super().mutate(key, target, population)
        better = jax.vmap(target.log_density)(end.x) > jax.vmap(target.log_density)(population.x)
        x = jnp.where(better[:, None], end.x, population.x)
        return Population(x, end.log_weight, end.log_z)


def weighted(name: str, stage: Any, models: tuple[str, ...] = ()) -> Subject:
    """A stage enumerated on the smallest finite models, and weighed on continuous ones if named."""
    finite = ("finite_line",) if isinstance(stage, AnnealedSMC) else ("finite_line", "finite_grid")
    return Subject(name, ProperlyWeighted(), stage=stage, finite=finite, models=models)


BOTH = ("enumeration", "evidence")
WEIGHED = ("normal", "gamma_scale")
MUTANTS = (
    Animal(
        weighted("is_proposal_density_missing", ProposalDensityMissing()),
        "importance weights without the proposal's density",
        killers=("enumeration",),
    ),
    Animal(
        weighted("self_normalised", SelfNormalised()),
        "self-normalised weights where unnormalised ones are claimed",
        killers=("enumeration",),
    ),
    Animal(
        weighted("mean_weight_dropped", MeanWeightDropped(), WEIGHED),
        "the mean weight is dropped from the evidence",
        killers=BOTH,
    ),
    Animal(
        weighted("mean_of_logs", MeanOfLogs(), WEIGHED),
        "the evidence is a mean of logs",
        killers=BOTH,
    ),
    Animal(
        weighted("weights_kept", WeightsKept(), WEIGHED),
        "weights are kept after resampling",
        killers=BOTH,
    ),
    Animal(
        weighted("ancestors_off_by_one", AncestorsOffByOne(), WEIGHED),
        "ancestor indices are shifted by one",
        killers=BOTH,
    ),
    Animal(
        weighted("no_random_offset", NoRandomOffset()),
        "systematic resampling without its random offset",
        killers=("enumeration",),
    ),
    Animal(
        weighted("flat_ancestors", FlatAncestors()),
        "ancestors from tempered weights, uncorrected",
        killers=("enumeration",),
    ),
    Animal(
        weighted("best_survives", BestSurvives()),
        "the heaviest particle always survives",
        killers=("enumeration",),
    ),
    Animal(
        weighted("clipped_weights", ClippedWeights(), WEIGHED),
        "clipped weights claimed unbiased",
        killers=BOTH,
    ),
    Animal(
        weighted("float32_evidence", Float32Weights()),
        "log weights added up in single precision",
        killers=("enumeration",),
    ),
    Animal(
        weighted("moves_at_old_temperature", MovesAtOldTemperature(), WEIGHED),
        "particles move at the previous temperature",
        killers=BOTH,
    ),
    Animal(
        weighted("weighs_after_move", WeighsAfterMove(), WEIGHED),
        "increments are evaluated after the move",
        killers=BOTH,
    ),
    Animal(
        weighted("last_temperature_twice", LastTemperatureTwice()),
        "the last increment counts twice",
        killers=("enumeration",),
    ),
    Animal(
        weighted("evidence_off_by_a_percent", DuplicatedAncestor()),
        "the evidence is one percent too large",
        killers=("enumeration",),
    ),
    Animal(
        weighted("keeps_better_particles", StopsEarly()),
        "moves are undone unless they go uphill",
        killers=("enumeration",),
    ),
)
