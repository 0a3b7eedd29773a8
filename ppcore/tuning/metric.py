"""Estimate the preconditioner F from pooled draws and gradients, shrunk to the one before."""

from __future__ import annotations

import numpy as np

from ppcore.tuning.preconditioner import Dense, LowRank, Preconditioner

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


def estimate(
    before: Preconditioner, draws: np.ndarray, gradients: np.ndarray | None, by_fisher: bool
) -> Preconditioner:
    """The preconditioner of the shape of ``before`` for ``draws`` and ``gradients``: float[N, d].

    In coordinates that ``before`` whitens let A be the covariance of the draws and B that of the
    gradients ∇ log γ. The estimate is the geometric mean A # B⁻¹, which minimises the Fisher
    divergence to the Gaussian: exact for a Gaussian target even while the draws are still spread
    too widely, since gradients grow in proportion. Without ``by_fisher`` a dense estimate is A,
    which serves better once the chains have settled on a target with heavy tails. With n = N/2
    (draws are correlated) A and B are first replaced by (n A + κ I)/(n + κ), κ = d: a shrinkage
    toward ``before``, not toward the diagonal, so that strong correlations once learnt survive a
    noisy window. Without gradients (None) the estimate is A alone.

    Source: Seyboldt, Carlson & Carpenter 2026, arXiv:2603.18845 (nutpie's mass matrix).
    """
    centred = draws - draws.mean(0)
    forces = None if gradients is None else gradients - gradients.mean(0)
    if isinstance(before, Dense):
        return _dense(before, centred, forces if by_fisher else None)
    return _low_rank(before, centred, forces)


def geometric_mean(a: np.ndarray, b_inverse_of: np.ndarray) -> np.ndarray:
    """A # B⁻¹ = A^½ (A^½ B A^½)^−½ A^½ for symmetric positive definite A and B: float[k, k].

    >>> import numpy as np
    >>> geometric_mean(4 * np.eye(2), np.eye(2)).diagonal()
    array([2., 2.])
    """
    root = _power(a, 0.5)
    return root @ _power(root @ b_inverse_of @ root, -0.5) @ root


def _power(matrix: np.ndarray, exponent: float) -> np.ndarray:
    values, vectors = np.linalg.eigh(0.5 * (matrix + matrix.T))
    return (vectors * np.maximum(values, 1e-300) ** exponent) @ vectors.T


def from_factor(like: Preconditioner, factor: np.ndarray) -> Preconditioner:
    """A preconditioner of the shape of ``like`` for Σ = factor factorᵀ: float[d, d]."""
    if isinstance(like, Dense):
        return Dense(factor.astype(like.factor.dtype))
    scale = np.sqrt(np.sum(factor**2, axis=1))
    rows, rank = factor / scale[:, None], like.basis.shape[1]
    basis, stretch = _extreme(rows @ rows.T, np.eye(len(scale)), rank)
    dtype = np.asarray(like.scale).dtype
    return LowRank(scale.astype(dtype), basis.astype(dtype), stretch.astype(dtype))


def _dense(before: Dense, centred: np.ndarray, forces: np.ndarray | None) -> Dense:
    factor = np.asarray(before.factor, float)
    white = np.linalg.solve(factor, centred.T).T
    inner = _shrunk(white)
    if forces is not None:
        inner = geometric_mean(inner, _shrunk(forces @ factor))
    return Dense((factor @ np.linalg.cholesky(inner)).astype(before.factor.dtype))


def _shrunk(white: np.ndarray, toward: np.ndarray | None = None) -> np.ndarray:
    n, dim = len(white) / 2, white.shape[1]
    prior = np.eye(dim) if toward is None else toward
    return (n * (white.T @ white) / len(white) + dim * prior) / (n + dim)


def _extreme(inner: np.ndarray, plane: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Basis and stretch of the ``rank`` eigenvectors of ``inner``, in a plane, farthest from 1."""
    basis, stretch = np.zeros((len(plane), rank)), np.ones(rank)
    values, vectors = np.linalg.eigh(inner)
    values = np.maximum(values, 1e-300)
    top = np.argsort(-np.abs(np.log(values)))[:rank]
    basis[:, : len(top)] = plane @ vectors[:, top]
    stretch[: len(top)] = np.sqrt(values[top])
    return basis, stretch


def _low_rank(before: LowRank, centred: np.ndarray, forces: np.ndarray | None) -> LowRank:
    """Scales s_i⁴ = var x_i / var ∇_i; then A # B⁻¹ in the plane where either is far from I.

    The plane also holds what ``before`` stretched, and A and B are shrunk toward its Σ and Σ⁻¹
    there: strong correlations are learnt over several windows. Without gradients s_i² = var x_i,
    and A in the plane where it is far from I.
    """
    n, dim = len(centred) / 2, centred.shape[1]
    dtype, rank = np.asarray(before.scale).dtype, before.basis.shape[1]
    prior = np.asarray(before.scale, float)
    moved = (n * centred.var(0) + 5 * prior**2) / (n + 5)
    pushed = 1 / moved if forces is None else (n * forces.var(0) + 5 / prior**2) / (n + 5)
    scale = (moved / pushed) ** 0.25
    basis, stretch = np.zeros((dim, rank)), np.ones(rank)
    if rank:
        whites = [centred / scale] if forces is None else [centred / scale, forces * scale]
        old = np.asarray(before.basis, float)[:, np.asarray(before.stretch) != 1]
        tops = [*(_leading(white, n, rank) for white in whites), old * (prior / scale)[:, None]]
        plane = np.linalg.qr(np.concatenate(tops, axis=1))[0]
        roots = before.pull((plane / scale[:, None]).T), _solved(before, (plane * scale[:, None]).T)
        inside = [
            _shrunk(white @ plane, root @ root.T)
            for white, root in zip(whites, roots, strict=False)
        ]
        middle = inside[0] if forces is None else geometric_mean(*inside)
        basis, stretch = _extreme(middle, plane, rank)
    return LowRank(scale.astype(dtype), basis.astype(dtype), stretch.astype(dtype))


def _solved(f: LowRank, x: np.ndarray) -> np.ndarray:
    """F⁻¹ x for each row of ``x``: float[k, d]."""
    y, basis = x / np.asarray(f.scale, float), np.asarray(f.basis, float)
    return np.asarray(y + ((y @ basis) * (1 / np.asarray(f.stretch, float) - 1)) @ basis.T)


def _leading(white: np.ndarray, n: float, rank: int) -> np.ndarray:
    """Up to ``rank`` eigenvectors of the covariance whose values no noise of n draws explains."""
    values, vectors = np.linalg.eigh(white.T @ white / len(white))
    edge = (1 + np.sqrt(white.shape[1] / n)) ** 2 * np.median(values)
    return vectors[:, values > edge][:, -rank:]
