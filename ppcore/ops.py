"""Array functions by name: what a deterministic box computes, in JAX.

A box's ``op`` is "numpy.exp", "numpy.linalg.solve", "scipy.special.expit", "getitem",
"ppcore.math.softmax", … The same names are looked up in torch by torch semantics.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from ppcore.errors import UnsupportedError

_JAX_MODULES = {
    "numpy": "jax.numpy",
    "numpy.linalg": "jax.numpy.linalg",
    "numpy.fft": "jax.numpy.fft",
    "scipy.special": "jax.scipy.special",
    "jax.nn": "jax.nn",
    "jax.scipy.linalg": "jax.scipy.linalg",
}
# Names that NumPy and JAX spell differently.
_ALIASES = {
    "scipy.special.psi": "scipy.special.digamma",
    "numpy.conjugate": "numpy.conj",
}


def _array(x: Any) -> Any:
    """x as JAX's array: NumPy's own would turn a traced index into a number."""
    import jax.numpy as jnp

    return jnp.asarray(x)


def _getitem(x: Any, index: Any) -> Any:
    return _array(x)[index]


def _set_at(x: Any, index: Any, value: Any) -> Any:
    return _array(x).at[index].set(value)


def _add_at(x: Any, index: Any, value: Any) -> Any:
    return _array(x).at[index].add(value)


def _astype(x: Any, dtype: str) -> Any:
    return _array(x).astype(dtype)


def _betaln(a: Any, b: Any) -> Any:
    """log B(a, b); JAX's own is right to six digits only where the larger argument exceeds 8."""
    from jax.scipy.special import gammaln

    return gammaln(a) + gammaln(b) - gammaln(a + b)


def _identity(x: Any) -> Any:
    return x


def _outer(op: str, a: Any, b: Any) -> Any:
    fn = jax_function(op)
    return fn(a.reshape(a.shape + (1,) * b.ndim), b)


_OWN: dict[str, Callable[..., Any]] = {
    "getitem": _getitem,
    "set_at": _set_at,
    "add_at": _add_at,
    "astype": _astype,
    "deterministic": _identity,
    "outer": _outer,
    "scipy.special.betaln": _betaln,
}


@cache
def jax_function(op: str) -> Callable[..., Any]:
    """The JAX function of that name.

    Raises :class:`UnsupportedError` if JAX has none, saying what to write instead.
    """
    if op in _OWN:
        return _OWN[op]
    op = _ALIASES.get(op, op)
    module, _, name = op.rpartition(".")
    if module in _JAX_MODULES:
        found = getattr(importlib.import_module(_JAX_MODULES[module]), name, None)
        if found is not None:
            return found  # type: ignore[no-any-return]
    raise UnsupportedError(
        f"{op} has no JAX equivalent, so a model cannot use it on random values. Write it with "
        "other array functions, or wrap it: pp.lift(fn, result=(shape, dtype))."
    )


def scipy_special_name(name: str) -> str | None:
    """The op for a SciPy ufunc of that name, or None if it is not one of scipy.special's."""
    import scipy.special

    return f"scipy.special.{name}" if hasattr(scipy.special, name) else None
