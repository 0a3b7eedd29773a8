"""A Gaussian mixture with diagonal covariances for a rough population, on the host."""

from __future__ import annotations

import numpy as np

ROUNDS, FLOOR, ENOUGH = 40, 1e-3, 0.5
SIZES = (1, 2, 4, 8, 16, 32, 48)


def fit(rng: np.random.Generator, u: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Expectation maximisation from spread-out points: ``(log_weights, means, sds)``.

    Parameters
    ----------
    rng : Generator
    u : float[N, d]
    count : int
        C, the number of parts.
    """
    centres = [u[rng.integers(len(u))]]
    for _ in range(count - 1):
        near = np.min([np.sum((u - c) ** 2, axis=1) for c in centres], axis=0)
        total = near.sum()
        chance = near / total if total > 0 else np.full(len(u), 1.0 / len(u))
        centres.append(u[rng.choice(len(u), p=chance)])
    means = np.array(centres)
    spread = np.maximum(u.var(axis=0), FLOOR**2)
    variances = np.tile(spread / count ** (2.0 / u.shape[1]), (count, 1))
    weights = np.full(count, 1.0 / count)
    for _ in range(ROUNDS):
        log_p = parts(u, np.log(weights), means, np.sqrt(variances))
        share = np.exp(log_p - np.logaddexp.reduce(log_p, axis=1, keepdims=True))
        mass = share.sum(axis=0) + 1e-9
        weights = (mass + 1.0) / (mass + 1.0).sum()
        means = (share.T @ u) / mass[:, None]
        square = (share.T @ u**2) / mass[:, None] - means**2
        # Few points say little about a part's width: one of the pooled width counts for two.
        own = np.maximum(square, 0.0)
        pooled = mass @ own / mass.sum()
        variances = (mass[:, None] * own + 2.0 * pooled) / (mass[:, None] + 2.0)
        variances = np.maximum(variances, FLOOR**2 * spread)
    return np.log(weights), means, np.sqrt(variances)


def parts(u: np.ndarray, log_weights: np.ndarray, means: np.ndarray, sds: np.ndarray) -> np.ndarray:
    """log π_c + log N(u_i; m_c, diag σ_c²), up to a constant of d: float[N, C]."""
    precision = sds**-2.0
    square = u**2 @ precision.T - 2 * u @ (means * precision).T + np.sum(means**2 * precision, 1)
    return log_weights - 0.5 * square - np.log(sds).sum(axis=1)


def best(
    rng: np.random.Generator, u: np.ndarray, values: np.ndarray, count: int
) -> tuple[np.ndarray, ...]:
    """:func:`fit` with ``count`` parts; 0 chooses.

    By the spread of log γ − log q over a third of the points, which the fit has not seen; several
    parts must halve that of one, and none are added below half a nat. So a mixture is taken where
    the target is about one, not where it has more modes than parts (a product of double wells),
    from which a single wide part leads on.

    Parameters
    ----------
    u, values : float[N, d], float[N]
        Points and log γ at them.
    """
    if count:
        return fit(rng, u, count)
    order = rng.permutation(len(u))
    inside, outside = order[len(u) // 3 :], order[: len(u) // 3]
    chosen, level = 1, np.inf
    for size in (s for s in SIZES if s <= len(u) // 8):
        if level < ENOUGH:
            break
        log_q = np.logaddexp.reduce(parts(u[outside], *fit(rng, u[inside], size)), axis=1)
        low, high = np.quantile(values[outside] - log_q, [0.1, 0.9])
        if high - low < (0.5 if chosen == 1 and size > 1 else 0.9) * level:
            chosen, level = size, high - low
    return fit(rng, u, chosen)
