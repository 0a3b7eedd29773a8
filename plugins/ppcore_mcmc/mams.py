"""The Metropolis-adjusted microcanonical sampler, many chains in lockstep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Invariant
from ppcore.engine import Report, Warm
from ppcore.settings import check_between, check_count, check_metric
from ppcore.tuning.adapt import Schedule
from ppcore.tuning.metric import RANK
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.leapfrog import Carry
from ppcore_mcmc.lockstep import (
    APART,
    CHUNK,
    DIVERGENCE,
    MOST_THIN,
    Chains,
    Lockstep,
    Randomness,
    steps_for,
    tune,
    warm,
)
from ppcore_mcmc.microcanonical import Flight, direction, energy_gain, isokinetic, lift


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MAMSTuning:
    """What the warm-up of :class:`MAMS` freezes.

    Attributes
    ----------
    preconditioner : Preconditioner
        F, shared by all chains.
    step_size, length : float[]
        ε and the mean trajectory length εL in whitened time, at the speed √d.
    thin : int[]
        Transitions that make one draw.
    adjusted : bool[]
        True; a warm-up may hold the Metropolis test back.
    """

    preconditioner: Any
    step_size: Any
    length: Any
    thin: Any
    adjusted: Any


@dataclass(frozen=True)
class Bounce:
    """A transition: a fresh direction, isokinetic steps, a Metropolis test.

    ε is multiplied by U(0.9, 1.1) for each chain, the length by one U(0.6, 1.4) for all of them.
    """

    own: ClassVar[int] = 2
    shared: ClassVar[int] = 1
    vectors: ClassVar[tuple[str, ...]] = ("x", "gradient")
    single: ClassVar[bool] = False

    def lift(self, target: Any) -> Any:
        return lift(target)

    def carry(self, x: Any, log_density: Any, gradient: Any, z: Any, u: Any) -> Carry:
        return Carry(x, log_density, gradient)

    def tuning(self, precondition: Preconditioner, step: Any, length: Any, thin: Any) -> Any:
        return MAMSTuning(precondition, step, length, thin, np.bool_(True))

    def move(self, target: Any, tuned: Any, carry: Carry, by: Randomness) -> tuple[Carry, Any]:
        """u uniform on the sphere; accept with probability min(1, exp(Δ log γ − ΔK))."""
        precondition, zero = tuned.preconditioner, jnp.zeros_like(carry.log_density)
        step = tuned.step_size * (0.9 + 0.2 * by.own[0])
        steps = steps_for(tuned.length * (0.6 + 0.8 * by.shared[0]), tuned.step_size)
        force = precondition.pull(carry.gradient)
        start = Flight(carry.x, direction(by.z), *carry[1:], force, zero)
        end = jax.lax.fori_loop(
            0, steps, lambda _, at: isokinetic(target, precondition, at, step[:, None]), start
        )
        gain = energy_gain(start, end)
        passed = (jnp.log1p(-by.own[1]) <= gain) | ~tuned.adjusted
        accept = passed & (gain > -jnp.inf) | (tuned.step_size == 0)
        new = Carry(
            jnp.where(accept[:, None], end.x, carry.x),
            jnp.where(accept, end.log_density, carry.log_density),
            jnp.where(accept[:, None], end.gradient, carry.gradient),
        )
        return new, {
            "x": new.x,
            "gradient": new.gradient,
            "log_density": new.log_density,
            "acceptance_rate": jnp.exp(jnp.minimum(gain, 0.0)),
            "energy": jnp.where(accept, end.kinetic, 0.0) - new.log_density,
            "step_size": step,
            "diverging": ~(gain > -DIVERGENCE),
            "n_gradients": jnp.broadcast_to(steps, gain.shape),
        }


@dataclass(frozen=True)
class MAMS(Lockstep):
    """Microcanonical dynamics with a Metropolis test: adjusted, and cheaper than Hamiltonian ones.

    Each transition draws a direction u uniformly on the sphere, follows
    ẋ = √d F u, u̇ = √d/(d − 1) (I − u uᵀ) Fᵀ∇log γ(x) by L isokinetic steps of size ε, and accepts
    with min(1, γ(x')/γ(x) e^−ΔK), ΔK being minus the log Jacobian of the map. ε and L are drawn
    anew for every transition, independently of the state, so that each chain is reversible with
    respect to γ for fixed ``tuned``. A target of one coordinate gets an independent N(0, 1) beside.

    Parameters
    ----------
    warmup_draws : int
        Draws per chain to adapt with, from scattered starts; half as many from a Laplace start.
    max_warmup_draws : int
        Adaptation goes on until the chains have settled, up to here.
    target_accept : float
        Mean acceptance probability to tune ε for, in (0, 1).
    length : float
        Mean trajectory length in whitened time.
    learn_length : bool
        Whether warm-up may lengthen it, and make each draw several transitions where chains move
        slowly all the same.
    metric, rank
        As for ``ensemble``.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Robnik, Cohn-Gordon & Seljak 2025, arXiv:2503.01707.

    >>> MAMS(target_accept=0.85).default_chains
    64
    """

    warmup_draws: int = 192
    max_warmup_draws: int = 1280
    target_accept: float = 0.9
    length: float = 1.5707963
    learn_length: bool = True
    metric: str = "auto"
    rank: int = RANK
    contract: Invariant = field(default=Invariant(reversible=True), init=False)
    method: ClassVar[Bounce] = Bounce()
    default_chains: int = field(default=64, init=False)
    default_draws: int = field(default=400, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 16)
        check_count("max_warmup_draws", self.max_warmup_draws, self.warmup_draws)
        check_between("target_accept", self.target_accept, 0, 1)
        check_between("length", self.length, 0, 1000)
        check_metric(self.metric, self.rank)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts, step size, length and preconditioner for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        return warmed(self, Chains, key, target, chains, report)


def warmed(
    engine: Any, machine_class: type[Chains], key: Any, target: Any, chains: int, report: Report
) -> Warm:
    """The warm-up of an engine whose transitions are trajectories, with its settings."""
    schedule = Schedule(
        engine.warmup_draws,
        engine.max_warmup_draws,
        CHUNK,
        engine.target_accept,
        engine.length,
        engine.learn_length,
        APART,
        MOST_THIN if engine.learn_length else 1,
    )
    dtype = jnp.result_type(float)
    machine, end = tune(
        lambda k, t: machine_class(engine.method, k, t, chains, dtype),
        key,
        engine.method.lift(target),
        (engine.metric, engine.rank),
        schedule,
        report,
    )
    real = machine.dtype.type
    tuned = engine.method.tuning(
        end.precondition, real(end.step.final), real(end.length.best), np.int32(end.thin)
    )
    return warm(machine, end, tuned, target.dim)
