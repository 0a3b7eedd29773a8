"""What a fit is worth, against what is known of its target."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.samplers.problems import Problem
from benchmarks.samplers.transport_cost import sinkhorn

SAMPLE = 1024
SEEN = 0.1
"""A mode counts as covered if its estimated mass is at least this share of its true mass."""


def weighted(fit: Any) -> tuple[np.ndarray, np.ndarray]:
    """Points and their weights, which sum to one: float[N, d], float[N]."""
    if fit.population is None:
        x = np.asarray(fit.result.x)
        x = x.reshape(-1, x.shape[-1])
        return x, np.full(len(x), 1.0 / len(x))
    log_weight = np.asarray(fit.population.log_weight, float)
    w = np.exp(log_weight - log_weight.max())
    return np.asarray(fit.population.x, float), w / w.sum()


def share_of_draws(fit: Any) -> float:
    """Effective over actual draws.

    For a population 1/(1 + N e²) with e the standard error of log Ẑ that the run states: for
    independent weighted draws that is 1/(N Σ W²), and after resampling it counts what the lineages
    have lost, which equal weights hide. Without e, and where particles are weighed only once,
    1/(N Σ W²) itself, before they are resampled. For chains, the smallest bulk ESS of a
    coordinate, over the number of draws.
    """
    if fit.population is None:
        from arviz_stats.base import array_stats

        x = np.asarray(fit.result.x, float)
        sizes = [
            float(array_stats.ess(x[..., i], chain_axis=0, draw_axis=1)) for i in range(x.shape[2])
        ]
        return min(1.0, min(sizes) / (x.shape[0] * x.shape[1]))
    _, w = weighted(fit)
    steps = fit.attrs["weights"]["steps"][0].get("ess", ())
    if len(steps) == 1:
        return float(steps[0]) / len(w)
    error = fit.attrs.get("log_evidence_error")
    return float(1 / (len(w) * np.sum(w**2)) if error is None else 1 / (1 + len(w) * error**2))


def drawn(x: np.ndarray, w: np.ndarray, n: int, seed: int) -> np.ndarray:
    """``n`` equally weighted rows, by systematic resampling of a random order."""
    rng = np.random.Generator(np.random.PCG64([seed, 7]))
    order = rng.permutation(len(x))
    index = np.searchsorted(np.cumsum(w[order]), (np.arange(n) + rng.random()) / n)
    return x[order[np.minimum(index, len(x) - 1)]]


def judged(problem: Problem, fit: Any, seed: int) -> dict[str, Any]:
    """All numbers of one fit that go into the table."""
    x, w = weighted(fit)
    found: dict[str, Any] = {"n": len(x), "ess": share_of_draws(fit)}
    if fit.population is not None:
        found["log_z"] = float(fit.log_evidence.value)
        found["own_error"] = fit.attrs.get("log_evidence_error")
        found["k_hat"] = fit.attrs["weights"]["k_hat"][0]
        found["ess_of_weights"] = float(1 / (len(w) * np.sum(w**2)))
    if problem.draw is not None:
        rng = np.random.Generator(np.random.PCG64([seed, 11]))
        exact, other = problem.draw(rng, SAMPLE), problem.draw(rng, SAMPLE)
        found["sinkhorn"] = sinkhorn(drawn(x, w, SAMPLE, seed), exact)
        found["floor"] = sinkhorn(other, exact)
    if problem.modes is not None:
        share, truth = w @ problem.modes.member(x), problem.modes.share
        found["modes"] = int(np.sum(share >= SEEN * truth))
        found["of_modes"] = len(truth)
        found["mass_error"] = float(0.5 * np.abs(share - truth).sum() / truth.sum())
    if problem.also is not None:
        found["also"] = float(w @ np.asarray(problem.also.f(x), float))
    return found
