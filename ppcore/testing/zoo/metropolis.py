"""Mutants of Metropolis kernels: ratios, proposals, caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.testing.reference.metropolis import (
    MALA,
    REVERSIBLE,
    Independence,
    Langevin,
    Position,
    RandomWalk,
)
from ppcore.testing.zoo.entry import Animal, listed, running


@dataclass(frozen=True)
class Ratio(RandomWalk):
    """A random walk whose ratio comes from another log density."""

    def score(self, target: Any, x: Any) -> Any:
        raise NotImplementedError

    def log_ratio(self, target: Any, x: Any, y: Any, params: Any) -> Any:
        here, there = jax.vmap(lambda v: self.score(target, v))(jnp.stack([x, y]))
        return there - here


class MissingJacobian(Ratio):
    def score(self, target: Any, x: Any) -> Any:
        jacobian = jax.jacfwd(lambda v: target.constrain(v)["x"])(x)
        return target.log_density(x) - jnp.linalg.slogdet(jacobian)[1]


class MissingPrior(Ratio):
    def score(self, target: Any, x: Any) -> Any:
        return target.log_likelihood(x)


class DroppedDatum(Ratio):
    def score(self, target: Any, x: Any) -> Any:
        log_prior, terms = target.parts(x)
        return log_prior + terms[:-1].sum()


class TemperedLikelihood(Ratio):
    def score(self, target: Any, x: Any) -> Any:
        return target.tempered(0.8).log_density(x)


class RoundedDensity(Ratio):
    def score(self, target: Any, x: Any) -> Any:
        return 3.0 * jnp.round(target.log_density(x) / 3.0)


class KeyReused(RandomWalk):
    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        y = self.propose(key, state.x, params)
        accept = self.accept(key, self.log_ratio(target, state.x, y, params))
        return Position(jnp.where(accept, y, state.x)), {}


class DriftingProposal(RandomWalk):
    def propose(self, key: Any, x: Any, params: Any) -> Any:
        return super().propose(key, x, params) + 0.15


class ShrinkingProposal(RandomWalk):
    def propose(self, key: Any, x: Any, params: Any) -> Any:
        return 0.9 * x + params["step_size"] * random.normal(key, x.shape, x.dtype)


class StateScaledProposal(RandomWalk):
    def propose(self, key: Any, x: Any, params: Any) -> Any:
        scale = params["step_size"] * (0.3 + jnp.abs(x))
        return x + scale * random.normal(key, x.shape, x.dtype)


class ClippedProposal(RandomWalk):
    def propose(self, key: Any, x: Any, params: Any) -> Any:
        return jnp.clip(super().propose(key, x, params), -1.5, 1.5)


class AlwaysAccept(RandomWalk):
    def accept(self, key: Any, log_ratio: Any) -> Any:
        return jnp.asarray(True)


class StrictlyUphill(RandomWalk):
    def accept(self, key: Any, log_ratio: Any) -> Any:
        return log_ratio > 0


class InvertedRatio(RandomWalk):
    def accept(self, key: Any, log_ratio: Any) -> Any:
        return super().accept(key, -log_ratio)


class ResampleUntilAccept(RandomWalk):
    """Proposes up to eight times and takes the first that is accepted."""

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        walk = RandomWalk()

        def one(carry: Any, k: Any) -> tuple[Any, None]:
            x, done = carry
            moved, _ = walk.step(k, target, state, params)
            return (jnp.where(done, x, moved.x), done | jnp.any(moved.x != state.x)), None

        keys = random.split(key, 8)
        (x, _), _ = jax.lax.scan(one, (state.x, jnp.asarray(False)), keys)
        return Position(x), {}


class StopsWhenUphill(RandomWalk):
    """Up to eight steps, but stops as soon as the log density has gone up."""

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        begun, walk = target.log_density(state.x), RandomWalk()

        def one(carry: Any, k: Any) -> tuple[Any, None]:
            x, done = carry
            moved, _ = walk.step(k, target, Position(x), params)
            x = jnp.where(done, x, moved.x)
            return (x, done | (target.log_density(x) > begun)), None

        keys = random.split(key, 8)
        (x, _), _ = jax.lax.scan(one, (state.x, jnp.asarray(False)), keys)
        return Position(x), {}


class ProposalDensityMissing(Independence):
    def log_ratio(self, target: Any, x: Any, y: Any, params: Any) -> Any:
        here, there = jax.vmap(target.log_density)(jnp.stack([x, y]))
        return there - here


class HalfAcceptance(Independence):
    """min(1, r) / 2 uphill only: not symmetric any more."""

    def accept(self, key: Any, log_ratio: Any) -> Any:
        p = jnp.exp(jnp.minimum(0.0, log_ratio))
        return random.bernoulli(key, jnp.where(log_ratio > 0, 0.5 * p, p))


class NoProposalRatio(MALA):
    def log_ratio(self, state: Any, new: Any, h: Any) -> Any:
        return new.log_density - state.log_density


class StaleGradient(MALA):
    """After a rejection the proposal's gradient stays in the cache."""

    def select(self, accept: Any, new: Any, old: Any) -> Any:
        return super().select(accept, new, old)._replace(gradient=new.gradient)


@dataclass(frozen=True)
class UnadjustedLangevin(Langevin):
    contract: Contract = Invariant(reversible=False, irreducible=True)


@dataclass(frozen=True)
class TinyTilt(Ratio):
    def score(self, target: Any, x: Any) -> Any:
        return target.log_density(x) + 1e-4 * x[0]


class WrongFarOut(Ratio):
    def score(self, target: Any, x: Any) -> Any:
        far = jnp.any(jnp.abs(x) > 60.0)
        return jnp.where(far, 0.0, target.log_density(x))


@dataclass(frozen=True)
class OneCoordinate(RandomWalk):
    """Only ever moves the first coordinate, and claims to reach everything."""

    contract: Contract = REVERSIBLE

    def propose(self, key: Any, x: Any, params: Any) -> Any:
        return x.at[0].set(super().propose(key, x, params)[0])


RATIOS = ("invariance",)
MUTANTS = (
    Animal(
        running("missing_jacobian", MissingJacobian()),
        "the log density forgets the Jacobian of the unconstraining map",
        killers=RATIOS,
    ),
    Animal(
        running("missing_prior", MissingPrior()),
        "the ratio holds the likelihood only",
        killers=RATIOS,
    ),
    Animal(
        running("dropped_datum", DroppedDatum()), "one of nine data is left out", killers=RATIOS
    ),
    Animal(
        running("tempered_likelihood", TemperedLikelihood()),
        "samples the likelihood to the power 0.8",
        killers=RATIOS,
    ),
    Animal(
        running("rounded_density", RoundedDensity()),
        "the log density is rounded to multiples of three",
        killers=RATIOS,
    ),
    Animal(
        running("key_reused", KeyReused()),
        "proposal and acceptance draw from one key",
        killers=("key_reuse",),
    ),
    Animal(
        running("drifting_proposal", DriftingProposal()),
        "an asymmetric proposal without its ratio",
        killers=RATIOS,
    ),
    Animal(
        running("shrinking_proposal", ShrinkingProposal()),
        "an autoregressive proposal without its ratio",
        killers=RATIOS,
    ),
    Animal(
        running("state_scaled_proposal", StateScaledProposal()),
        "a proposal scale that depends on the state, without its ratio",
        killers=RATIOS,
    ),
    Animal(
        running("clipped_proposal", ClippedProposal()),
        "proposals are clipped to a box",
        killers=RATIOS,
    ),
    Animal(running("always_accept", AlwaysAccept()), "every proposal is accepted", killers=RATIOS),
    Animal(
        running("strictly_uphill", StrictlyUphill()),
        "only uphill moves are accepted",
        killers=RATIOS,
    ),
    Animal(running("inverted_ratio", InvertedRatio()), "the ratio is upside down", killers=RATIOS),
    Animal(
        running("resample_until_accept", ResampleUntilAccept()),
        "proposes again until something is accepted",
        killers=RATIOS,
    ),
    Animal(
        running("stops_when_uphill", StopsWhenUphill()),
        "the number of steps is a stopping time of the path",
        killers=RATIOS,
    ),
    Animal(
        running("proposal_density_missing", ProposalDensityMissing()),
        "independence Metropolis without the proposal's density",
        killers=RATIOS,
    ),
    Animal(
        listed("finite_proposal_density_missing", ProposalDensityMissing()),
        "the same on finite models",
        killers=("finite",),
    ),
    Animal(
        listed("half_acceptance", HalfAcceptance()),
        "an acceptance rule that is not symmetric",
        killers=("finite",),
    ),
    Animal(
        running("mala_no_ratio", NoProposalRatio(), 0.1),
        "MALA without the ratio of its proposals",
        killers=RATIOS,
    ),
    Animal(
        running("stale_gradient", StaleGradient(), 0.1),
        "after a rejection the gradient is the proposal's",
        killers=("frozen", "invariance"),
    ),
    Animal(
        running("ula_claims_invariance", UnadjustedLangevin(), 0.1),
        "unadjusted Langevin claims to be exact",
        killers=RATIOS,
    ),
    Animal(
        running("one_coordinate", OneCoordinate()),
        "claims irreducibility and moves one coordinate",
        killers=("movement",),
    ),
    Animal(
        running("tiny_tilt", TinyTilt()),
        "the log density is tilted by 1e-4",
        detectable=False,
        why_not="its bias, 1e-4 posterior standard deviations, needs about 1e9 joint draws",
    ),
    Animal(
        running("wrong_far_out", WrongFarOut()),
        "the density is flat beyond |x| = 60",
        detectable=False,
        why_not="no chain that starts at a joint draw gets there",
    ),
)
