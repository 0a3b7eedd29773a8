"""Correct ones, some of which look wrong: no check may reject any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Biased, Invariant
from ppcore.population import Population, reweight
from ppcore.stages.resampling import multinomial
from ppcore.testing.reference.combine import Cycle, Identity, Mixture, TwoReplicas
from ppcore.testing.reference.gibbs import (
    FiniteGibbs,
    FiniteMetropolis,
    FiniteRandomScan,
    GaussianGibbs,
    Palindrome,
    RandomScan,
)
from ppcore.testing.reference.hamiltonian import BAOAB, HMC, GeneralisedHMC
from ppcore.testing.reference.maps import (
    Affine,
    Coupling,
    ExactPosterior,
    GaussianMixture,
    Pushed,
    SinhArcsinh,
    sum_out_last,
)
from ppcore.testing.reference.metropolis import MALA, Independence, Langevin, RandomWalk
from ppcore.testing.reference.nuts import SmallNUTS
from ppcore.testing.reference.stages import AnnealedSMC, Importance, Proposal
from ppcore.testing.subject import Subject
from ppcore.testing.zoo.entry import GAUSSIAN, Animal, listed, running
from ppcore.testing.zoo.mapped import amortised, dense, mapped, rewritten
from ppcore.testing.zoo.weighted import WEIGHED, weighted


class Barker(RandomWalk):
    """Accepts with r/(1 + r): less often, and still reversible."""

    def accept(self, key: Any, log_ratio: Any) -> Any:
        return random.bernoulli(key, 1.0 / (1.0 + jnp.exp(-log_ratio)))


class Lazy(RandomWalk):
    """Stays put half of the time, whatever the ratio."""

    def accept(self, key: Any, log_ratio: Any) -> Any:
        return random.bernoulli(key, 0.5 * jnp.exp(jnp.minimum(0.0, log_ratio)))


class FiniteBarker(FiniteMetropolis):
    def probability(self, log_ratio: Any) -> Any:
        return 1.0 / (1.0 + jnp.exp(-log_ratio))


class JitteredHMC(HMC):
    """A step size drawn anew, whatever the state."""

    def step_size(self, key: Any, x: Any, params: Any) -> Any:
        return params["step_size"] * (0.5 + random.uniform(key, (), x.dtype))


class MismatchedVelocity(HMC):
    """Velocity A p with a matrix that is no mass matrix: volume is kept and the path can be
    walked back, so the test on the true energy makes it exact, if not efficient."""

    def velocity(self, p: Any) -> Any:
        return p * jnp.linspace(0.6, 1.4, p.shape[0]).astype(p.dtype)


@dataclass(frozen=True)
class TemperedAncestors(AnnealedSMC):
    """Ancestors drawn ∝ √W with weights W/√W kept: proper, though it looks like a slip."""

    def resample(self, key: Any, population: Population) -> Population:
        w = population.weights
        odds = jnp.sqrt(w) / jnp.sum(jnp.sqrt(w))
        index = multinomial(key, odds)
        flat = Population(population.x[index], jnp.zeros_like(w), population.log_z)
        return reweight(flat, (jnp.log(w) - jnp.log(odds))[index])


class WeightsOfSlots(AnnealedSMC):
    """Weights stay with the slots while multinomial ancestors move: slots are exchangeable given
    the weights, so this is proper after all, with needless variance."""

    def resample(self, key: Any, population: Population) -> Population:
        index = self.ancestors(key, population.weights)
        return Population(population.x[index], population.log_weight, population.log_z)


CYCLE = Cycle(RandomWalk(), HMC())
CONTROLS = tuple(
    Animal(subject, note, control=True)
    for subject, note in (
        (running("no_op", Identity()), "never moves, and does not claim to"),
        (running("random_walk", RandomWalk()), "random-walk Metropolis"),
        (running("barker", Barker()), "Barker's acceptance rule"),
        (running("lazy", Lazy()), "rejects half of what it could accept"),
        (running("independence", Independence()), "independence Metropolis from the prior"),
        (running("mala", MALA(), 0.1), "MALA with its ratio"),
        (running("hmc", HMC(), 0.25), "Hamiltonian Monte Carlo"),
        (running("hmc_jittered", JitteredHMC(), 0.25), "a step jittered independently"),
        (
            running("hmc_mismatched_velocity", MismatchedVelocity(), 0.25),
            "a velocity that does not match the mass, under a test of the true energy",
        ),
        (
            running("generalised_hmc", GeneralisedHMC(), 0.15, auxiliary=("p",)),
            "persistent momentum, turned round on rejection",
        ),
        (running("small_nuts", SmallNUTS(), 0.3), "a no-U-turn kernel"),
        (
            running("systematic_scan", GaussianGibbs(), models=GAUSSIAN),
            "Gibbs in a fixed order: invariant, not reversible",
        ),
        (running("random_scan", RandomScan(), models=GAUSSIAN), "Gibbs in random order"),
        (
            running("palindrome_scan", Palindrome(), models=GAUSSIAN),
            "Gibbs there and back: reversible",
        ),
        (
            running("cycle", CYCLE, 0.3, contract=CYCLE.contract),
            "a non-reversible composition of two reversible kernels",
        ),
        (running("mixture", Mixture(RandomWalk(), HMC()), 0.3), "a mixture of two kernels"),
        (running("two_replicas", TwoReplicas(), auxiliary=("hot",)), "parallel tempering"),
        (listed("finite_metropolis", FiniteMetropolis()), "Metropolis on a finite model"),
        (listed("finite_barker", FiniteBarker()), "Barker's rule on a finite model"),
        (listed("finite_systematic", FiniteGibbs()), "exact Gibbs in a fixed order"),
        (listed("finite_random_scan", FiniteRandomScan()), "exact Gibbs in random order"),
        (listed("finite_independence", Independence()), "independence on a finite model"),
        (listed("finite_no_op", Identity(), Invariant(True, False)), "the identity"),
        (weighted("importance", Importance(), WEIGHED), "importance weights from the prior"),
        (weighted("importance_proposal", Proposal()), "importance weights with a proposal"),
        (weighted("smc_multinomial", AnnealedSMC(), WEIGHED), "SMC, multinomial resampling"),
        (
            weighted("smc_systematic", AnnealedSMC(scheme="systematic"), WEIGHED),
            "SMC, systematic resampling",
        ),
        (
            weighted("smc_stratified", AnnealedSMC(scheme="stratified")),
            "SMC, stratified resampling",
        ),
        (weighted("smc_residual", AnnealedSMC(scheme="residual")), "SMC, residual resampling"),
        (
            weighted("smc_adaptive", AnnealedSMC(threshold=0.8)),
            "SMC that resamples only when the effective size is low",
        ),
        (
            weighted("smc_tempered_ancestors", TemperedAncestors()),
            "resampling from tempered weights, corrected",
        ),
        (
            weighted("smc_weights_of_slots", WeightsOfSlots()),
            "weights stay with the slots: right for multinomial ancestors",
        ),
        (mapped("affine_map", Affine()), "an affine map"),
        (mapped("coupling_map", Coupling()), "an affine coupling"),
        (mapped("sinh_arcsinh_map", SinhArcsinh()), "an elementwise map"),
        (dense("pushed_coupling", Pushed(Coupling())), "a pushed normal"),
        (dense("pushed_sinh_arcsinh", Pushed(SinhArcsinh())), "a pushed normal, heavier tails"),
        (dense("mixture_density", GaussianMixture()), "a mixture of two normals"),
        (amortised("exact_posterior", ExactPosterior()), "an exact amortised posterior"),
        (rewritten("summed_out", sum_out_last), "a coordinate summed out"),
        (
            Subject(
                "ula", Biased(order=1), kernel=Langevin(), params={"step_size": 0.1}, step=0.05
            ),
            "unadjusted Langevin, declared biased of order one",
        ),
        (
            Subject("baoab", Biased(order=2), kernel=BAOAB(), params={"step_size": 0.1}, step=0.4),
            "BAOAB, declared biased of order two",
        ),
    )
)
