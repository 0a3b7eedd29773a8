"""MEADS: generalised HMC with many chains, step size and damping from other folds' eigenvalues."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Invariant
from ppcore.engine import Report, Warm
from ppcore.settings import check_between, check_count, check_metric
from ppcore.tuning.adapt import Schedule
from ppcore.tuning.metric import RANK
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.leapfrog import Phase, leapfrog, log_joint
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
    whiten,
)

FOLDS = 4
WIDEST = 4.0
"""How far the folds' step sizes may lie from the pooled one, as a factor."""


class Moving(NamedTuple):
    """Positions with caches, whitened momenta and slice variables in (−1, 1), one row a chain."""

    x: Any
    log_density: Any
    gradient: Any
    p: Any
    v: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class MEADSTuning:
    """What the warm-up of :class:`MEADS` freezes.

    Attributes
    ----------
    preconditioner : Preconditioner
        F, shared by all chains.
    step_size, damping : float[FOLDS]
        ε and γ; chain i uses entry i mod ``FOLDS``. Equal once frozen.
    thin : int[]
        Transitions, each one gradient, that make one draw.
    """

    preconditioner: Any
    step_size: Any
    damping: Any
    thin: Any


@dataclass(frozen=True)
class Persistent:
    """A transition of generalised HMC: refresh a part of p, one leapfrog, a slice test."""

    own: ClassVar[int] = 1
    shared: ClassVar[int] = 0
    vectors: ClassVar[tuple[str, ...]] = ("x", "gradient")
    single: ClassVar[bool] = True

    def lift(self, target: Any) -> Any:
        return target

    def carry(self, x: Any, log_density: Any, gradient: Any, z: Any, u: Any) -> Moving:
        return Moving(x, log_density, gradient, z, 2 * u - 1)

    def tuning(self, precondition: Preconditioner, step: Any, length: Any, thin: Any) -> Any:
        steps = np.full(FOLDS, step)
        return MEADSTuning(precondition, steps, np.ones_like(steps), thin)

    def move(self, target: Any, tuned: Any, carry: Moving, by: Randomness) -> tuple[Moving, Any]:
        """With α = 1 − exp(−2γε): p ← √(1 − α) p + √α z, v ← (v + 1 + α/2) mod 2 − 1, leapfrog.

        Accepted if |v| ≤ e^Δ with Δ = −ΔH, and then v ← v e^−Δ; else p ← −p. All three parts
        leave γ(x) N(p; 0, I) U(v; −1, 1) invariant.
        """
        precondition = tuned.preconditioner
        fold = jnp.arange(carry.x.shape[0]) % FOLDS
        step = tuned.step_size[fold]
        alpha = -jnp.expm1(-2 * tuned.damping[fold] * step)
        p = jnp.sqrt(1 - alpha)[:, None] * carry.p + jnp.sqrt(alpha)[:, None] * by.z
        v = jnp.mod(carry.v + 1 + 0.5 * alpha, 2.0) - 1
        # Chains of one step size would stay in phase on a target with one frequency.
        jittered = step * (0.9 + 0.2 * by.own[0])
        force = precondition.pull(carry.gradient)
        start = Phase(carry.x, p, carry.log_density, carry.gradient, force)
        end = leapfrog(target, precondition, start, jittered[:, None])
        before, after = log_joint(start), log_joint(end)
        gain = jnp.where(after == -jnp.inf, -jnp.inf, after - before)
        accept = (jnp.log(jnp.abs(v)) <= gain) & (gain > -jnp.inf) | (step == 0)
        row = accept[:, None]
        scaled = v * jnp.exp(jnp.where(accept, -gain, 0.0))
        new = Moving(
            jnp.where(row, end.x, carry.x),
            jnp.where(accept, end.log_density, carry.log_density),
            jnp.where(row, end.gradient, carry.gradient),
            jnp.where(row, end.z, -p),
            jnp.clip(scaled, -1.0, 1.0),
        )
        return new, {
            "x": new.x,
            "gradient": new.gradient,
            "log_density": new.log_density,
            "acceptance_rate": jnp.exp(jnp.minimum(gain, 0.0)),
            "energy": 0.5 * jnp.sum(new.p**2, axis=-1) - new.log_density,
            "step_size": jittered,
            "diverging": ~(gain > -DIVERGENCE),
            "n_gradients": jnp.ones(gain.shape, jnp.int32),
        }


def largest_eigenvalue(rows: np.ndarray) -> float:
    """tr(S²)/tr(S) for S = rowsᵀrows/N: between the mean and the largest eigenvalue of S.

    Off the diagonal only products of different rows enter tr(S²), which makes it unbiased for
    independent rows.

    >>> round(largest_eigenvalue(np.random.default_rng(0).normal(size=(500, 3))), 1)
    1.0
    """
    n = len(rows)
    gram = rows @ rows.T
    sizes = np.diagonal(gram)
    square = (np.sum(gram**2) - np.sum(sizes**2)) / (n * (n - 1))
    return float(max(square, 0.0) / max(sizes.mean(), 1e-300))


class Folds(Chains):
    """The chains of a MEADS warm-up: fold k moves with what fold k − 1 says.

    The factor c of ε = c/√λ(Fᵀ∇log γ) is tuned for acceptance: where the largest eigenvalue is a
    few distant chains', c makes up for it.
    """

    curvature = np.ones(FOLDS)
    spread = np.ones(FOLDS)

    def tuning(self, precondition: Preconditioner, step: float, length: float) -> MEADSTuning:
        from_others = np.roll(self.curvature, 1) / np.exp(np.mean(np.log(self.curvature)))
        factor = np.clip(from_others**-0.5, 1 / WIDEST, WIDEST)
        steps, damping = step * factor, np.roll(self.spread, 1) ** -0.5
        thin = np.int32(stride(self.method, step, length))
        real = self.dtype
        return MEADSTuning(precondition, steps.astype(real), damping.astype(real), thin)

    def advance(
        self, precondition: Preconditioner, step: float, length: float, n: int
    ) -> dict[str, np.ndarray]:
        rows = super().advance(precondition, step, length, n)
        fold = np.arange(rows["x"].shape[1]) % FOLDS
        if self.chains >= 2 * FOLDS and n > 1:
            parts = [
                (rows["x"][:, fold == k], rows["gradient"][:, fold == k]) for k in range(FOLDS)
            ]
            found = [self._statistics(precondition, *part) for part in parts]
            self.curvature, self.spread = (np.array(v) for v in zip(*found, strict=True))
        return rows

    def _statistics(
        self, precondition: Preconditioner, x: np.ndarray, gradient: np.ndarray
    ) -> tuple[float, float]:
        """λ of whitened gradients and of whitened, centred positions, from at most 512 rows."""
        rows = x.reshape(-1, x.shape[-1])
        some = slice(None, None, -(-len(rows) // 512))
        forces = np.asarray(precondition.pull(gradient.reshape(rows.shape)[some]))
        usable = np.isfinite(forces).all(1)
        if usable.sum() < 2:
            return 1.0, 1.0
        around = whiten(precondition, rows[some] - rows.mean(0))
        return largest_eigenvalue(forces[usable]), max(largest_eigenvalue(around), 1e-6)


@dataclass(frozen=True)
class MEADS(Lockstep):
    """Generalised HMC in lockstep, one gradient a transition, tuned by other folds' statistics.

    The state is (x, p, v) with law γ(x) N(p; 0, I) U(v; −1, 1). Each transition refreshes a part
    of the momentum, takes one leapfrog step, and tests it against the slowly moving |v|, so that
    rejections come in bunches and the momentum seldom turns. The damping γ = 1/√λ, λ the largest
    eigenvalue of the whitened positions' covariance, comes from another fold of chains during
    warm-up, and so does the step size's relation to the curvature; frozen, all folds share one.

    Parameters
    ----------
    warmup_draws : int
        Draws per chain to adapt with, from scattered starts; half as many from a Laplace start.
    max_warmup_draws : int
        Adaptation goes on until the chains have settled, up to here.
    target_accept : float
        Mean acceptance probability to tune ε for, in (0, 1); high, for each rejection turns back.
    length : float
        Whitened time between two draws.
    metric, rank
        As for ``ensemble``.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Hoffman & Sountsov 2022, proceedings.mlr.press/v151/hoffman22a.html; Neal 2020,
    arXiv:2001.11950 (the slice variable).

    >>> MEADS(target_accept=0.98).default_chains
    64
    """

    warmup_draws: int = 256
    max_warmup_draws: int = 1280
    target_accept: float = 0.96
    length: float = 1.5707963
    metric: str = "auto"
    rank: int = RANK
    contract: Invariant = field(default=Invariant(reversible=False), init=False)
    method: ClassVar[Persistent] = Persistent()
    auxiliary: ClassVar[tuple[str, ...]] = ("p", "v")
    default_chains: int = field(default=64, init=False)
    default_draws: int = field(default=400, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 16)
        check_count("max_warmup_draws", self.max_warmup_draws, self.warmup_draws)
        check_between("target_accept", self.target_accept, 0, 1)
        check_between("length", self.length, 0, 1000)
        check_metric(self.metric, self.rank)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts, step size, damping and preconditioner for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        schedule = Schedule(
            self.warmup_draws,
            self.max_warmup_draws,
            CHUNK,
            self.target_accept,
            self.length,
            True,
            APART,
            MOST_THIN,
        )
        dtype = jnp.result_type(float)
        machine, end = tune(
            lambda k, t: Folds(self.method, k, t, chains, dtype),
            key,
            target,
            (self.metric, self.rank),
            schedule,
            report,
        )
        real, step = machine.dtype.type, end.step.final
        spread = math.exp(np.mean(np.log(machine.spread)))
        thin = np.int32(stride(self.method, step, end.length.best) * end.thin)
        steps, damping = np.full(FOLDS, real(step)), np.full(FOLDS, real(spread**-0.5))
        return warm(machine, end, MEADSTuning(end.precondition, steps, damping, thin), target.dim)
