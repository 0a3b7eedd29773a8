"""Nested state as named arrays and a JSON-able outline: stored without pickle, so safe to read.

The outline is a tree of ``[kind, ...]`` nodes: containers list their parts, leaves name an array
or hold a plain number. Named tuples and dataclasses are found again by module and name, and only
those can be: reading a file calls no function that the file chooses.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppcore.errors import UnsupportedError

Outline = list[Any]


def encode(state: Any, arrays: dict[str, np.ndarray]) -> Outline:
    """The outline of ``state``; its arrays are added to ``arrays`` under new names.

    Raises :class:`~ppcore.errors.UnsupportedError` for a node that is neither a container, a
    dataclass, an array nor a plain value.
    """
    if state is None or isinstance(state, (bool, int, float, str)):
        return ["value", state]
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return ["namedtuple", *_name(state), [encode(v, arrays) for v in state]]
    if isinstance(state, (tuple, list)):
        return [type(state).__name__, [encode(v, arrays) for v in state]]
    if isinstance(state, dict) and all(isinstance(k, str) for k in state):
        return ["dict", [[k, encode(v, arrays)] for k, v in state.items()]]
    if dataclasses.is_dataclass(state) and not isinstance(state, type):
        values = [[f.name, getattr(state, f.name)] for f in dataclasses.fields(state)]
        return ["dataclass", *_name(state), [[k, encode(v, arrays)] for k, v in values]]
    if hasattr(state, "dtype") and hasattr(state, "shape"):
        return _encode_array(state, arrays)
    raise UnsupportedError(
        f"A checkpoint cannot hold {type(state).__name__}, which the engine keeps in its state. "
        "State is made of arrays, numbers, tuples, dicts and dataclasses; run without checkpoint=."
    )


def decode(outline: Outline, arrays: Mapping[str, np.ndarray]) -> Any:
    """The state that :func:`encode` outlined, its arrays as JAX arrays."""
    import jax
    import jax.numpy as jnp

    kind, *rest = outline
    if kind == "value":
        return rest[0]
    if kind in ("tuple", "list"):
        parts = [decode(v, arrays) for v in rest[0]]
        return tuple(parts) if kind == "tuple" else parts
    if kind == "dict":
        return {k: decode(v, arrays) for k, v in rest[0]}
    if kind == "namedtuple":
        return _find(rest[0], rest[1])(*[decode(v, arrays) for v in rest[2]])
    if kind == "dataclass":
        made = object.__new__(_find(rest[0], rest[1]))
        for name, value in rest[2]:
            object.__setattr__(made, name, decode(value, arrays))
        return made
    if kind == "key":
        return jax.random.wrap_key_data(jnp.asarray(arrays[rest[0]]), impl=rest[1])
    array = arrays[rest[0]].view(np.dtype(rest[1])).reshape(rest[2])
    return array if kind == "numpy" else jnp.asarray(array)


def _encode_array(value: Any, arrays: dict[str, np.ndarray]) -> Outline:
    import jax

    name = f"a{len(arrays)}"
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        arrays[name] = np.asarray(jax.random.key_data(value))
        return ["key", name, str(jax.random.key_impl(value))]
    array = np.ascontiguousarray(value)
    shape = list(np.shape(value))
    # As bytes, because a .npy file loses the name of dtypes that NumPy does not have (bfloat16).
    arrays[name] = array.reshape(-1).view(np.uint8)
    return [
        "numpy" if isinstance(value, (np.ndarray, np.generic)) else "jax",
        name,
        str(array.dtype),
        shape,
    ]


def _name(state: Any) -> tuple[str, str]:
    return type(state).__module__, type(state).__qualname__


def _find(module: str, name: str) -> Any:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    known = isinstance(found, type) and (
        dataclasses.is_dataclass(found) or (issubclass(found, tuple) and hasattr(found, "_fields"))
    )
    if not known:
        raise UnsupportedError(
            f"The checkpoint holds a {module}.{name}, which is no dataclass or named tuple here. "
            "It was written by another version of the engine; start again with a new path."
        )
    return found
