"""ChEES-HMC: many chains of Hamiltonian Monte Carlo with a length that gradient ascent finds."""

from __future__ import annotations

import math
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
from ppcore_mcmc.leapfrog import Carry, Phase, leapfrog, log_joint
from ppcore_mcmc.lockstep import (
    APART,
    CHUNK,
    DIVERGENCE,
    WATCHED,
    Chains,
    Lockstep,
    Randomness,
    steps_for,
    tune,
    warm,
    whiten,
)

SHORTEST, LONGEST = 0.1, 60.0
PRICE = 0.5
"""T climbs ChEES/T^PRICE: where trajectories ten times as long are hardly better, as in a funnel,
the criterion alone would take them."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ChEESTuning:
    """What the warm-up of :class:`ChEES` freezes.

    Attributes
    ----------
    preconditioner : Preconditioner
        F, shared by all chains.
    step_size : float[]
        ε, in units of the whitened target.
    length : float[]
        T: trajectories last U(0, 2T) of whitened time.
    thin : int[]
        Transitions that make one draw.
    """

    preconditioner: Any
    step_size: Any
    length: Any
    thin: Any


@dataclass(frozen=True)
class Trajectory:
    """A transition: a fresh momentum, leapfrog steps for one time in (0, 2T), a Metropolis test."""

    own: ClassVar[int] = 2
    shared: ClassVar[int] = 1
    vectors: ClassVar[tuple[str, ...]] = ("x", "gradient", "proposal", "momentum")
    single: ClassVar[bool] = False

    def lift(self, target: Any) -> Any:
        return target

    def carry(self, x: Any, log_density: Any, gradient: Any, z: Any, u: Any) -> Carry:
        return Carry(x, log_density, gradient)

    def tuning(self, precondition: Preconditioner, step: Any, length: Any, thin: Any) -> Any:
        return ChEESTuning(precondition, step, length, thin)

    def move(self, target: Any, tuned: Any, carry: Carry, by: Randomness) -> tuple[Carry, Any]:
        """z ~ N(0, I); accept with probability min(1, exp(−ΔH)).

        One time for all chains, as they are in lockstep; ε times U(0.9, 1.1) for each.
        """
        precondition = tuned.preconditioner
        step = tuned.step_size * (0.9 + 0.2 * by.own[0])
        # Rounded up, so that half a step is not lost on average.
        time = 2 * tuned.length * by.shared[0] + 0.5 * tuned.step_size
        steps = steps_for(time, tuned.step_size)
        start = Phase(carry.x, by.z, *carry[1:], precondition.pull(carry.gradient))
        end = jax.lax.fori_loop(
            0, steps, lambda _, at: leapfrog(target, precondition, at, step[:, None]), start
        )
        before, after = log_joint(start), log_joint(end)
        gain = jnp.where(after == -jnp.inf, -jnp.inf, after - before)
        accept = (jnp.log1p(-by.own[1]) <= gain) & (gain > -jnp.inf) | (tuned.step_size == 0)
        new = Carry(
            jnp.where(accept[:, None], end.x, carry.x),
            jnp.where(accept, end.log_density, carry.log_density),
            jnp.where(accept[:, None], end.gradient, carry.gradient),
        )
        kinetic = 0.5 * jnp.sum(jnp.where(accept[:, None], end.z, by.z) ** 2, axis=-1)
        return new, {
            "x": new.x,
            "gradient": new.gradient,
            "proposal": end.x,
            "momentum": end.z,
            "log_density": new.log_density,
            "acceptance_rate": jnp.exp(jnp.minimum(gain, 0.0)),
            "energy": kinetic - new.log_density,
            "step_size": step,
            "diverging": ~(gain > -DIVERGENCE),
            "n_gradients": jnp.broadcast_to(steps, gain.shape),
        }


@dataclass(frozen=True)
class Ascent:
    """Adam on log T, up the criterion.

    Attributes
    ----------
    log_length, log_mean : float
        log T, and the average that is kept in the end.
    slope, square : float
        Decayed means of the gradient and of its square.
    count : int
    """

    log_length: float
    log_mean: float
    slope: float = 0.0
    square: float = 0.0
    count: int = 0

    def update(self, gradient: float, rate: float = 0.1) -> Ascent:
        """One step of size ``rate`` at most, with a mean over late steps."""
        count = self.count + 1
        slope = 0.8 * self.slope + 0.2 * gradient
        square = 0.95 * self.square + 0.05 * gradient**2
        unbiased = slope / (1 - 0.8**count), square / (1 - 0.95**count)
        move = rate * unbiased[0] / (math.sqrt(unbiased[1]) + 1e-12)
        log_length = float(np.clip(self.log_length + move, math.log(SHORTEST), math.log(LONGEST)))
        weight = count**-0.6
        log_mean = (1 - weight) * self.log_mean + weight * log_length
        return Ascent(log_length, log_mean, slope, square, count)


def criterion_slope(
    before: np.ndarray,
    proposal: np.ndarray,
    momentum: np.ndarray,
    acceptance: np.ndarray,
    time: float,
) -> float:
    """T dChEES/dT − ``PRICE`` ChEES, estimated from one draw of all chains in whitened coordinates.

    T dChEES/dT = t E[(‖x' − m'‖² − ‖x − m‖²)(x' − m')·z'] for a trajectory of time t = T·h. Chains
    are weighted by their acceptance, so that trajectories that diverge are left out.

    Parameters: ``before``, ``proposal``, ``momentum``: float[chains, d]; ``acceptance``:
    float[chains]; ``time``: t.
    """
    usable = np.isfinite(proposal).all(1) & np.isfinite(momentum).all(1)
    weight = np.where(usable, np.nan_to_num(acceptance), 0.0)
    if weight.sum() < 1e-3 * len(weight) or usable.sum() < 2:
        return 0.0
    end, velocity = (np.where(usable[:, None], v, 0.0) for v in (proposal, momentum))
    start = before - before.mean(0)
    end = end - weight @ end / weight.sum()
    gained = np.sum(end**2, 1) - np.sum(start**2, 1)
    with np.errstate(over="ignore", invalid="ignore"):
        slope = time * gained * np.sum(end * velocity, 1) - PRICE * 0.25 * gained**2
    # A trajectory that went far off without a rejection says nothing of the length.
    kept = np.where(np.isfinite(slope) & (weight > 0), slope, 0.0)
    return float(weight @ kept / weight.sum())


class Criterion(Chains):
    """The chains of a ChEES warm-up: T climbs after every round."""

    names = ("gradient", "proposal", "momentum")
    ascent = Ascent(math.log(math.pi / 4), math.log(math.pi / 4))

    def advance(
        self, precondition: Preconditioner, step: float, length: float, n: int
    ) -> dict[str, np.ndarray]:
        """``length`` is only an upper bound, small while the step size is not known."""
        start = np.asarray(self.carry.x)[:WATCHED]
        reach = min(math.exp(self.ascent.log_length), length)
        rows = super().advance(precondition, step, reach, n)
        if reach < length:
            self._climb(precondition, np.concatenate([start[None], rows["x"]]), rows)
        return rows

    def _climb(self, precondition: Preconditioner, x: np.ndarray, rows: dict[str, Any]) -> None:
        time = np.mean(rows["step_size"] * rows["n_gradients"], axis=1)
        shape = x[0].shape
        for t, row in enumerate(rows["proposal"]):
            both = np.nan_to_num(np.concatenate([x[t], row]), posinf=np.nan, neginf=np.nan)
            whole = whiten(precondition, both)
            parts = whole[: shape[0]], whole[shape[0] :], rows["momentum"][t]
            rate = rows["acceptance_rate"][t, :WATCHED]
            self.ascent = self.ascent.update(criterion_slope(*parts, rate, float(time[t])))


@dataclass(frozen=True)
class ChEES(Lockstep):
    """Hamiltonian Monte Carlo in lockstep, with the trajectory length that ChEES finds.

    Each transition draws z ~ N(0, I), follows −log γ(x) + ½ zᵀz for a time U(0, 2T) by leapfrog
    steps of size ε, and accepts with min(1, exp(−ΔH)). Warm-up climbs the change in the estimator
    of the expected square, ChEES = ¼ E[(‖x' − m'‖² − ‖x − m‖²)²], estimated across chains in the
    coordinates that F whitens, divided by T^``PRICE``. For fixed ``tuned`` each chain is
    reversible with respect to γ.

    Parameters
    ----------
    warmup_draws : int
        Draws per chain to adapt with, from scattered starts; half as many from a Laplace start.
    max_warmup_draws : int
        Adaptation goes on until the chains have settled, up to here.
    target_accept : float
        Mean acceptance probability to tune ε for, in (0, 1).
    metric, rank
        As for ``ensemble``.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Hoffman, Radul & Sountsov 2021, proceedings.mlr.press/v130/hoffman21a.html.

    >>> ChEES(target_accept=0.7).default_chains
    64
    """

    warmup_draws: int = 256
    max_warmup_draws: int = 1280
    target_accept: float = 0.75
    metric: str = "auto"
    rank: int = RANK
    contract: Invariant = field(default=Invariant(reversible=True), init=False)
    method: ClassVar[Trajectory] = Trajectory()
    default_chains: int = field(default=64, init=False)
    default_draws: int = field(default=400, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 16)
        check_count("max_warmup_draws", self.max_warmup_draws, self.warmup_draws)
        check_between("target_accept", self.target_accept, 0, 1)
        check_metric(self.metric, self.rank)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts, step size, length and preconditioner for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        schedule = Schedule(
            self.warmup_draws,
            self.max_warmup_draws,
            CHUNK,
            self.target_accept,
            LONGEST,
            False,
            APART,
        )
        dtype = jnp.result_type(float)
        machine, end = tune(
            lambda k, t: Criterion(self.method, k, t, chains, dtype),
            key,
            target,
            (self.metric, self.rank),
            schedule,
            report,
        )
        real = machine.dtype.type
        found = math.exp(machine.ascent.log_mean)
        tuned = ChEESTuning(end.precondition, real(end.step.final), real(found), np.int32(1))
        return warm(machine, end, tuned, target.dim)
