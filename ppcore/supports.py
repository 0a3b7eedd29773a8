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
            strict = support.name in ("positive", "softplus_positive", "open_interval")
            bad |= (array <= support.lower) if strict else (array < support.lower)
        if support.upper is not None:
            strict = support.name in ("less_than", "open_interval")
            bad |= (array >= support.upper) if strict else (array > support.upper)
        return _first(array, bad) if bad.any() else None
    check = {**_VECTOR_CHECKS, **_MATRIX_CHECKS}[support.name]
    bad = ~check(array)
    if support.name == "multinomial" and support.upper is not None:
        bad |= array.sum(-1) != support.upper
    if not np.any(bad):
        return None
    return _first(array, np.asarray(bad))


_PHRASES = {
    "positive": "greater than {lower}",
    "greater_than_eq": "at least {lower}",
    "nonnegative": "at least {lower}",
    "less_than": "less than {upper}",
    "less_than_eq": "at most {upper}",
    "unit_interval": "between {lower} and {upper}",
    "interval": "between {lower} and {upper}",
    "open_interval": "strictly between {lower} and {upper}",
    "circular": "an angle between {lower} and {upper}",
    "boolean": "0 or 1",
    "integer": "an integer",
    "integer_nonnegative": "an integer of at least {lower}",
    "integer_positive": "an integer of at least {lower}",
    "integer_above": "an integer of at least {lower}",
    "integer_interval": "an integer from {lower} to {upper}",
    "multinomial": "counts that sum to {upper}",
    "real": "finite",
    "simplex": "non-negative and sum to 1",
    "ordered": "in increasing order",
    "positive_ordered": "positive and in increasing order",
    "sphere": "of length 1",
    "zero_sum": "numbers that sum to 0",
    "positive_definite": "a symmetric positive definite matrix",
    "corr_matrix": "a correlation matrix",
    "lower_cholesky": "lower triangular with a positive diagonal",
    "corr_cholesky": "the Cholesky factor of a correlation matrix",
}
_REMEDIES = {
    "positive": "np.exp makes a positive number of any real one.",
    "unit_interval": "scipy.special.expit maps any real number into (0, 1).",
    "simplex": "Divide by the sum, or give logits instead of probabilities.",
    "ordered": "Sort them.",
    "positive_definite": "Add a small multiple of np.eye(n) if it nearly is.",
    "lower_cholesky": "np.linalg.cholesky of a covariance matrix is.",
}


def phrase(support: Support) -> str:
    """What values in a support are, after "must be".

    >>> phrase(Support("unit_interval", 0.0, 1.0))
    'between 0 and 1'
    """
    bounds = (support.lower, support.upper)
    low, high = ("a bound" if b is None else f"{b:g}" for b in bounds)
    words = _PHRASES.get(support.name, str(support).replace("_", " "))
    return words.format(lower=low, upper=high)


def remedy(support: Support) -> str:
    """What to do about a parameter that is not."""
    return _REMEDIES.get(support.name, "Change it.")


def _first(array: np.ndarray, bad: np.ndarray) -> str:
    at = tuple(int(i) for i in np.argwhere(bad)[0])
    with np.printoptions(threshold=8, edgeitems=2):
        shown = " ".join(str(array[at]).split())
    return f"{shown} at index {at}" if at else shown


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
    "multinomial": lambda a: (a >= 0).all(-1),
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
