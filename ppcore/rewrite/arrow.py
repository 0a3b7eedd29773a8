"""Sums of squares of affine predictors, reduced to triangles: one for each group, one for the rest.

For observations y ~ N(Z a + D b, s c) where row n of Z touches only group j(n), orthogonal
transformations of the rows give, with nothing squared,
Σ_n ((y_n − z_n·a_j(n) − D_n·b) / c_n)² = Σ_j |R_j a_j + E_j b − f_j|² + |R b − f|² + rss:
K rows a group, q rows for all, and one number. Source: Björck, "Numerical Methods for Least Squares
Problems" (1996), doi:10.1137/1.9781611971484, section 6.3 (block angular QR).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

CHUNK = 1 << 13  # numbers reduced at a time: they fit a cache, and no thread is started for them


@dataclass(frozen=True, eq=False)
class Arrow:
    """The reduced rows of n observations.

    Attributes
    ----------
    own, cross, own_rhs : float[J, K, K], float[J, K, q], float[J, K]
        R_j, E_j and f_j.
    rest, rest_rhs : float[q, q], float[q]
        R and f.
    rss : float
        What no coefficients can remove.
    """

    own: np.ndarray
    cross: np.ndarray
    own_rhs: np.ndarray
    rest: np.ndarray
    rest_rhs: np.ndarray
    rss: float


def reduce(
    n: int,
    dense: Callable[[slice], np.ndarray],
    columns: int,
    index: np.ndarray | None = None,
    groups: int = 0,
    slopes: Sequence[np.ndarray] = (),
) -> Arrow:
    """The arrow of ``n`` rows.

    Parameters
    ----------
    dense : callable
        slice -> float[rows, q + 1]: D and, last, y, both divided by c.
    columns : int
        q + 1.
    index : int[n]
        The group of every row.
    groups : int
        J.
    slopes : K arrays float[n] or float[]
        The columns of Z, divided by c.

    >>> arrow = reduce(2, lambda rows: np.array([[1.0, 1.0], [1.0, 3.0]])[rows], 2)
    >>> np.abs(arrow.rest_rhs / arrow.rest[0]).round(6), round(arrow.rss, 6)
    (array([2.]), 2.0)
    """
    k, q = len(slopes), columns - 1
    own, cross = np.zeros((groups, k, k)), np.zeros((groups, k, q))
    own_rhs = np.zeros((groups, k))
    if not k:
        r = _triangle(n, dense, columns)
    else:
        assert index is not None
        work = np.concatenate(
            [np.stack(np.broadcast_arrays(*slopes, np.zeros(n))[:-1], 1), dense(slice(0, n))], 1
        )
        for i in range(k):
            rows = _eliminate(work, i, index, groups)
            own[:, i, i:] = rows[:, i:k]
            cross[:, i], own_rhs[:, i] = rows[:, k:-1], rows[:, -1]
        r = _triangle(n, lambda rows: work[rows, k:], columns)
    return Arrow(own, cross, own_rhs, r[:q, :q], r[:q, q], float(r[q, q] ** 2))


def _eliminate(work: np.ndarray, i: int, index: np.ndarray, groups: int) -> np.ndarray:
    """One row a group from column ``i``, in place: the columns behind lose their part along it."""

    def total(column: np.ndarray) -> np.ndarray:
        return np.bincount(index, column, groups)

    z = work[:, i].copy()
    length = np.sqrt(total(z * z))
    z /= np.where(length > 0, length, 1.0)[index]
    rows = np.zeros((groups, work.shape[1]))
    rows[:, i] = length
    for j in range(i + 1, work.shape[1]):
        for _ in range(2):  # the second pass removes what rounding left of the first
            part = total(z * work[:, j])
            work[:, j] -= part[index] * z
            rows[:, j] += part
    work[:, i] = 0.0
    return rows


def _triangle(n: int, dense: Callable[[slice], np.ndarray], columns: int) -> np.ndarray:
    """The triangle of a QR decomposition, chunk by chunk; float[columns, columns]."""
    r = np.zeros((columns, columns))
    step = max(CHUNK // columns, 4 * columns)
    for start in range(0, n, step):
        rows = np.concatenate([r, dense(slice(start, min(start + step, n)))])
        r = np.asarray(np.linalg.qr(rows, mode="r"))
    return r


def normal_arrow(*values: Any, groups: int) -> Any:
    """Σ log N(y_n; (Z a + D b)_n, s c_n) from an arrow; float[].

    ``values``: R, f, (rss, n, constant), s; with K = ``groups`` > 0 then R_j, E_j, f_j; then K
    atoms a and any number of atoms b, which are flattened and joined.
    """
    import jax.numpy as jnp

    rest, rest_rhs, tail, scale = values[:4]
    own, atoms = (values[4:7], values[7:]) if groups else ((), values[4:])
    s = jnp.reshape(scale, ())
    b = jnp.concatenate([jnp.zeros(0, rest.dtype), *(jnp.ravel(v) for v in atoms[groups:])])
    squares = tail[0] + jnp.sum((rest @ b - rest_rhs) ** 2)
    if groups:
        a = jnp.stack([jnp.ravel(v) for v in atoms[:groups]], -1)
        rows = jnp.sum(own[0] * a[:, None, :], -1) + own[1] @ b - own[2]
        squares = squares + jnp.sum(rows**2)
    return -0.5 * squares / s**2 - tail[1] * jnp.log(s) - tail[2]


def tail(arrow: Arrow, n: int, log_scales: float) -> np.ndarray:
    """(rss, n, n/2 log 2π + Σ log c): what :func:`normal_arrow` needs besides the rows."""
    return np.array([arrow.rss, n, 0.5 * n * math.log(2 * math.pi) + log_scales])
