"""Copy a diagram box by box into a recorder, changing some boxes on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.errors import ModelError, did_you_mean
from ppcore.recording.recorder import Recorder
from ppcore.recording.wire import Wire
from ppcore.space import Space

SITES = ("sample", "deterministic")


def copy_nodes(
    recorder: Recorder,
    diagram: Diagram,
    inputs: Sequence[Any],
    order: Iterable[int] | None = None,
    change: Callable[[int, Box, tuple[Any, ...]], Sequence[Any] | None] | None = None,
) -> list[Any]:
    """Add the nodes of ``diagram`` to ``recorder``; returns the reference of every wire.

    ``order`` lists nodes in another topological order. ``change(k, box, inputs)`` may return the
    references that stand for node k's outputs instead of copying it.
    """
    refs: list[Any] = [None] * len(diagram.wires)
    refs[: len(inputs)] = inputs
    starts = first_wires(diagram)
    for k in range(len(diagram.nodes)) if order is None else order:
        node = diagram.nodes[k]
        given = tuple(refs[w] for w in node.inputs)
        made = change(k, node.box, given) if change is not None else None
        if made is None:
            box = retyped(node.box, [recorder.space(r) for r in given])
            made = [wire.ref for wire in recorder.add(box, given)]
        refs[starts[k] : starts[k] + len(made)] = list(made)
    return refs


def first_wires(diagram: Diagram) -> list[int]:
    """The number of each node's first output wire."""
    starts, at = [], len(diagram.dom)
    for node in diagram.nodes:
        starts.append(at)
        at += len(node.box.cod)
    return starts


def retyped(box: Box, spaces: Sequence[Space]) -> Box:
    """The box with inputs of other supports (never of other shapes), where it must be changed."""
    if all(a.accepts(b) for a, b in zip(box.dom, spaces, strict=True)):
        return box
    dom = tuple(
        a if a.accepts(b) else Space(a.shape, a.dtype, b.support)
        for a, b in zip(box.dom, spaces, strict=True)
    )
    if box.body is None:
        return replace(box, dom=dom)
    inner = [
        d if i < (box.spec.carry if box.op == "scan" else 0) else Space(d.shape, d.dtype, s.support)
        for i, (d, s) in enumerate(zip(box.body.dom, dom, strict=True))
    ]
    recorder = Recorder()
    ins = [recorder.add_input(s).ref for s in inner]
    refs = copy_nodes(recorder, box.body, ins)
    body = recorder.freeze([refs[w] for w in box.body.outputs], box.body.output_names)
    return replace(box, dom=dom, body=body)


def start(diagram: Diagram) -> tuple[Recorder, list[Any]]:
    """A recorder with the diagram's inputs and its names taken."""
    recorder = Recorder()
    inputs = [recorder.add_input(s).ref for s in diagram.dom]
    for box in diagram.boxes():
        if box.name is not None:
            recorder.names[box.name] = "the model"
    return recorder, inputs


def new_data(recorder: Recorder, value: Any, space: Space) -> Wire:
    """A new data input of a given space."""
    wire = recorder.add_input(space)
    recorder.data.append(np.asarray(value, space.dtype))
    return wire


def tidy(diagram: Diagram, data: Sequence[Any]) -> tuple[Diagram, tuple[Any, ...]]:
    """Without the inputs that no box and no output uses.

    >>> d = Diagram.discard(Space()) @ Diagram.id((Space(),))
    >>> tidy(d, (1.0, 2.0))
    (Diagram(float64[] real → float64[] real, 0 boxes), (2.0,))
    """
    used = {w for n in diagram.nodes for w in n.inputs} | set(diagram.outputs)
    kept = [i for i in range(len(diagram.dom)) if i in used]
    if len(kept) == len(diagram.dom):
        return diagram, tuple(data)
    recorder = Recorder()
    inputs: list[Any] = [None] * len(diagram.dom)
    for i in kept:
        inputs[i] = recorder.add_input(diagram.dom[i]).ref
    refs = copy_nodes(recorder, diagram, inputs)
    out = recorder.freeze([refs[w] for w in diagram.outputs], diagram.output_names)
    return out, tuple(data[i] for i in kept)


def site_box(diagram: Diagram, name: str) -> tuple[int, Box]:
    """The top-level node that makes a site, itself or inside its body.

    Raises :class:`ModelError` with a suggestion if there is none.
    """
    for k, node in enumerate(diagram.nodes):
        box = node.box
        if box.op in SITES and box.name == name:
            return k, box
        if box.body is not None and any(b.name == name and b.op in SITES for b in box.body.boxes()):
            return k, box
    raise ModelError(f"The model has no site {name!r}. {did_you_mean(name, site_names(diagram))}")


def site_names(diagram: Diagram) -> tuple[str, ...]:
    """Names of the sampled and computed sites, in order."""
    return tuple(b.name for b in diagram.boxes() if b.op in SITES and b.name is not None)


def rename(diagram: Diagram, names: Mapping[str, str]) -> Diagram:
    """The diagram with boxes, and outputs of bodies, called by new names where one is given."""
    if not names:
        return diagram
    nodes = []
    for node in diagram.nodes:
        box = node.box
        body = box.body
        if body is not None:
            inner = rename(body, names)
            outs = tuple(names.get(str(n), n) if n else n for n in inner.output_names)
            body = replace(inner, output_names=outs)
        name = names.get(box.name, box.name) if box.name is not None else None
        nodes.append(replace(node, box=replace(box, name=name, body=body)))
    return replace(diagram, nodes=tuple(nodes))


def box_names(diagram: Diagram) -> set[str]:
    """Names of all boxes, those of discarded sites and of factors included."""
    return {b.name for b in diagram.boxes() if b.name is not None}


def descendants(diagram: Diagram, nodes: Iterable[int]) -> set[int]:
    """Nodes that a wire from one of ``nodes`` reaches, those included."""
    found = set(nodes)
    starts = first_wires(diagram)
    carried: set[int] = set()
    for k, node in enumerate(diagram.nodes):
        if k in found or any(w in carried for w in node.inputs):
            found.add(k)
            carried.update(range(starts[k], starts[k] + len(node.box.cod)))
    return found
