"""The shape k̂ of a Pareto tail: whether importance weights have a usable mean and variance."""

from __future__ import annotations

import math

import numpy as np

SMALLEST = 25


def k_hat(log_weight: np.ndarray) -> float:
    """k̂ of the largest M = min(N/5, 3√N) of the weights exp(log_weight); float[N].

    Below 0.5 the weights have finite variance; above 0.7 estimates are not to be trusted. −∞ for
    equal weights, +∞ where the weights are not finite or too few.

    The shape is the weighted mean over a grid of profile likelihoods, pulled to 0.5 with the
    weight of ten observations.

    Source: Zhang & Stephens 2009, doi:10.1198/tech.2009.08017; Vehtari, Simpson, Gelman, Yao &
    Gabry 2024, arXiv:1507.02646.

    >>> u = np.random.default_rng(0).uniform(size=20_000)
    >>> round(k_hat(-0.4 * np.log(u)), 1)
    0.4
    """
    found = np.sort(np.asarray(log_weight, float))
    n = len(found)
    if not np.isfinite(found[-1]) or np.isnan(found).any():
        return math.inf
    m = min(n // 5, math.ceil(3 * math.sqrt(n)))
    if m < SMALLEST // 5:
        return math.inf
    cut = max(found[-m - 1], math.log(np.finfo(float).tiny) + found[-1])
    excess = np.exp(found[-m:] - found[-1]) - math.exp(cut - found[-1])
    excess = excess[excess > 0]
    if len(excess) < 5 or excess[-1] < 1e-12:
        return -math.inf
    return _generalised_pareto(excess)


def _generalised_pareto(x: np.ndarray) -> float:
    """Shape of ascending excesses x > 0."""
    m = len(x)
    grid = 30 + int(math.sqrt(m))
    quartile = x[int(m / 4 + 0.5) - 1]
    theta = 1 / x[-1] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quartile)
    k = np.log1p(-theta[:, None] * x).mean(1)
    with np.errstate(divide="ignore", invalid="ignore"):
        level = m * (np.log(-theta / k) - k - 1)
    level = np.where(np.isfinite(level), level, -np.inf)
    weight = np.exp(level - level.max())
    best = float(weight @ theta / weight.sum())
    shape = float(np.log1p(-best * x).mean())
    return (shape * m + 0.5 * 10) / (m + 10)
