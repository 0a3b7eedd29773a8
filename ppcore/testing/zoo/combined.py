"""Mutants of Gibbs kernels and of kernels made of kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore.contract import Contract, Invariant
from ppcore.testing.reference.combine import Identity, Mixture, TwoReplicas
from ppcore.testing.reference.gibbs import (
    FiniteGibbs,
    FiniteMetropolis,
    GaussianGibbs,
)
from ppcore.testing.reference.hamiltonian import HMC
from ppcore.testing.reference.metropolis import REVERSIBLE, RandomWalk
from ppcore.testing.zoo.entry import GAUSSIAN, Animal, listed, running


class WrongConditional(GaussianGibbs):
    """Uses the marginal variance in place of the conditional one."""

    def conditional(self, key: Any, target: Any, x: Any, i: Any) -> Any:
        good = super().conditional(key, target, x, i)
        return x[i] + 0.9 * (good - x[i])


class StaleSweep(GaussianGibbs):
    """Every coordinate is drawn given the old values of all others, at once."""

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        keys = jax.random.split(key, state.x.shape[0])
        index = jnp.arange(state.x.shape[0])
        draw = jax.vmap(lambda k, i: self.conditional(k, target, state.x, i))
        return state._replace(x=draw(keys, index)), {}


class OrderFromState(GaussianGibbs):
    """Updates the coordinate that is farthest out."""

    def order(self, key: Any, x: Any) -> Any:
        return jnp.argmax(jnp.abs(x))[None]


@dataclass(frozen=True)
class ClaimsReversible(GaussianGibbs):
    contract: Contract = REVERSIBLE


class FiniteOrderFromState(FiniteGibbs):
    def order(self, key: Any, x: Any) -> Any:
        return jnp.argmax(x)[None]


class FiniteWrongConditional(FiniteGibbs):
    def conditional(self, key: Any, target: Any, x: Any, i: Any) -> Any:
        return super().conditional(key, target.tempered(0.5), x, i)


@dataclass(frozen=True)
class FiniteClaimsReversible(FiniteGibbs):
    contract: Contract = REVERSIBLE


class OneSided(FiniteMetropolis):
    """Goes up twice as often as down, without the ratio."""

    def move(self, key: Any, target: Any, x: Any) -> Any:
        y = super().move(key, target, x)
        return jnp.where(jnp.sum(y) < jnp.sum(x), x, y)


class WrongBarker(FiniteMetropolis):
    """r/(1 + r²) in place of r/(1 + r)."""

    def probability(self, log_ratio: Any) -> Any:
        r = jnp.exp(log_ratio)
        return r / (1.0 + r**2)


class FirstAxisOnly(FiniteMetropolis):
    """Never moves along the other axes, and claims irreducibility."""

    def move(self, key: Any, target: Any, x: Any) -> Any:
        y = super().move(key, target, x)
        return jnp.where(y[0] == x[0], x, y)


class StateWeights(Mixture):
    """The choice between two correct kernels depends on the state."""

    def odds(self, target: Any, x: Any) -> Any:
        return jax.nn.sigmoid(3.0 * x[0])


class SwapInverted(TwoReplicas):
    def log_swap(self, target: Any, state: Any) -> Any:
        return -super().log_swap(target, state)


class SwapAlways(TwoReplicas):
    def log_swap(self, target: Any, state: Any) -> Any:
        return jnp.zeros(())


@dataclass(frozen=True)
class IdentityClaimsMore(Identity):
    contract: Contract = Invariant(reversible=True, irreducible=True)


MUTANTS = (
    Animal(
        running("gibbs_wrong_conditional", WrongConditional(), models=GAUSSIAN),
        "draws from a conditional that is too narrow",
        killers=("invariance",),
    ),
    Animal(
        running("gibbs_stale_sweep", StaleSweep(), models=GAUSSIAN),
        "all coordinates are drawn given old values",
        killers=("invariance",),
    ),
    Animal(
        running("gibbs_order_from_state", OrderFromState(), models=GAUSSIAN),
        "the coordinate to update is chosen by looking at the state",
        killers=("invariance",),
    ),
    Animal(
        running("gibbs_claims_reversible", ClaimsReversible(), models=GAUSSIAN),
        "a systematic scan claims reversibility",
        killers=("reversibility",),
    ),
    Animal(
        listed("finite_order_from_state", FiniteOrderFromState()),
        "scan order depends on the state, finite",
        killers=("finite",),
    ),
    Animal(
        listed("finite_wrong_conditional", FiniteWrongConditional()),
        "conditionals of a tempered likelihood",
        killers=("finite",),
    ),
    Animal(
        listed("finite_claims_reversible", FiniteClaimsReversible()),
        "a systematic scan claims reversibility, finite",
        killers=("finite",),
    ),
    Animal(listed("one_sided", OneSided()), "moves up only", killers=("finite",)),
    Animal(
        listed("wrong_barker", WrongBarker()),
        "a Barker rule with its ratio squared below",
        killers=("finite",),
    ),
    Animal(
        listed("first_axis_only", FirstAxisOnly()),
        "claims irreducibility and keeps to one axis",
        killers=("finite",),
    ),
    Animal(
        running(
            "state_dependent_mixture",
            StateWeights(RandomWalk(), HMC()),
            0.3,
            contract=Invariant(False, True),
        ),
        "the choice between two correct kernels depends on the state",
        killers=("invariance",),
    ),
    Animal(
        running("swap_inverted", SwapInverted(), auxiliary=("hot",)),
        "the swap ratio of parallel tempering is upside down",
        killers=("invariance",),
    ),
    Animal(
        running("swap_always", SwapAlways(), auxiliary=("hot",)),
        "replicas always swap",
        killers=("invariance",),
    ),
    Animal(
        running("identity_claims_irreducible", IdentityClaimsMore()),
        "never moves and claims irreducibility",
        killers=("movement",),
    ),
)
