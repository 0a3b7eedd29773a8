"""A canonical form of diagrams, for structural equality in linear time.

Boxes from which an output is reached are numbered by a depth-first walk from the outputs, which is
determined because ports are ordered and every wire has one producer. What is left are boxes whose
results are all discarded (effects among them): their sinks are ordered by a colour, refined
from above and from below, and walked in turn. Comparing canonical forms is exact, so equality never
claims too much; it could miss an isomorphism only between sinks that colours do not separate and
that are not exchanged by a symmetry.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppcore.diagram.diagram import Diagram

ROUNDS = 2


def _producers(d: Diagram) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = [(-1, i) for i in range(len(d.dom))]
    for k, node in enumerate(d.nodes):
        made.extend((k, port) for port in range(len(node.box.cod)))
    return made


def _colours(d: Diagram, made: list[tuple[int, int]]) -> list[int]:
    """A hash of each node that sees its ancestors and its descendants."""
    boundary = [0] * len(made)
    for j, wire in enumerate(d.outputs):
        boundary[wire] += hash(("out", j, d.output_names[j]))
    colour = [hash(node.box) for node in d.nodes]
    for _ in range(ROUNDS):
        above = list(colour)
        wire_colour = [hash(("in", i)) for i in range(len(d.dom))]
        for k, node in enumerate(d.nodes):
            above[k] = hash((colour[k], tuple(wire_colour[w] for w in node.inputs)))
            wire_colour.extend(hash((above[k], p)) for p in range(len(node.box.cod)))
        used = list(boundary)
        for k in range(len(d.nodes) - 1, -1, -1):
            node = d.nodes[k]
            start = _first_output(d, k)
            below = tuple(used[start : start + len(node.box.cod)])
            above[k] = hash((above[k], below))
            for port, w in enumerate(node.inputs):
                used[w] += hash((above[k], port))
        colour = above
    return colour


def _first_output(d: Diagram, k: int) -> int:
    starts = d.__dict__.get("_starts")
    if starts is None:
        starts, at = [], len(d.dom)
        for node in d.nodes:
            starts.append(at)
            at += len(node.box.cod)
        object.__setattr__(d, "_starts", starts)
    return int(starts[k])


def canonical_order(d: Diagram) -> list[int]:
    """Node indices in canonical order."""
    made = _producers(d)
    order: list[int] = []
    seen = [False] * len(d.nodes)

    def walk(root: int) -> None:
        stack = [(root, 0)]
        seen[root] = True
        while stack:
            k, at = stack.pop()
            inputs = d.nodes[k].inputs
            while at < len(inputs):
                parent = made[inputs[at]][0]
                at += 1
                if parent >= 0 and not seen[parent]:
                    seen[parent] = True
                    stack.append((k, at))
                    stack.append((parent, 0))
                    break
            else:
                order.append(k)

    for wire in d.outputs:
        k = made[wire][0]
        if k >= 0 and not seen[k]:
            walk(k)
    if len(order) < len(d.nodes):
        consumed = {made[w][0] for node in d.nodes for w in node.inputs}
        colour = _colours(d, made)
        sinks = [k for k in range(len(d.nodes)) if k not in consumed and not seen[k]]
        for k in sorted(sinks, key=colour.__getitem__):
            walk(k)
    return order


def canonical_form(d: Diagram) -> tuple[Any, ...]:
    """Domain, boxes with renumbered inputs in canonical order, outputs and their names."""
    order = canonical_order(d)
    number = {wire: wire for wire in range(len(d.dom))}
    at = len(d.dom)
    for k in order:
        start = _first_output(d, k)
        for port in range(len(d.nodes[k].box.cod)):
            number[start + port] = at
            at += 1
    nodes = tuple((d.nodes[k].box, tuple(number[w] for w in d.nodes[k].inputs)) for k in order)
    return (d.dom, nodes, tuple(number[w] for w in d.outputs), d.output_names)
