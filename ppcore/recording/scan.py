"""``pp.scan``: a Markov chain as one box with a sub-diagram."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.diagram import Box
from ppcore.errors import ModelError, ShapeError
from ppcore.recording.record import as_wire, record
from ppcore.recording.recorder import Recorder, recording, require, user_line
from ppcore.recording.wire import Wire
from ppcore.space import Space


@dataclass(frozen=True)
class ScanSpec:
    """How a scan box's wires are grouped.

    Box inputs: ``carry`` initial values, ``xs`` stacked inputs, then captured wires. Body inputs:
    the same with one element of each x. Body outputs: new carry, ``ys``, then one per site; box
    outputs: final carry, stacked ys, stacked sites.
    """

    length: int
    carry: int
    xs: int
    ys: int
    reverse: bool = False


def scan(
    step: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Run ``carry, y = step(carry, x)`` along the leading axis of ``xs``; sites inside are stacked.

    The chain stays one box with a sub-diagram, which particle filters and exact recursions use.
    A site ``z`` sampled in ``step`` becomes a site of shape ``[length, *shape]``.

    Parameters
    ----------
    step : callable
        ``(carry, x) -> (carry, y)``; carry, x and y may be wires, or tuples, lists or dicts of
        them, or None.
    init : wires or arrays
        The first carry.
    xs : arrays or wires, optional
        Stacked inputs, all with the same leading length.
    length : int, optional
        Number of steps; needed when ``xs`` is None.
    reverse : bool
        Run from the last element to the first.

    Returns
    -------
    (carry, ys)
        The last carry, and the stacked ys.

    Raises
    ------
    ShapeError
        The carry changes its structure, shape or dtype, or the leading lengths differ.
    """
    import jax

    recorder = require("scan")
    init_leaves, carry_tree = jax.tree_util.tree_flatten(init, is_leaf=_is_wire)
    x_leaves, x_tree = jax.tree_util.tree_flatten(xs, is_leaf=_is_wire)
    carry_wires = [as_wire(v) for v in init_leaves]
    x_wires = [as_wire(v) for v in x_leaves]
    steps = _length(x_wires, length)
    names_before = dict(recorder.names)
    body, captured, out_tree, y_tree, n_y, sites = _record_body(
        recorder, step, carry_wires, carry_tree, x_wires, x_tree
    )
    if out_tree != carry_tree:
        raise ShapeError(
            f"{user_line()}: the carry of a scan goes in as {_shown(carry_tree)} and comes "
            f"out as {_shown(out_tree)}; return it in the same structure."
        )
    k = len(carry_wires)
    for i, (before, after) in enumerate(zip(carry_wires, body.cod[:k], strict=True)):
        if before.shape != after.shape:
            raise ShapeError(
                f"{user_line()}: leaf {i} of a scan's carry goes in with shape {before.shape} and "
                f"comes out with {after.shape}; start it with the shape it keeps."
            )
        if before.space.dtype != after.dtype:
            if np.result_type(before.dtype, after.dtype) != np.dtype(after.dtype):
                raise ShapeError(
                    f"{user_line()}: leaf {i} of a scan's carry goes in as {before.space.dtype} "
                    f"and comes out as {after.dtype}."
                )
            promoted = [
                record("astype", (w, s.dtype), {}) if w.space.dtype != s.dtype else w
                for w, s in zip(carry_wires, body.cod[:k], strict=True)
            ]
            recorder.names.clear()
            recorder.names.update(names_before)
            init = jax.tree_util.tree_unflatten(carry_tree, promoted)
            return scan(step, init, xs, length, reverse)
    spec = ScanSpec(steps, k, len(x_wires), n_y, reverse)
    stacked = tuple(Space((steps, *s.shape), s.dtype, s.support) for s in body.cod[k:])
    final = tuple(body.cod[:k])
    inputs = [recorder.ref(w) for w in (*carry_wires, *x_wires, *captured)]
    box = Box(
        "scan",
        tuple(recorder.space(r) for r in inputs),
        final + stacked,
        spec=spec,
        deterministic=all(b.deterministic for b in body.boxes()),
        normalized=all(b.normalized for b in body.boxes()),
        plates=recorder.plates,
        body=body,
    )
    wires = recorder.add(box, tuple(inputs))
    for name, wire in zip(sites, wires[k + n_y :], strict=True):
        recorder.sites.append((name, wire.ref))
    carry = jax.tree_util.tree_unflatten(carry_tree, wires[:k])
    return carry, jax.tree_util.tree_unflatten(y_tree, wires[k : k + n_y])


def _shown(tree: Any) -> str:
    """A pytree's structure, * for each array."""
    return str(tree).removeprefix("PyTreeDef(").removesuffix(")")


def _is_wire(value: Any) -> bool:
    return isinstance(value, Wire)


def _length(xs: list[Wire], length: int | None) -> int:
    lengths = {w.shape[0] for w in xs if w.shape}
    if length is not None:
        lengths.add(int(length))
    if any(not w.shape for w in xs):
        raise ShapeError(f"{user_line()}: an input of a scan is a scalar; xs need a leading axis.")
    if len(lengths) != 1:
        detail = f"different leading lengths {sorted(lengths)}" if lengths else "no length"
        raise ShapeError(
            f"{user_line()}: a scan is given {detail}; pass xs of one length or length=."
        )
    return lengths.pop()


def _record_body(
    recorder: Recorder,
    step: Any,
    carry: list[Wire],
    carry_tree: Any,
    xs: list[Wire],
    x_tree: Any,
) -> Any:
    import jax

    inner = Recorder(parent=recorder)
    # The step sees values in the state space of the carry, which need not be the start's support.
    carry_in = [inner.add_input(_natural(w.space)) for w in carry]
    x_in = [inner.add_input(Space(w.shape[1:], w.space.dtype, w.space.support)) for w in xs]
    with recording(inner):
        result = step(
            jax.tree_util.tree_unflatten(carry_tree, carry_in),
            jax.tree_util.tree_unflatten(x_tree, x_in),
        )
        if not isinstance(result, tuple) or len(result) != 2:
            raise ModelError(
                f"{user_line()}: the step of a scan must return (carry, y); y may be None."
            )
        out, out_tree = jax.tree_util.tree_flatten(result[0], is_leaf=_is_wire)
        ys, y_tree = jax.tree_util.tree_flatten(result[1], is_leaf=_is_wire)
        out_refs = [inner.ref(as_wire(v)) for v in out]
        y_refs = [inner.ref(as_wire(v)) for v in ys]
    names: tuple[str | None, ...] = (None,) * (len(out) + len(ys))
    site_names = [n for n, _ in inner.sites]
    refs = out_refs + y_refs + [r for _, r in inner.sites]
    body = inner.freeze(refs, names + tuple(site_names))
    captured = [wire for wire, _ in inner.captured.values()]
    return body, captured, out_tree, y_tree, len(ys), site_names


def _natural(space: Space) -> Space:
    from ppcore.space import natural_space

    return natural_space(space.shape, space.dtype)
