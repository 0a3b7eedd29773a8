"""Linear-Gaussian kernels in square-root form, and their inversion.

A kernel x ↦ N(Ax + b, LLᵀ) is held by (A, b, L); covariances are never formed, so nothing is
squared. L may have any number of columns and any rank: kernels without noise are functions, and a
state may live on a subspace.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

RELATIVE = 1e-8  # how far from its support evidence may lie, in units of its scale


class OffSupport(Exception):
    """Evidence lies off the support; ``args``: the first coordinate that does, and by how much."""


@dataclass(frozen=True, eq=False)
class GaussianKernel:
    """x ↦ N(Ax + b, LLᵀ), a morphism n → m.

    Attributes
    ----------
    matrix : float[m, n]
        A.
    offset : float[m]
        b.
    factor : float[m, q]
        L.

    >>> k = GaussianKernel(np.eye(1), np.zeros(1), np.eye(1))
    >>> k.then(k).cov
    array([[2.]])
    """

    matrix: np.ndarray
    offset: np.ndarray
    factor: np.ndarray

    @classmethod
    def state(cls, mean: Any, factor: Any) -> GaussianKernel:
        """N(mean, factor factorᵀ), a kernel from nothing."""
        mean = np.asarray(mean, float)
        return cls(np.zeros((len(mean), 0)), mean, np.asarray(factor, float))

    @property
    def cov(self) -> np.ndarray:
        """LLᵀ: float[m, m]."""
        return self.factor @ self.factor.T

    @property
    def mean(self) -> np.ndarray:
        """b, the mean of a state."""
        return self.offset

    def then(self, other: GaussianKernel) -> GaussianKernel:
        """This kernel first, then ``other``."""
        a = other.matrix
        factor = np.concatenate([a @ self.factor, other.factor], axis=1)
        return GaussianKernel(a @ self.matrix, a @ self.offset + other.offset, narrow(factor))

    def tensor(self, other: GaussianKernel) -> GaussianKernel:
        """Both, independently."""
        return GaussianKernel(
            _block(self.matrix, other.matrix),
            np.concatenate([self.offset, other.offset]),
            _block(self.factor, other.factor),
        )

    def graph(self) -> GaussianKernel:
        """x ↦ (x, y): the kernel beside a copy of its input."""
        n = self.matrix.shape[1]
        return GaussianKernel(
            np.concatenate([np.eye(n), self.matrix]),
            np.concatenate([np.zeros(n), self.offset]),
            np.concatenate([np.zeros((n, self.factor.shape[1])), self.factor]),
        )

    def __call__(self, x: Any) -> GaussianKernel:
        """The state at x: float[n]."""
        return GaussianKernel.state(self.matrix @ np.asarray(x, float) + self.offset, self.factor)

    def log_density(self, y: Any) -> float:
        """log density of a state at y: float[m].

        Coordinates that the ones before determine have point masses; the others Lebesgue densities.

        Raises :class:`OffSupport` if y contradicts a coordinate without noise.
        """
        e = np.asarray(y, float) - self.offset
        return innovations(orthogonalise(self.factor)[0], e, np.abs(self.offset))[1]


def disintegrate(joint: GaussianKernel, given: int) -> tuple[GaussianKernel, GaussianKernel]:
    """A joint state of (x, y), x of length ``given``, as p(x) and p(y | x).

    With [Lx; Ly] = [[R, 0], [X, Y]] Q, Q with orthonormal rows: p(x) = N(mx, RRᵀ) and
    p(y | x) = N(my + X R⁻ (x − mx), YYᵀ), where R⁻ skips coordinates that others determine. On the
    support of x the kernel is unique; elsewhere it is this continuous version of it.

    >>> joint = GaussianKernel.state([0.0, 0.0], [[1.0, 0.0], [1.0, 1.0]])
    >>> disintegrate(joint, 1)[1].matrix
    array([[1.]])
    """
    lx, ly = joint.factor[:given], joint.factor[given:]
    r, q = orthogonalise(lx)
    cross = ly @ q.T
    gain = cross @ inverse_skipping(r)
    rest = ly - cross @ q
    rest = rest - (rest @ q.T) @ q
    state = GaussianKernel.state(joint.offset[:given], r)
    kernel = GaussianKernel(gain, joint.offset[given:] - gain @ joint.offset[:given], narrow(rest))
    return state, kernel


def invert(kernel: GaussianKernel, prior: GaussianKernel) -> tuple[GaussianKernel, GaussianKernel]:
    """p(y), and the Bayesian inverse p(x | y) of a kernel x → y at a prior on x.

    Source: Cho & Jacobs, "Disintegration and Bayesian inversion via string diagrams" (2019),
    arXiv:1709.00322.
    """
    joint = prior.then(kernel.graph())
    n = len(prior.offset)
    order = np.r_[n : len(joint.offset), 0:n]
    swapped = GaussianKernel.state(joint.offset[order], joint.factor[order])
    return disintegrate(swapped, len(joint.offset) - n)


def orthogonalise(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """R, Q with rows = R Q, R lower triangular, rows of Q orthonormal or zero.

    Gram–Schmidt with reorthogonalisation. A row that lies in the span of the rows before it gets a
    zero row of Q and a zero on R's diagonal: its value is known once theirs are.
    """
    m, n = rows.shape
    r, q = np.zeros((m, m)), np.zeros((m, n))
    tolerance = rank_tolerance(n)
    for i in range(m):
        v = rows[i].copy()
        size = np.sqrt(v @ v)
        for _ in range(2):
            c = q[:i] @ v
            v -= c @ q[:i]
            r[i, :i] += c
        length = np.sqrt(v @ v)
        if length > tolerance * size:
            r[i, i], q[i] = length, v / length
    return r, q


def rank_tolerance(n: int) -> float:
    """Below this share of its length, what is left of a row of length n is rounding."""
    return 64 * np.finfo(float).eps * max(n, 16)


def inverse_skipping(r: np.ndarray) -> np.ndarray:
    """R⁻: forward substitution that skips coordinates with a zero on the diagonal."""
    kept = np.flatnonzero(np.diagonal(r))
    out = np.zeros_like(r)
    if len(kept):
        from scipy.linalg import solve_triangular

        part = r[np.ix_(kept, kept)]
        out[np.ix_(kept, kept)] = solve_triangular(part, np.eye(len(kept)), lower=True)
    return out


def innovations(r: np.ndarray, e: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, float]:
    """w with R w = e, and the log density of e ~ N(0, RRᵀ).

    ``scale`` (float[m]) is the size of the numbers whose difference e is. Coordinates that others
    determine have point masses. Raises :class:`OffSupport` if e contradicts one.
    """
    w = inverse_skipping(r) @ e
    determined = np.diagonal(r) == 0
    gap = np.abs(e - r @ w)
    allowed = 1e-12 + RELATIVE * (scale + np.abs(e) + np.abs(r) @ np.abs(w))
    bad = determined & (gap > allowed)
    if bad.any():
        first = int(np.argmax(bad))
        raise OffSupport(first, float(gap[first]))
    free = np.diagonal(r)[~determined]
    log = -0.5 * (w @ w + len(free) * np.log(2 * np.pi)) - np.log(free).sum()
    return w, float(log)


def narrow(factor: np.ndarray) -> np.ndarray:
    """A square root with no more columns than rows."""
    m, q = factor.shape
    if q <= m:
        return factor
    return np.asarray(np.linalg.qr(factor.T, mode="r")).T


def _block(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.zeros((a.shape[0] + b.shape[0], a.shape[1] + b.shape[1]))
    out[: a.shape[0], : a.shape[1]] = a
    out[a.shape[0] :, a.shape[1] :] = b
    return out
