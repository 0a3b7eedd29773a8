"""Mutants of Hamiltonian kernels: integrators, momenta, trajectories, adaptation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Biased
from ppcore.testing.reference.hamiltonian import HMC, GeneralisedHMC
from ppcore.testing.reference.metropolis import Langevin, Position
from ppcore.testing.reference.nuts import SmallNUTS
from ppcore.testing.subject import Subject
from ppcore.testing.zoo.entry import Animal, running


class LastHalfKickMissing(HMC):
    def last_kick(self, p: Any, g: Any, h: Any) -> Any:
        return p


class FirstKickDoubled(HMC):
    def first_kick(self, p: Any, g: Any, h: Any) -> Any:
        return p + h * g


class HotMomentum(HMC):
    def momentum(self, key: Any, x: Any) -> Any:
        return jnp.sqrt(1.3) * super().momentum(key, x)


class KineticMissing(HMC):
    def kinetic(self, p: Any) -> Any:
        return 0.0


_MASS = jnp.array([0.5, 1.0, 2.0])


class WrongMassMatrix(HMC):
    """Kinetic energy and velocity use M⁻¹, the momentum is drawn with M⁻¹ in place of M."""

    def momentum(self, key: Any, x: Any) -> Any:
        mass = _MASS[: x.shape[0]].astype(x.dtype)
        return super().momentum(key, x) / jnp.sqrt(mass)

    def velocity(self, p: Any) -> Any:
        return p / _MASS[: p.shape[0]].astype(p.dtype)

    def kinetic(self, p: Any) -> Any:
        return 0.5 * jnp.sum(p**2 / _MASS[: p.shape[0]].astype(p.dtype))


class StepDependsOnState(HMC):
    def step_size(self, key: Any, x: Any, params: Any) -> Any:
        return params["step_size"] * (0.4 + jnp.minimum(jnp.abs(x[0]), 2.0))


class NoTurnOnRejection(GeneralisedHMC):
    def rejected(self, p: Any) -> Any:
        return p


class SubtreeOffByOne(SmallNUTS):
    """A draw from a window loses its first state, as a subtree that counts from one does."""

    def window(self, a: Any, size: Any) -> Any:
        return super().window(jnp.where(size > 1, a + 1, a), jnp.where(size > 1, size - 1, size))


class SubtreesUnchecked(SmallNUTS):
    """Only the window as a whole is checked for a turn, not the subtrees of its new half."""

    def subtrees(self, start: Any, doubling: int) -> Iterator[tuple[Any, Any]]:
        return iter(())


class LastOfTrajectory(SmallNUTS):
    """Takes the rightmost state of the window, without weighing."""

    def window(self, a: Any, size: Any) -> Any:
        index = jnp.arange(15)
        return index == a + size - 1


class Adapting(NamedTuple):
    x: Any
    log_h: Any


@dataclass(frozen=True)
class AdaptsWhileSampling(HMC):
    """The step size follows the last acceptance, for ever."""

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Adapting(x, jnp.log(params["step_size"]).astype(x.dtype))

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        h = {"step_size": jnp.exp(state.log_h)}
        moved, _ = super().step(key, target, Position(state.x), h)
        accepted = jnp.any(moved.x != state.x)
        log_h = state.log_h + jnp.where(accepted, 0.1, -0.4)
        return Adapting(moved.x, log_h), {}


class TrajectoryUntilTurn(HMC):
    """Leapfrogs until the distance to the start shrinks, and accepts there."""

    def flow(self, target: Any, x: Any, p: Any, h: Any) -> tuple[Any, Any]:
        gradient, here, q, r = jax.grad(target.log_density), x, x, p
        done = jnp.asarray(False)
        for _ in range(8):
            r1 = r + 0.5 * h * gradient(q)
            q1 = q + h * r1
            r1 = r1 + 0.5 * h * gradient(q1)
            q, r = jnp.where(done, q, q1), jnp.where(done, r, r1)
            done = done | ((q - here) @ r < 0)
        return q, r


class JitterFromMomentum(HMC):
    """The step's jitter reuses the momentum's randomness."""

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_momentum, k_accept = random.split(key)
        p = self.momentum(k_momentum, state.x)
        h = params["step_size"] * jnp.minimum(2.0, 0.5 + jnp.abs(p[0]))
        y, r = self.flow(target, state.x, p, h)
        log_ratio = self.log_ratio(target, state.x, p, y, r)
        accept = random.bernoulli(k_accept, jnp.exp(jnp.minimum(0.0, log_ratio)))
        return Position(jnp.where(accept, y, state.x)), {}


PAIRED = ("invariance",)
MUTANTS = (
    Animal(
        running("last_half_kick_missing", LastHalfKickMissing(), 0.25),
        "the last half kick is left out",
        killers=PAIRED,
    ),
    Animal(
        running("first_kick_doubled", FirstKickDoubled(), 0.25),
        "the first kick is a whole one",
        killers=PAIRED,
    ),
    Animal(
        running("hot_momentum", HotMomentum(), 0.25), "momenta have variance 1.3", killers=PAIRED
    ),
    Animal(
        running("kinetic_missing", KineticMissing(), 0.25),
        "the kinetic energy is missing from the ratio",
        killers=PAIRED,
    ),
    Animal(
        running("wrong_mass_matrix", WrongMassMatrix(), 0.25),
        "momenta are drawn with the inverse of the mass matrix",
        killers=PAIRED,
    ),
    Animal(
        running("step_depends_on_state", StepDependsOnState(), 0.3),
        "the step size depends on the position",
        killers=PAIRED,
    ),
    Animal(
        running("jitter_from_momentum", JitterFromMomentum(), 0.4),
        "the jitter of the step depends on the momentum",
        killers=PAIRED,
    ),
    Animal(
        running("trajectory_until_turn", TrajectoryUntilTurn(), 0.4),
        "stops at the first turn and takes that state",
        killers=PAIRED,
    ),
    Animal(
        running("ghmc_no_turn", NoTurnOnRejection(), 0.6, auxiliary=("p",)),
        "a persistent momentum that does not turn round on rejection",
        killers=PAIRED,
    ),
    Animal(
        running("nuts_subtree_off_by_one", SubtreeOffByOne(), 0.45),
        "a draw from a window loses its first state",
        killers=PAIRED,
    ),
    Animal(
        running("nuts_subtrees_unchecked", SubtreesUnchecked(), 0.3),
        "inner subtrees are not checked for a turn",
        killers=PAIRED,
    ),
    Animal(
        running("nuts_last_state", LastOfTrajectory(), 0.2),
        "takes an end of the trajectory instead of a weighted draw",
        killers=PAIRED,
    ),
    Animal(
        running("adapts_while_sampling", AdaptsWhileSampling(), 0.3),
        "the step size adapts to acceptance for ever",
        killers=("frozen",),
    ),
    Animal(
        Subject(
            "ula_claims_order_two",
            Biased(order=2),
            kernel=Langevin(),
            params={"step_size": 0.1},
            step=0.05,
        ),
        "unadjusted Langevin claims a bias of second order",
        killers=("bias_order",),
    ),
)
