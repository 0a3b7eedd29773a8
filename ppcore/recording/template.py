"""Arguments of a box as a hashable template with holes where wires and arrays go."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.diagram import Hole
from ppcore.dist import Description
from ppcore.errors import ModelError


@dataclass(frozen=True)
class StaticArray:
    """A small array that decides shapes, kept by value."""

    shape: tuple[int, ...]
    dtype: str
    data: bytes

    @classmethod
    def of(cls, array: np.ndarray) -> StaticArray:
        return cls(array.shape, array.dtype.str, array.tobytes())

    def array(self) -> np.ndarray:
        return np.frombuffer(self.data, self.dtype).reshape(self.shape)


@dataclass(frozen=True)
class Structure:
    """A list, tuple, dict or slice of templates, or a description of a distribution."""

    kind: str
    keys: tuple[Any, ...]
    items: tuple[Any, ...]


def is_array(value: Any) -> bool:
    """Whether a value is an array of numbers (NumPy's, JAX's, or another library's)."""
    if isinstance(value, (np.ndarray, np.generic)):
        return True
    return hasattr(value, "__array__") and hasattr(value, "dtype") and hasattr(value, "shape")


def to_template(value: Any, leaf: Callable[[Any], Any]) -> Any:
    """Replace every wire and array in ``value`` by what ``leaf`` returns; freeze the rest.

    ``leaf`` returns a :class:`Hole` (or :class:`StaticArray`) for wires and arrays, and None for
    anything else.
    """
    made = leaf(value)
    if made is not None:
        return made
    if isinstance(value, Description):
        return Structure(
            f"describe:{value.kind}:{value.name}",
            tuple(k for k, _ in value.arguments),
            tuple(to_template(v, leaf) for _, v in value.arguments),
        )
    if isinstance(value, (list, tuple)):
        kind = "list" if isinstance(value, list) else "tuple"
        return Structure(kind, (), tuple(to_template(v, leaf) for v in value))
    if isinstance(value, dict):
        items = tuple(to_template(v, leaf) for v in value.values())
        return Structure("dict", tuple(value), items)
    if isinstance(value, slice):
        parts = (value.start, value.stop, value.step)
        return Structure("slice", (), tuple(to_template(v, leaf) for v in parts))
    try:
        hash(value)
    except TypeError:
        raise ModelError(
            f"A value of type {type(value).__name__} cannot be recorded in a model. "
            "Convert it to a NumPy array first."
        ) from None
    return value


def from_template(template: Any, values: Any) -> Any:
    """The arguments again, holes filled with ``values[index]``; descriptions stay descriptions."""
    if isinstance(template, Hole):
        return values[template.index]
    if isinstance(template, StaticArray):
        return template.array()
    if not isinstance(template, Structure):
        return template
    items = [from_template(t, values) for t in template.items]
    if template.kind.startswith("describe:"):
        _, kind, name = template.kind.split(":")
        return Description(kind, name, tuple(zip(template.keys, items, strict=True)))
    if template.kind == "dict":
        return dict(zip(template.keys, items, strict=True))
    if template.kind == "slice":
        return slice(*items)
    return items if template.kind == "list" else tuple(items)
