"""Self-normalised estimates from weighted particles, their largest weights Pareto-smoothed."""

from __future__ import annotations

import numpy as np

from ppcore.estimators.estimate import Estimate, ratio_of

ENOUGH = 25


def weighted_mean(values: np.ndarray, log_weight: np.ndarray, smooth: bool = True) -> Estimate:
    """Σ W_i f(θ_i), with error √Σ W_i² (f_i − f̄)² (delta method).

    With ``smooth`` the largest weights are replaced by quantiles of a generalised Pareto
    distribution fitted to them; ``about["k_hat"]`` is its shape. Above 0.7 neither the value nor
    its error can be trusted.

    Parameters
    ----------
    values : float[N, m]
    log_weight : float[N]

    Source: Vehtari, Simpson, Gelman, Yao & Gabry (2024), arXiv:1507.02646.

    >>> found = weighted_mean(np.arange(4.0)[:, None], np.log([0.1, 0.2, 0.3, 0.4]))
    >>> found.value
    array([2.])
    """
    log_w = np.asarray(log_weight, float) - np.max(log_weight)
    plain = _error(values, _normalised(log_w))
    k_hat = None
    if smooth and len(log_w) >= ENOUGH and np.ptp(log_w[np.isfinite(log_w)]) > 1e-9:
        from arviz_stats.base import array_stats

        with np.errstate(all="ignore"):
            # ArviZ takes log likelihoods, whose negatives are weights of leave-one-out.
            smoothed, k = array_stats.psislw(np.where(np.isfinite(log_w), -log_w, 1e6))
        if np.isfinite(k):
            log_w, k_hat = np.asarray(smoothed, float), float(k)
    w = _normalised(log_w)
    value, error = w @ values, _error(values, w)
    about = {"k_hat": k_hat, "ess": float(1.0 / np.sum(w**2))}
    return Estimate(value, error, "psis" if smooth else "weights", ratio_of(plain, error), about)


def _normalised(log_w: np.ndarray) -> np.ndarray:
    w = np.exp(log_w - log_w.max())
    return np.asarray(w / w.sum())


def _error(values: np.ndarray, w: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(w**2 @ np.square(values - w @ values)))
