"""Functions for models that NumPy lacks or that do not dispatch on random values.

Each records one deterministic box. Everything else is plain NumPy: ``np.exp``, ``np.linalg.solve``,
``scipy.special.expit``, …
"""

from __future__ import annotations

from typing import Any

from ppcore.errors import UnknownNameError, did_you_mean
from ppcore.recording.record import record
from ppcore.recording.wire import Wire


def softmax(x: Any, axis: int = -1) -> Wire:
    """exp(x) normalised to sum to one along ``axis``."""
    return record("jax.nn.softmax", (x,), {"axis": axis})  # type: ignore[no-any-return]


def log_softmax(x: Any, axis: int = -1) -> Wire:
    """log of :func:`softmax`, without overflow."""
    return record("jax.nn.log_softmax", (x,), {"axis": axis})  # type: ignore[no-any-return]


def logsumexp(x: Any, axis: int | None = None, keepdims: bool = False) -> Wire:
    """log Σ exp(x) along ``axis`` (all axes by default), without overflow."""
    return record("scipy.special.logsumexp", (x,), {"axis": axis, "keepdims": keepdims})  # type: ignore[no-any-return]


def sigmoid(x: Any) -> Wire:
    """1 / (1 + exp(−x)); the inverse of the logit."""
    return record("jax.nn.sigmoid", (x,), {})  # type: ignore[no-any-return]


def log_sigmoid(x: Any) -> Wire:
    """log of :func:`sigmoid`, without underflow."""
    return record("jax.nn.log_sigmoid", (x,), {})  # type: ignore[no-any-return]


def softplus(x: Any) -> Wire:
    """log(1 + exp(x)), positive."""
    return record("jax.nn.softplus", (x,), {})  # type: ignore[no-any-return]


def relu(x: Any) -> Wire:
    """max(x, 0)."""
    return record("jax.nn.relu", (x,), {})  # type: ignore[no-any-return]


def one_hot(x: Any, num_classes: int) -> Wire:
    """Integer codes 0 … num_classes − 1 as unit vectors on a new last axis."""
    return record("jax.nn.one_hot", (x, num_classes), {})  # type: ignore[no-any-return]


def solve_triangular(a: Any, b: Any, lower: bool = False) -> Wire:
    """x with a x = b for a triangular matrix a."""
    return record("jax.scipy.linalg.solve_triangular", (a, b), {"lower": lower})  # type: ignore[no-any-return]


def cho_solve(chol: Any, b: Any) -> Wire:
    """x with (L Lᵀ) x = b for a lower Cholesky factor L."""
    half = solve_triangular(chol, b, lower=True)
    return solve_triangular(chol.swapaxes(-1, -2), half, lower=False)


def get_at(x: Any, index: Any) -> Wire:
    """``x[index]`` where x may be plain data and the index (or a tuple of them) random.

    >>> import numpy as np
    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def rain(table):
    ...     cloudy = pp.sample("cloudy", dist.Bernoulli(0.5))
    ...     pp.sample("rain", dist.Bernoulli(pp.math.get_at(table, cloudy)))
    >>> rain(np.array([0.1, 0.8]))
    <model rain: cloudy, rain>
    """
    return record("getitem", (x, index), {})  # type: ignore[no-any-return]


def set_at(x: Any, index: Any, value: Any) -> Wire:
    """A copy of x with ``x[index] = value``."""
    return record("set_at", (x, index, value), {})  # type: ignore[no-any-return]


def add_at(x: Any, index: Any, value: Any) -> Wire:
    """A copy of x with ``value`` added at ``index``; repeated indices add up."""
    return record("add_at", (x, index, value), {})  # type: ignore[no-any-return]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    known = [n for n, v in globals().items() if getattr(v, "__module__", None) == __name__]
    raise UnknownNameError(f"ppcore.math has no {name!r}. {did_you_mean(name, known)}")
