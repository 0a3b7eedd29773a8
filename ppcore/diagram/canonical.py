"""A canonical form of diagrams, for structural equality in linear time.

Boxes from which an output is reached are numbered by a depth-first walk from the outputs, which is
determined because ports are ordered and every wire has one producer. What is left are boxes whose
results are all discarded (effects among them). They are reached by following numbered wires down
to a sink, in the order of the numbers, so that a choice between look-alikes is made once and
everything around follows it; where no numbered wire leads on, the sink with the smallest colour
starts the next component. A colour is a hash refined from above and from below. Comparing canonical
forms is exact, so equality never claims too much; it could miss an isomorphism only between boxes
at one wire and port that colours do not separate and that no symmetry exchanges.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ppcore.diagram.box import Box

if TYPE_CHECKING:
    from ppcore.diagram.diagram import Diagram

ROUNDS = 2


def _producers(d: Diagram) -> list[tuple[int, int]]:
    made: list[tuple[int, int]] = [(-1, i) for i in range(len(d.dom))]
    for k, node in enumerate(d.nodes):
        made.extend((k, port) for port in range(len(node.box.cod)))
    return made


def _colours(d: Diagram, made: list[tuple[int, int]], seed: Callable[[Box], int]) -> list[int]:
    """A hash of each node that sees its ancestors and its descendants."""
    boundary = [0] * len(made)
    for j, wire in enumerate(d.outputs):
        boundary[wire] += hash((1, j))
    colour = [seed(node.box) for node in d.nodes]
    for _ in range(ROUNDS):
        above = list(colour)
        wire_colour = [hash((2, i)) for i in range(len(d.dom))]
        for k, node in enumerate(d.nodes):
            above[k] = hash((colour[k], tuple(wire_colour[w] for w in node.inputs)))
            wire_colour.extend(hash((above[k], p)) for p in range(len(node.box.cod)))
        used = list(boundary)
        for k in range(len(d.nodes) - 1, -1, -1):
            node = d.nodes[k]
            below = tuple(used[w] for w in _made_by(d, k))
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


def _made_by(d: Diagram, k: int) -> range:
    start = _first_output(d, k)
    return range(start, start + len(d.nodes[k].box.cod))


def canonical_order(d: Diagram, seed: Callable[[Box], int] = hash) -> list[int]:
    """Node indices in canonical order.

    ``seed`` gives look-alike boxes one number; Python's hash differs between processes, so pass
    a stable one where the order is written down.
    """
    made = _producers(d)
    order: list[int] = []
    seen = [False] * len(d.nodes)
    for wire in d.outputs:
        _walk(d, made, seen, order, made[wire][0])
    if len(order) < len(d.nodes):
        _walk_discarded(d, made, seen, order, _colours(d, made, seed))
    return order


def _walk(
    d: Diagram, made: list[tuple[int, int]], seen: list[bool], order: list[int], root: int
) -> None:
    """Append ``root`` and its unseen ancestors, depth first."""
    if root < 0 or seen[root]:
        return
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


def _walk_discarded(
    d: Diagram,
    made: list[tuple[int, int]],
    seen: list[bool],
    order: list[int],
    colour: list[int],
) -> None:
    """Append the nodes from which no output is reached."""
    users: list[list[tuple[int, int, int]]] = [[] for _ in made]
    for k, node in enumerate(d.nodes):
        for port, wire in enumerate(node.inputs):
            users[wire].append((port, colour[k], k))
    for consumers in users:
        consumers.sort()

    def sink(k: int) -> int:
        while True:
            below = next((users[w][0][2] for w in _made_by(d, k) if users[w]), None)
            if below is None:
                return k
            k = below

    def follow(wires: range) -> None:
        for wire in wires:
            for _, _, k in users[wire]:
                if not seen[k]:
                    _walk(d, made, seen, order, sink(k))

    done = 0

    def spread() -> None:
        nonlocal done
        while done < len(order):
            follow(_made_by(d, order[done]))
            done += 1

    follow(range(len(d.dom)))
    spread()
    for k in sorted((k for k in range(len(d.nodes)) if not seen[k]), key=colour.__getitem__):
        if not seen[k]:
            _walk(d, made, seen, order, sink(k))
            spread()


def canonical_form(d: Diagram) -> tuple[Any, ...]:
    """Domain, boxes with renumbered inputs in canonical order, outputs and their names."""
    order = canonical_order(d)
    number = {wire: wire for wire in range(len(d.dom))}
    at = len(d.dom)
    for k in order:
        for wire in _made_by(d, k):
            number[wire] = at
            at += 1
    nodes = tuple((d.nodes[k].box, tuple(number[w] for w in d.nodes[k].inputs)) for k in order)
    return (d.dom, nodes, tuple(number[w] for w in d.outputs), d.output_names)
