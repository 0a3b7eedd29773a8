"""Boxes given by tensors as categorical draws, so that every semantics can read them.

A stochastic tensor p(y_1 … y_m | x) is drawn one output after another,
p(y_i | x, y_1 … y_{i−1}); what it lacks to being normalised becomes a factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcore.causal.disintegrate import Cut, conditional_table, table_index, table_site
from ppcore.causal.do import computed_site
from ppcore.causal.rebuild import copy_nodes
from ppcore.diagram import Box, Diagram
from ppcore.errors import UnsupportedError
from ppcore.recording.record import record
from ppcore.recording.recorder import Recorder, recording
from ppcore.recording.sites import factor
from ppcore.recording.wire import Wire


def lower(diagram: Diagram, outputs: Sequence[str]) -> Cut:
    """The same kernel in boxes that can be drawn and scored, and its data, the tables.

    Inputs of the new diagram are the tables and then those of ``diagram``; its outputs are computed
    sites called ``outputs``. Wires of tensor boxes must be scalar.

    Raises :class:`UnsupportedError` for a tensor box with a wire that is an array.
    """
    recorder = Recorder()
    tables = [_tables(n.box) for n in diagram.nodes]
    with recording(recorder):
        rows = [[_wire(recorder, recorder.data_ref(t)) for t in ts] for ts in tables]
        inputs = [recorder.add_input(s).ref for s in diagram.dom]

        def change(k: int, box: Box, given: tuple[Any, ...]) -> list[Any] | None:
            if box.op != "stochastic":
                return None
            return _draws(
                box, f"{box.name or 'box'}.{k}", [_wire(recorder, r) for r in given], rows[k]
            )

        refs = copy_nodes(recorder, diagram, inputs, None, change)
        made = []
        for wire, name in zip(diagram.outputs, outputs, strict=True):
            value = _wire(recorder, refs[wire])
            made.append(computed_site(recorder, name, value).ref)
    out = recorder.freeze(made, tuple(outputs))
    return out, tuple(t for ts in tables for t in ts)


def _wire(recorder: Recorder, ref: Any) -> Wire:
    return Wire(recorder, ref, recorder.space(ref))


def _tables(box: Box) -> list[np.ndarray]:
    """Conditional tables of a tensor box's outputs, and the log of its mass if it has not one."""
    if box.op != "stochastic":
        return []
    if any(s.shape for s in (*box.dom, *box.cod)):
        raise UnsupportedError(
            f"Box {str(box)!r} has a wire that is an array; give it scalar wires."
        )
    table, k = box.spec.array(), len(box.dom)
    parts = [
        conditional_table(table.sum(axis=tuple(range(i + 1, table.ndim))), i)
        for i in range(k, table.ndim)
    ]
    if box.normalized:
        return parts
    with np.errstate(divide="ignore"):
        return [*parts, np.log(table.sum(axis=tuple(range(k, table.ndim))))]


def _draws(box: Box, name: str, given: list[Wire], rows: list[Wire]) -> list[Any]:
    wires = list(given)
    for j, space in enumerate(box.cod):
        wires.append(table_site(f"{name}.{j}", rows[j], wires, space))
    if not box.normalized:
        mass = record("getitem", (rows[-1], table_index(given)), {}) if given else rows[-1]
        factor(f"{name}.mass", mass)
    return [w.ref for w in wires[len(given) :]]
