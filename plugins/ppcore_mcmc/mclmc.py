"""Unadjusted microcanonical Langevin: cheap, many chains in lockstep, and biased."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Biased
from ppcore.engine import Report, Warm
from ppcore.settings import check_between, check_count, check_metric
from ppcore.target import value_and_gradient
from ppcore.tuning.adapt import Schedule
from ppcore.tuning.metric import RANK
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.lockstep import (
    APART,
    CHUNK,
    DIVERGENCE,
    MOST_THIN,
    Chains,
    Lockstep,
    Randomness,
    stride,
    tune,
    warm,
)
from ppcore_mcmc.microcanonical import Flight, direction, energy_gain, isokinetic, lift

_NORMAL = NormalDist()
AIM = 0.9


class Gliding(NamedTuple):
    """Positions with caches and unit directions, one row a chain."""

    x: Any
    log_density: Any
    gradient: Any
    u: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MCLMCTuning:
    """What the warm-up of :class:`MCLMC` freezes.

    Attributes
    ----------
    preconditioner : Preconditioner
        F, shared by all chains.
    step_size : float[]
        ε in whitened time, at the speed √d; the bias is O(ε²).
    length : float[]
        Whitened time after which a direction is forgotten.
    thin : int[]
        Transitions, each one gradient, that make one draw.
    """

    preconditioner: Any
    step_size: Any
    length: Any
    thin: Any


def glide(target: Any, tuned: Any, carry: Gliding, z: Any) -> tuple[Gliding, Any, Any]:
    """One isokinetic step, then u ← (u + ν z)/‖·‖ with ν² = (e^(2ε/L) − 1)/d.

    A chain whose step ends where log γ is not finite stays and takes a new direction.
    Returns ``(carry, energy gained, ended well)``.
    """
    precondition = tuned.preconditioner
    step = jnp.broadcast_to(tuned.step_size, carry.x.shape[:1])[:, None]
    force = precondition.pull(carry.gradient)
    still = jnp.zeros_like(carry.log_density)
    start = Flight(carry.x, carry.u, carry.log_density, carry.gradient, force, still)
    end = isokinetic(target, precondition, start, step)
    gain = energy_gain(start, end)
    good = (gain > -DIVERGENCE) | (step[:, 0] == 0)
    row = good[:, None]
    nu = jnp.sqrt(jnp.expm1(2 * step / jnp.maximum(tuned.length, 1e-30)) / z.shape[-1])
    u = jnp.where(row, direction(end.u + nu * z), direction(z))
    moved = Gliding(
        jnp.where(row, end.x, carry.x),
        jnp.where(good, end.log_density, carry.log_density),
        jnp.where(row, end.gradient, carry.gradient),
        u,
    )
    return moved, gain, good


@dataclass(frozen=True)
class Glide:
    """A transition: :func:`glide` for every chain."""

    own: ClassVar[int] = 0
    shared: ClassVar[int] = 1
    vectors: ClassVar[tuple[str, ...]] = ("x", "gradient")
    single: ClassVar[bool] = True

    def lift(self, target: Any) -> Any:
        return lift(target)

    def carry(self, x: Any, log_density: Any, gradient: Any, z: Any, u: Any) -> Gliding:
        return Gliding(x, log_density, gradient, direction(z))

    def tuning(self, precondition: Preconditioner, step: Any, length: Any, thin: Any) -> Any:
        return MCLMCTuning(precondition, step, length, thin)

    def move(self, target: Any, tuned: Any, carry: Gliding, by: Randomness) -> tuple[Gliding, Any]:
        """``energy`` is the energy error of the step, whose variance measures the bias."""
        moved, gain, good = glide(target, tuned, carry, by.z)
        return moved, {
            "x": moved.x,
            "gradient": moved.gradient,
            "log_density": moved.log_density,
            "acceptance_rate": jnp.exp(jnp.minimum(gain, 0.0)),
            "energy": jnp.where(good, -gain, 0.0),
            "step_size": jnp.broadcast_to(tuned.step_size, gain.shape),
            "diverging": ~good,
            "n_gradients": jnp.ones(gain.shape, jnp.int32),
        }


@dataclass(frozen=True)
class MicrocanonicalLangevin:
    """The transition of :class:`MCLMC` as a kernel of one chain.

    The law of x is off by O(``step_size``²): steps are second order and the noise leaves the
    uniform law of u alone. ``params``: ``step_size``, ``length`` and ``preconditioner``, as in
    :class:`MCLMCTuning`.

    >>> MicrocanonicalLangevin().contract
    Biased(order=2, in_='step_size')
    """

    contract: Biased = Biased(order=2)
    auxiliary: ClassVar[tuple[str, ...]] = ("u",)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Any:
        """``params`` for a warm-up that knows these three."""
        return {"preconditioner": preconditioner, "step_size": step, "length": length}

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Gliding:
        u = direction(random.normal(key, x.shape, x.dtype))
        log_density, gradient = value_and_gradient(target, x[None])
        return Gliding(x, log_density[0], gradient[0], u)

    def step(self, key: Any, target: Any, state: Gliding, params: Any) -> tuple[Gliding, Any]:
        z = random.normal(key, state.x.shape, state.x.dtype)
        tuned = MCLMCTuning(params["preconditioner"], params["step_size"], params["length"], 1)
        rows = jax.tree.map(lambda leaf: leaf[None], state)
        moved, gain, good = glide(target, tuned, rows, z[None])
        state = jax.tree.map(lambda leaf: leaf[0], moved)
        info = {"diverging": ~good[0], "n_gradients": 1, "log_density": state.log_density}
        return state, info | {"acceptance_rate": jnp.exp(jnp.minimum(gain[0], 0.0))}

    def refresh(self, target: Any, state: Gliding) -> Gliding:
        log_density, gradient = value_and_gradient(target, state.x[None])
        return state._replace(log_density=log_density[0], gradient=gradient[0])


class Energies(Chains):
    """The chains of an MCLMC warm-up: the step size follows the energy error's variance.

    With v its variance a step and coordinate, ε ← ε (aim/v)^(1/6), as v ∝ ε⁶. The rule of the
    shared warm-up, ε² ← ε² Φ⁻¹(a/2)/Φ⁻¹(r/2), does that for the rates r reported here.
    """

    def __init__(self, aim: float, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.aim = aim

    def advance(
        self, precondition: Preconditioner, step: float, length: float, n: int
    ) -> dict[str, np.ndarray]:
        rows = super().advance(precondition, step, length, n)
        error = rows["energy"] - np.median(rows["energy"])
        variance = np.mean(np.minimum(error**2, DIVERGENCE)) / self.target.dim
        lost = rows["diverging"].mean()
        ratio = max(variance / self.aim, 1e-12) ** (1 / 3)
        rate = 2 * _NORMAL.cdf(_NORMAL.inv_cdf(AIM / 2) * ratio) * (1 - lost)
        return rows | {"acceptance_rate": np.full_like(rows["energy"], rate)}


@dataclass(frozen=True)
class MCLMC(Lockstep):
    """Microcanonical Langevin dynamics without a test: every step moves, and none is corrected.

    Each transition is one isokinetic step of size ε and a partial refreshment of the direction
    over the time L. The stationary law of x differs from γ by O(ε²); ε is chosen so that the
    energy error varies by ``energy_variance`` a step and coordinate. R-hat does not see the bias:
    compare with ``mams``, or halve the step by a 64th of the variance.

    Parameters
    ----------
    warmup_draws : int
        Draws per chain to adapt with, from scattered starts; half as many from a Laplace start.
    max_warmup_draws : int
        Adaptation goes on until the chains have settled, up to here.
    energy_variance : float
        Aimed at for ε, per step and coordinate, in (0, 1).
    length : float
        The first L, and the whitened time between two draws.
    learn_length : bool
        Whether warm-up may lengthen it.
    metric, rank
        As for ``ensemble``.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Robnik, De Luca, Silverstein & Seljak 2023, arXiv:2212.08549; Robnik & Seljak 2023,
    arXiv:2303.18221 (the Langevin form).

    >>> MCLMC(energy_variance=5e-4).contract
    Biased(order=2, in_='step_size')
    """

    warmup_draws: int = 192
    max_warmup_draws: int = 1280
    energy_variance: float = 1e-4
    length: float = 1.5707963
    learn_length: bool = True
    metric: str = "auto"
    rank: int = RANK
    contract: Biased = field(default=Biased(order=2), init=False)
    method: ClassVar[Glide] = Glide()
    kernel: ClassVar[MicrocanonicalLangevin] = MicrocanonicalLangevin()
    auxiliary: ClassVar[tuple[str, ...]] = ("u",)
    default_chains: int = field(default=64, init=False)
    default_draws: int = field(default=400, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 16)
        check_count("max_warmup_draws", self.max_warmup_draws, self.warmup_draws)
        check_between("energy_variance", self.energy_variance, 0, 1)
        check_between("length", self.length, 0, 1000)
        check_metric(self.metric, self.rank)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts, step size, length and preconditioner for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        schedule = Schedule(
            self.warmup_draws,
            self.max_warmup_draws,
            CHUNK,
            AIM,
            self.length,
            self.learn_length,
            APART,
            MOST_THIN if self.learn_length else 1,
        )
        dtype = jnp.result_type(float)
        machine, end = tune(
            lambda k, t: Energies(self.energy_variance, self.method, k, t, chains, dtype),
            key,
            self.method.lift(target),
            (self.metric, self.rank),
            schedule,
            report,
        )
        real, step, length = machine.dtype.type, end.step.final, end.length.best
        thin = np.int32(stride(self.method, step, length) * end.thin)
        tuned = MCLMCTuning(end.precondition, real(step), real(length), thin)
        return warm(machine, end, tuned, target.dim)
