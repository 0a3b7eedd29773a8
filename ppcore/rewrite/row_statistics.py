"""Few weighted values with the same sums of sufficient statistics as many.

log p(y | θ) = η(θ)·T(y) − A(θ) + h(y): whatever weights w and values y* have Σ w = n and
Σ w T(y*) = Σ T(y) give the same log likelihood up to Σ h(y) − Σ w h(y*), which no parameter enters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln

Array = np.ndarray
Summed = tuple[Array, Array, Array, float]

# T with one component, undone: the value at which T is the mean of T(y).
_ONE: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "Bernoulli": (lambda y: y, lambda t: t),
    "BernoulliProbs": (lambda y: y, lambda t: t),
    "BernoulliLogits": (lambda y: y, lambda t: t),
    "Poisson": (lambda y: y, lambda t: t),
    "Binomial": (lambda y: y, lambda t: t),
    "BinomialProbs": (lambda y: y, lambda t: t),
    "BinomialLogits": (lambda y: y, lambda t: t),
    "Exponential": (lambda y: y, lambda t: t),
    "HalfNormal": (np.square, np.sqrt),
}
# T with two components.
_TWO: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "Normal": (lambda y: y, np.square),
    "Gamma": (lambda y: y, np.log),
    "InverseGamma": (lambda y: 1 / y, np.log),
    "Beta": (np.log, lambda y: np.log1p(-y)),
}


def summed(
    family: str, y: Array, groups: tuple[Array, Array], trials: Array | None = None
) -> Summed | None:
    """Rows, values, weights and constant that stand for observations y: [n].

    ``groups``: an original row of each group, and the group of every observation; ``trials``: of
    binomial values, equal within a group. None if the family has no statistic here, or few values
    could not stand for a group's without loss.

    >>> rows, values, weights, _ = summed("Poisson", np.array([1, 2, 6]), (np.zeros(1, int),
    ...                                                                    np.zeros(3, int)))
    >>> values, weights
    (array([3.]), array([3.]))
    """
    first, of = groups
    y, m = np.asarray(y, float), len(first)
    n = np.bincount(of, minlength=m).astype(float)
    if family in _ONE:
        statistic, undo = _ONE[family]
        values = undo(np.bincount(of, statistic(y), m) / n)
        constant = _log_base(family, y, trials).sum()
        of_all = None if trials is None else np.broadcast_to(trials, y.shape)[first]
        constant -= (n * _log_base(family, values, of_all)).sum()
        return first, values, n, float(constant)
    if family in _TWO and len(y) > 6 * m:
        return _three(family, y, first, of, n)
    return None


def _log_base(family: str, y: Array, trials: Array | None) -> Array:
    """h(y)."""
    if family == "Poisson":
        return -np.asarray(gammaln(y + 1))
    if trials is not None:
        return np.asarray(gammaln(trials + 1) - gammaln(y + 1) - gammaln(trials - y + 1))
    return np.zeros_like(y)


def _three(family: str, y: Array, first: Array, of: Array, n: Array) -> Summed | None:
    """Three values a group: its least, its greatest and one between, weighted by solving for T."""
    m = len(first)
    low, high = np.full(m, np.inf), np.full(m, -np.inf)
    np.minimum.at(low, of, y)
    np.maximum.at(high, of, y)
    a, b = _TWO[family]
    points = np.stack([low, 0.5 * (low + high), high], 1)
    scale = a(points), b(points)
    matrix = np.stack([np.ones_like(points), *scale], 1)
    right = np.stack([n, np.bincount(of, a(y), m), np.bincount(of, b(y), m)], 1)
    size = np.abs(matrix).max(-1, keepdims=True)
    if not np.isfinite(matrix).all() or np.linalg.cond(matrix / size).max() > 1e4:
        return None
    weights = np.linalg.solve(matrix / size, (right / size[..., 0])[..., None])[..., 0]
    return np.repeat(first, 3), points.ravel(), weights.ravel(), 0.0


def sigma_points(y: Array) -> tuple[Array, Array]:
    """2d weighted vectors with the sum and the sum of squares of y: float[n, d].

    ȳ ± √d · column of L, with L Lᵀ the covariance about the mean, from a QR decomposition.

    >>> points, weights = sigma_points(np.array([[0.0], [2.0]]))
    >>> points.ravel().tolist(), weights.tolist()
    ([2.0, 0.0], [1.0, 1.0])
    """
    n, d = y.shape
    mean = y.mean(0)
    r = np.linalg.qr((y - mean) / np.sqrt(n), mode="r")
    root = np.sqrt(d) * r * np.where(np.diagonal(r) < 0, -1.0, 1.0)[:, None]
    return mean + np.concatenate([root, -root]), np.full(2 * d, n / (2 * d))
