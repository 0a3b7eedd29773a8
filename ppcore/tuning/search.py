"""Where chains begin without gradients: Gaussians fitted to weighted draws, step after step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcore.errors import StartError
from ppcore.tuning.lbfgs import Evaluate
from ppcore.tuning.start import Start, scattered

ROUNDS = 30
LEAST = 512
FULL_UP_TO = 64
ESS = 0.3


def search(
    evaluate: Evaluate, rng: np.random.Generator, key: Any, target: Any, chains: int
) -> Start:
    """Start positions for ``chains`` chains, and a factor that suits them, from log γ alone.

    Draws x ~ q = N(m, F Fᵀ) get the weights (γ(x)/q(x))^t with the largest t ≤ 1 that leaves an
    effective sample size of ``ESS`` N; m and F Fᵀ become their weighted moments, shrunk to those
    before. While t < 1 the last move δ of m is added, F Fᵀ + δ δᵀ, so that q reaches further the
    longer it goes one way. Where t has reached 1 the draws, resampled, are where the chains begin.
    The first q has the moments of prior draws, or is N(0, I).

    A target with finite coordinates starts from its reference, see :func:`_resampled`.

    Raises :class:`ppcore.errors.StartError` when no log density is finite.

    Source: Rubinstein & Kroese 2004, doi:10.1007/978-1-4757-4321-0 (cross-entropy); Cappé et al.
    2008, arXiv:0710.4242 (fitting a proposal to weighted draws); Hansen 2016, arXiv:1604.00772
    (moves that add up).
    """
    dim = target.dim
    if not getattr(target, "has_gradient", True):
        return _resampled(evaluate, rng, key, target, chains)
    n = max(LEAST, 4 * chains, 8 * min(dim, FULL_UP_TO))
    mean, factor = _first(evaluate, rng, key, target, n)
    powers = [0.0]
    for _ in range(ROUNDS):
        z = rng.standard_normal((n, dim))
        x = mean + z @ factor.T
        log_density = np.asarray(evaluate(x)[0], float)
        ratio = np.where(np.isfinite(log_density), log_density, -np.inf) + 0.5 * (z**2).sum(-1)
        if not np.isfinite(ratio).any():
            factor = 0.3 * factor
            continue
        power, weights = _tempered(ratio)
        powers.append(power)
        kept = x[rng.choice(n, chains, p=weights)]
        before = mean
        mean, factor = _fitted(x, weights, factor)
        if power < 1:
            factor = _stretched(factor, mean - before)
        if powers[-1] == 1.0 == powers[-2]:
            break
    else:
        if len(powers) == 1:
            kept = scattered(evaluate, rng, key, target, (chains, dim))[0]
    near = powers[-1] == 1.0
    return Start(kept, np.sqrt((factor**2).sum(1)), factor if near else None)


def _resampled(
    evaluate: Evaluate, rng: np.random.Generator, key: Any, target: Any, chains: int
) -> Start:
    """Prior draws resampled with weights likelihood^t, the largest t that leaves many apart."""
    if not target.has_reference:
        raise StartError(
            "A target with finite coordinates needs draws of its prior to start from, and a prior "
            "of this one is improper: give every site a proper distribution."
        )
    x = np.asarray(target.sample_reference(key, 16 * max(chains, 32)), float)
    log_density, prior = np.asarray(evaluate(x)[0], float), _log_prior(target, x)
    ratio = np.where(np.isfinite(log_density), log_density - prior, -np.inf)
    if not np.isfinite(ratio).any():
        raise StartError(
            f"The log density is not finite at any of {len(x)} draws of the prior. Check that the "
            "observed data lie in the support of the likelihood."
        )
    _, weights = _tempered(ratio)
    kept = x[rng.choice(len(x), chains, p=weights)]
    return Start(kept, np.sqrt(weights @ (x - weights @ x) ** 2) + 1e-3)


def _log_prior(target: Any, x: np.ndarray) -> np.ndarray:
    import jax

    return np.asarray(jax.jit(jax.vmap(lambda t, v: t.log_prior(v), (None, 0)))(target, x))


def _first(
    evaluate: Evaluate, rng: np.random.Generator, key: Any, target: Any, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Moments of the prior where it has any, else of scattered points of finite density."""
    if target.has_reference:
        x = np.asarray(target.sample_reference(key, n), float)
        low, middle, high = np.quantile(x, (0.16, 0.5, 0.84), axis=0)
    else:
        x = scattered(evaluate, rng, key, target, (n, target.dim))[0]
        low, middle, high = x.mean(0) - 1, x.mean(0), x.mean(0) + 1
    return middle, np.diag(np.clip(0.5 * (high - low), 1e-3, 1e3))


def _tempered(ratio: np.ndarray) -> tuple[float, np.ndarray]:
    """The largest t ≤ 1 with Σw = 1, 1/Σw² ≥ ``ESS`` N for w ∝ exp(t·ratio), by bisection."""
    usable = np.isfinite(ratio)
    level = np.where(usable, ratio - ratio[usable].max(), -np.inf)

    def weights(t: float) -> np.ndarray:
        w = np.where(usable, np.exp(t * np.where(usable, level, 0.0)), 0.0)
        return np.asarray(w / w.sum())

    enough = ESS * usable.sum()
    low, high = 0.0, 1.0
    if 1 / (weights(1.0) ** 2).sum() >= enough:
        return 1.0, weights(1.0)
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if 1 / (weights(middle) ** 2).sum() >= enough else (low, middle)
    return low, weights(low)


def _stretched(factor: np.ndarray, move: np.ndarray) -> np.ndarray:
    """A square root of F Fᵀ + δ δᵀ: F (I + u uᵀ)^½ with u = F⁻¹ δ."""
    u = np.linalg.solve(factor, move)
    size = u @ u
    if size < 1e-12:
        return factor
    return np.asarray(factor + np.outer(factor @ u, u) * ((1 + size) ** 0.5 - 1) / size)


def _fitted(
    x: np.ndarray, weights: np.ndarray, before: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and a factor of the weighted covariance C, (n C + κ C₀)/(n + κ), κ = d."""
    dim, n = x.shape[1], 1 / (weights**2).sum()
    mean = weights @ x
    centred = x - mean
    covariance = (centred * weights[:, None]).T @ centred
    covariance = (n * covariance + dim * (before @ before.T)) / (n + dim)
    if dim > FULL_UP_TO:
        return mean, np.diag(np.sqrt(np.diag(covariance)))
    scale = np.sqrt(np.diag(covariance))
    inner = covariance / np.outer(scale, scale) + 1e-9 * np.eye(dim)
    return mean, scale[:, None] * np.linalg.cholesky(inner)
