"""Pathfinder: the best of the Gaussians along the way of quasi-Newton climbs, many at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Progress, Report
from ppcore.settings import check_between, check_count
from ppcore.tuning.lbfgs import Evaluate, Paths, climb, dense_inverse_hessian
from ppcore.tuning.noise import spawned
from ppcore_flows.flow import defended, drawn
from ppcore_flows.start import Counted, Found, starts
from ppcore_flows.training import Trained, require_smooth

STRIDE = 2
FLOOR = 1e-10


@dataclass(frozen=True)
class Pathfinder:
    """x ~ Σ_k π_k N(m_k, H_k), one Gaussian for each path, π_k ∝ exp(its bound); w = γ/q, E[Ẑ] = Z.

    Along the k-th L-BFGS path, at x with inverse-Hessian estimate H, the candidate is
    N(x + H ∇log γ(x), H); the one with the largest estimate of E_q[log γ − log q] is kept. The
    climb leaves the mass behind where the mode says nothing about it (a funnel): the bound falls,
    and an earlier Gaussian is taken. Weights are those of the whole mixture, not of each path.

    Parameters
    ----------
    paths : int
    iterations : int
        Calls of the gradient along each path.
    probes : int
        Draws that estimate the bound of a candidate.
    defence : float
        Share of draws from a wide Student-t that keeps the weights bounded; 0 for none.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.

    Source: Zhang, Carpenter, Gelman & Vehtari 2022, arXiv:2108.03782.

    >>> Pathfinder(paths=4).contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    paths: int = 8
    iterations: int = 40
    probes: int = 8
    defence: float = 0.05
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_count("paths", self.paths, 1)
        check_count("iterations", self.iterations, STRIDE)
        check_count("probes", self.probes, 2)
        check_between("defence", self.defence, -1e-9, 1)

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient,
        :class:`ppcore.errors.StartError` if no start with a finite log density is found, and
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        require_smooth(target, "pathfinder")
        k_start, k_rng, k_guard, k_draw = spawned(key, 4)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(k_rng)).ravel())
        evaluate = Counted(target)
        found = self.find(evaluate, rng, starts(evaluate, rng, k_start, target, self.paths), report)
        flow = found.law(jnp.result_type(float))
        made = Trained(flow, np.zeros(0), np.zeros(0), evaluate.spent, found.notes)
        return drawn(k_draw, defended(k_guard, flow, self.defence), made, target, n, report)

    def find(
        self, evaluate: Evaluate, rng: np.random.Generator, paths: Paths, report: Report
    ) -> Found:
        """The best Gaussian of every path."""
        count, dim = paths.x.shape
        bounds = np.full(count, -np.inf)
        means, factors = paths.x.copy(), np.tile(np.eye(dim), (count, 1, 1))
        for done in range(STRIDE, self.iterations + 1, STRIDE):
            settled = climb(evaluate, paths, STRIDE) < STRIDE
            mean, factor = _candidates(paths)
            bound = _bounds(evaluate, rng, mean, factor, self.probes)
            better = bound > bounds
            bounds = np.where(better, bound, bounds)
            means = np.where(better[:, None], mean, means)
            factors = np.where(better[:, None, None], factor, factors)
            report(Progress("climbing", done, self.iterations, {}, "steps"))
            if settled:
                break
        known = np.isfinite(bounds)
        if not known.any():
            bounds, known = np.zeros(count), np.ones(count, bool)
        note = f"Pathfinder kept {int(known.sum())} of {count} paths."
        return Found(bounds[known], means[known], factors[known], True, 0, (note,))


def _candidates(paths: Paths) -> tuple[np.ndarray, np.ndarray]:
    means, factors = [], []
    for i in range(len(paths.x)):
        h = dense_inverse_hessian(paths.steps[i], paths.changes[i])
        values, vectors = np.linalg.eigh(h)
        factor = vectors * np.sqrt(np.maximum(values, FLOOR * max(values[-1], FLOOR)))
        factors.append(factor)
        means.append(paths.x[i] + factor @ (factor.T @ paths.gradient[i]))
    return np.stack(means), np.stack(factors)


def _bounds(
    evaluate: Evaluate, rng: np.random.Generator, means: Any, factors: Any, probes: int
) -> np.ndarray:
    """Estimates of E_q[log γ − log q] up to a constant, −inf where a draw has no density."""
    count, dim = means.shape
    z = rng.standard_normal((count, probes, dim))
    x = means[:, None] + np.einsum("kij,kpj->kpi", factors, z)
    log_density, _ = evaluate(x.reshape(-1, dim))
    level = log_density.reshape(count, probes) + 0.5 * np.sum(z**2, -1)
    scale = np.linalg.slogdet(factors)[1]
    return np.where(np.isfinite(level).all(1), level.mean(1) + scale, -np.inf)
