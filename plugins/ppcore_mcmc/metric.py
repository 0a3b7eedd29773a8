"""Estimate the preconditioner F from pooled warm-up draws, shrunk toward the one before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ppcore_mcmc.preconditioner import Dense, LowRank, Preconditioner

DENSE_UP_TO = 128
RANK = 24


def choose(kind: str, dim: int) -> str:
    """ "auto" becomes "dense" up to ``DENSE_UP_TO`` coordinates and "low_rank" above.

    >>> choose("auto", 10), choose("auto", 1000), choose("diagonal", 10)
    ('dense', 'low_rank', 'diagonal')
    """
    if kind != "auto":
        return kind
    return "dense" if dim <= DENSE_UP_TO else "low_rank"


def estimate(before: Preconditioner, draws: np.ndarray) -> Preconditioner:
    """The preconditioner of the shape of ``before`` that whitens ``draws``: float[N, d].

    With A the covariance of the draws in coordinates that ``before`` whitens and n = N/2 (draws
    are correlated), A is replaced by (n A + κ I)/(n + κ), κ = d: a shrinkage toward ``before``,
    not toward the diagonal, so that strong correlations once learnt survive a noisy window.
    """
    centred = draws - draws.mean(0)
    if isinstance(before, Dense):
        return _dense(before, centred)
    return _low_rank(before, centred)


def from_factor(like: Preconditioner, factor: np.ndarray) -> Preconditioner:
    """A preconditioner of the shape of ``like`` for Σ = factor factorᵀ: float[d, d]."""
    if isinstance(like, Dense):
        return Dense(factor.astype(like.factor.dtype))
    scale = np.sqrt(np.sum(factor**2, axis=1)).astype(np.asarray(like.scale).dtype)
    return replace(like, scale=scale)


def _dense(before: Dense, centred: np.ndarray) -> Dense:
    n, dim = len(centred) / 2, centred.shape[1]
    factor = np.asarray(before.factor, float)
    white = np.linalg.solve(factor, centred.T)
    shrunk = (n * (white @ white.T) / len(centred) + dim * np.eye(dim)) / (n + dim)
    return Dense((factor @ np.linalg.cholesky(shrunk)).astype(before.factor.dtype))


def _low_rank(before: LowRank, centred: np.ndarray) -> LowRank:
    """Scales from the variances; then the directions whose stretch is furthest from 1."""
    n, dim = len(centred) / 2, centred.shape[1]
    dtype, rank = np.asarray(before.scale).dtype, before.basis.shape[1]
    prior = np.asarray(before.scale, float)
    variance = (n * centred.var(0) + 5 * prior**2) / (n + 5)
    scale = np.sqrt(variance)
    basis, stretch = np.zeros((dim, rank)), np.ones(rank)
    if rank:
        white = centred / scale
        values, vectors = np.linalg.eigh(white.T @ white / len(white))
        edge = np.sqrt(dim / n)
        values = np.where(values > 1, values / (1 + edge), values * (1 + edge))
        score = np.abs(np.log(np.maximum(values, 1e-12)))
        score[(values > 1 / (1 + edge)) & (values < 1 + edge)] = 0.0
        top = np.argsort(-score)[:rank]
        keep = score[top] > 0
        basis[:, : len(top)] = vectors[:, top] * keep
        stretch[: len(top)] = np.where(keep, np.sqrt(np.maximum(values[top], 1e-12)), 1.0)
    return LowRank(scale.astype(dtype), basis.astype(dtype), stretch.astype(dtype))
