"""Double precision for ppcore's own computations, without touching the process's JAX setting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ppcore.errors import SettingsError, did_you_mean

PRECISIONS = ("float32", "float64")


@contextmanager
def scope(precision: str = "float64") -> Iterator[None]:
    """Inside, JAX traces and computes in ``precision`` in this thread only.

    >>> import jax.numpy as jnp
    >>> with scope("float64"):
    ...     jnp.zeros(1).dtype
    dtype('float64')
    """
    import jax

    if precision not in PRECISIONS:
        hint = did_you_mean(str(precision), PRECISIONS)
        raise SettingsError(f"precision={precision!r} is not known. {hint}")
    with jax.enable_x64(precision == "float64"):
        yield
