"""A linear-Gaussian kernel as a box: x ↦ N(Ax + b, LLᵀ) over the flattened elements of wires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.errors import ModelError, ShapeError
from ppcore.recording.template import StaticArray
from ppcore.space import Space


def linear_gaussian(
    matrix: Any,
    offset: Any,
    factor: Any = None,
    dom: Sequence[int | Space] = (),
    cod: Sequence[int | Space] = (),
    name: str | None = None,
) -> Diagram:
    """The diagram of one box y = Ax + b + Lε, ε ~ N(0, I).

    Parameters
    ----------
    matrix, offset, factor : float[m, n], float[m], float[m, q]
        A, b and L; without ``factor`` the box is deterministic.
    dom, cod : sequences of int or Space
        Wires of n and m elements in total; an int k is a vector of length k.
    name : str
        Unique among boxes with noise; may be left out for a deterministic one.

    Raises
    ------
    ShapeError
        The matrices do not fit the wires.
    ModelError
        A box with noise has no name.

    >>> linear_gaussian(np.eye(2), np.zeros(2), None, (2,), (2,)).nodes[0].box.deterministic
    True
    """
    wires = [
        tuple(Space((s,)) if isinstance(s, int) else s for s in spaces) for spaces in (dom, cod)
    ]
    n, m = (sum(s.size for s in spaces) for spaces in wires)
    a, b = np.asarray(matrix, float), np.asarray(offset, float)
    root = np.zeros((m, 0)) if factor is None else np.asarray(factor, float)
    if a.shape != (m, n) or b.shape != (m,) or root.ndim != 2 or len(root) != m:
        raise ShapeError(
            f"Box {name or 'linear_gaussian'}: wires of {n} and {m} elements need A[{m}, {n}], "
            f"b[{m}] and L[{m}, any]; these are {a.shape}, {b.shape} and {root.shape}."
        )
    noisy = bool(root.any())
    if noisy and name is None:
        raise ModelError("A box with noise needs a name of its own: linear_gaussian(…, name=…).")
    spec = tuple(StaticArray.of(np.ascontiguousarray(v)) for v in (a, b, root))
    return Diagram.of(
        Box("linear_gaussian", wires[0], wires[1], spec=spec, name=name, deterministic=not noisy)
    )


def apply_box(box: Box, values: Sequence[Any], noise: Any) -> list[Any]:
    """Ax + b + Lε of such a box, in JAX."""
    import jax.numpy as jnp

    matrix, offset, factor = (s.array() for s in box.spec)
    x = jnp.concatenate([jnp.zeros(0), *(jnp.ravel(v) for v in values)])
    y = matrix @ x + offset + factor @ noise
    out, at = [], 0
    for space in box.cod:
        out.append(y[at : at + space.size].reshape(space.shape))
        at += space.size
    return out
