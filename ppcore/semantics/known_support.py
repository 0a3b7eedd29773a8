"""Supports whose bounds data decide: whether an observed value lies inside, told beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcore.diagram import Diagram
from ppcore.dist import build
from ppcore.recording.record import evaluate
from ppcore.recording.template import from_template


def outside_known(
    diagram: Diagram, data: tuple[Any, ...], name: str, value: np.ndarray
) -> str | None:
    """A phrase naming an element of ``value`` beyond bounds that data alone decide, or None.

    None too if the bounds depend on random values, or the site is inside a scan: such a density is
    −inf outside. Binomial(total_count=n, …) with data n is the usual case.
    """
    import jax

    from ppcore import precision

    node = next((n for n in diagram.nodes if n.box.name == name and n.box.op == "sample"), None)
    if node is None:
        return None
    with precision.scope("float64"):
        known = [_value(diagram, data, wire) for wire in node.inputs]
        found: list[Any] = []

        def run(unknown: Any) -> int:
            values = [u if k is None else k for u, k in zip(unknown, known, strict=True)]
            # Known values stay numbers, so that bounds that only they decide do too.
            with jax.ensure_compile_time_eval():
                d = build(from_template(node.box.spec[0], values), lambda v: v)
                found.extend(_bounds(d.support))
            return 0

        spaces = [jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in node.box.dom]
        jax.eval_shape(run, spaces)
        low, high = (None if isinstance(b, jax.core.Tracer) else b for b in found)
        for bound, beyond, word in ((low, np.less, "below"), (high, np.greater, "above")):
            if bound is None or np.ndim(bound) > value.ndim:
                continue
            limit = np.broadcast_to(np.asarray(bound), value.shape)
            if beyond(value, limit).any():
                at = tuple(int(i) for i in np.argwhere(beyond(value, limit))[0])
                where = f" at index {at}" if at else ""
                return f"{value[at]}{where}, {word} its bound {limit[at]}"
    return None


def _bounds(constraint: Any) -> tuple[Any, Any]:
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    if constraint.event_dim:
        return None, None
    return getattr(constraint, "lower_bound", None), getattr(constraint, "upper_bound", None)


def _value(diagram: Diagram, data: tuple[Any, ...], wire: int) -> Any:
    """The array on a wire if data decide it, else None."""
    import jax.numpy as jnp

    if wire < len(diagram.dom):
        return jnp.asarray(data[wire])
    at = len(diagram.dom)
    for node in diagram.nodes:
        if wire < at + len(node.box.cod):
            break
        at += len(node.box.cod)
    if not node.box.deterministic or node.box.body is not None:
        return None
    values = [_value(diagram, data, i) for i in node.inputs]
    return None if any(v is None for v in values) else evaluate(node.box, values)[wire - at]
