"""Which values lie outside a support; for checking data, in plain NumPy."""

from __future__ import annotations

import numpy as np

from ppcore.space import Support


def outside(array: np.ndarray, support: Support) -> str | None:
    """A phrase naming a value of ``array`` outside ``support``, or None if there is none.

    >>> outside(np.array([1.0, -2.0]), Support("positive", lower=0.0))
    '-2.0 at index (1,)'
    """
    if support.discrete and array.dtype.kind == "f":
        bad = array != np.round(array)
        if bad.any():
            return _first(array, bad)
    elementwise = support.name not in _MATRIX_CHECKS and support.name not in _VECTOR_CHECKS
    if elementwise:
        bad = np.zeros(array.shape, bool)
        if not np.isfinite(array).all():
            bad |= ~np.isfinite(array)
        if support.name == "boolean":
            bad |= (array != 0) & (array != 1)
        if support.lower is not None:
            strict = support.name == "positive"
            bad |= (array <= support.lower) if strict else (array < support.lower)
        if support.upper is not None:
            strict = support.name == "less_than"
            bad |= (array >= support.upper) if strict else (array > support.upper)
        return _first(array, bad) if bad.any() else None
    check = {**_VECTOR_CHECKS, **_MATRIX_CHECKS}[support.name]
    bad = ~check(array)
    if not np.any(bad):
        return None
    at = tuple(int(i) for i in np.argwhere(np.atleast_1d(bad))[0]) if np.ndim(bad) else ()
    return f"{array[at]} at index {at}"


def _first(array: np.ndarray, bad: np.ndarray) -> str:
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    return f"{array[at]} at index {at}"


def _simplex(a: np.ndarray) -> np.ndarray:
    return (a >= 0).all(-1) & (np.abs(a.sum(-1) - 1) < 1e-6)


def _ordered(a: np.ndarray) -> np.ndarray:
    return np.asarray((np.diff(a, axis=-1) > 0).all(-1))


def _positive_definite(a: np.ndarray) -> np.ndarray:
    symmetric = np.isclose(a, np.swapaxes(a, -1, -2)).all((-1, -2))
    return symmetric & (np.linalg.eigvalsh(a) > 0).all(-1)


def _lower_cholesky(a: np.ndarray) -> np.ndarray:
    triangular = np.isclose(a, np.tril(a)).all((-1, -2))
    return triangular & (np.diagonal(a, axis1=-2, axis2=-1) > 0).all(-1)


_VECTOR_CHECKS = {
    "simplex": _simplex,
    "ordered": _ordered,
    "positive_ordered": lambda a: _ordered(a) & (a > 0).all(-1),
    "sphere": lambda a: np.isclose((a**2).sum(-1), 1),
    "zero_sum": lambda a: np.isclose(a.sum(-1), 0),
}
_MATRIX_CHECKS = {
    "positive_definite": _positive_definite,
    "corr_matrix": lambda a: (
        _positive_definite(a) & np.isclose(np.diagonal(a, axis1=-2, axis2=-1), 1).all(-1)
    ),
    "lower_cholesky": _lower_cholesky,
    "scaled_unit_lower_cholesky": _lower_cholesky,
    "corr_cholesky": lambda a: _lower_cholesky(a) & np.isclose((a**2).sum(-1), 1).all(-1),
}
