"""Settings and arrays as plain data: for attributes of a fit, and to recognise a run again."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from typing import Any

import numpy as np

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def plain(value: Any) -> Any:
    """``value`` as JSON-able data that is the same in every process.

    Arrays become their shape, dtype and a digest; functions and classes their names.

    >>> plain({"step_size": 0.5, "dtype": np.float64})
    {'step_size': 0.5, 'dtype': 'numpy.float64'}
    """
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) and value.ndim == 0:
        return plain(value.item())
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(v) for v in value), key=repr)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": type_name(type(value)), **fields}
    if not isinstance(value, type) and hasattr(value, "__array__") and hasattr(value, "dtype"):
        array = np.asarray(value)
        return {"shape": list(array.shape), "dtype": str(array.dtype), "sha256": digest([array])}
    if hasattr(value, "__qualname__"):
        return type_name(value)
    return _ADDRESS.sub("", repr(value))


def engine_settings(engine: Any) -> dict[str, Any]:
    """The effective settings of an engine: its constructor's arguments, defaults included."""
    if dataclasses.is_dataclass(engine):
        names = [f.name for f in dataclasses.fields(engine) if f.init]
    else:
        names = sorted(getattr(engine, "__dict__", {}))
    return {name: plain(getattr(engine, name)) for name in names}


def type_name(kind: Any) -> str:
    """``module.qualified_name`` of a class or a function."""
    return f"{getattr(kind, '__module__', '?')}.{kind.__qualname__}"


def digest(arrays: list[Any]) -> str:
    """SHA-256 over shapes, dtypes and values."""
    total = hashlib.sha256()
    for value in arrays:
        array = np.ascontiguousarray(value)
        total.update(f"{array.dtype.str}{array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
