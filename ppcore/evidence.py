"""Data for a site, checked before they condition a model."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcore.diagram import Diagram
from ppcore.errors import EvidenceError
from ppcore.space import Space
from ppcore.supports import outside, phrase


def check_evidence(name: str, value: Any, space: Space, kind: str) -> np.ndarray:
    """The array for a site of distribution ``kind``, as its dtype.

    Raises :class:`EvidenceError` for data that are not numbers, masked, of another shape than the
    space's, NaN, or outside its support.
    """
    array = _array(name, value)
    if array.shape != space.shape:
        raise EvidenceError(
            f"Data for site {name!r} have shape {array.shape}, the site has shape {space.shape}. "
            "Check the plate sizes and the order of axes."
        )
    if array.dtype.kind == "f" and np.isnan(array).any():
        first = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
        raise EvidenceError(
            f"Data for site {name!r} hold NaN, first at index {first}. Drop those rows, or sample "
            "the missing values at a site of their own."
        )
    bad = outside(array, space.support)
    if bad is not None:
        raise EvidenceError(
            f"Data for site {name!r} ({kind}) hold {bad}, outside its support: they must be "
            f"{phrase(space.support)}. Check the units, or choose a distribution that allows it."
        )
    return array.astype(space.dtype)


def _array(name: str, value: Any) -> np.ndarray:
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if np.ma.is_masked(value):
        raise EvidenceError(
            f"Data for site {name!r} are a masked array. Drop the masked rows, or sample the "
            "missing values at a site of their own."
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise EvidenceError(
            f"Data for site {name!r} are no array of numbers: {str(error).splitlines()[0]}"
        ) from None
    if array.dtype.kind not in "biuf":
        raise EvidenceError(
            f"Data for site {name!r} have dtype {array.dtype}; convert them to numbers."
        )
    return array


def check_known_bounds(
    diagram: Diagram, data: tuple[Any, ...], name: str, value: np.ndarray, kind: str
) -> None:
    """Raise :class:`EvidenceError` for a value beyond bounds that other data decide."""
    from ppcore.semantics.known_support import outside_known

    found = outside_known(diagram, data, name, value)
    if found is not None:
        raise EvidenceError(
            f"Data for site {name!r} ({kind}) hold {found}. Check that the data that give the "
            "bound (the number of trials, say) belong to these."
        )
