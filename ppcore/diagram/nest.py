"""Plates as boxes: group the boxes that share a plate, and undo it."""

from __future__ import annotations

import heapq
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ppcore.diagram.box import Box, Node, Plate
from ppcore.diagram.canonical import canonical_order
from ppcore.diagram.diagram import Diagram


def nest(diagram: Diagram) -> Diagram:
    """Group the boxes that share a plate into plate boxes; the kernel stays the same.

    A plate box has ``op="plate"``, ``spec=("plate", plate)``, its members as ``body`` and the
    plates around it as ``plates``; wires from outside enter as inputs, in the order of their first
    use. A plate that is left and entered again is split into as many boxes as keep the diagram
    acyclic (one, wherever one is possible). Bodies of scans are nested too.

    Parameters
    ----------
    diagram : Diagram
        With plates as annotations of its boxes, outermost first.

    Returns
    -------
    Diagram
        Of the same type ``dom -> cod``; :func:`flatten` gives the diagram back.

    >>> from ppcore.space import Space
    >>> row = Space((3,))
    >>> plate = Plate("row", 3, -1)
    >>> z = Diagram.of(Box("sample", (), (row,), name="z", plates=(plate,)))
    >>> d = z >> Diagram.of(Box("sample", (row,), (row,), name="y", plates=(plate,)))
    >>> [str(node.box) for node in nest(d).nodes]
    ['plate']
    >>> flatten(nest(d)) == d
    True
    """
    return _nest(flatten(diagram), 0)


def flatten(diagram: Diagram) -> Diagram:
    """Replace every plate box by its body: the inverse of :func:`nest`.

    >>> from ppcore.space import Space
    >>> real = Space()
    >>> flatten(Diagram.id((real,))) == Diagram.id((real,))
    True
    """
    wires: list[int] = list(range(len(diagram.dom)))
    nodes: list[Node] = []
    count = len(diagram.dom)

    def inline(body: Diagram, entering: list[int]) -> list[int]:
        nonlocal count
        local = list(entering)
        for node in body.nodes:
            given = [local[w] for w in node.inputs]
            if node.box.op == "plate" and node.box.body is not None:
                local.extend(inline(node.box.body, given))
                continue
            nodes.append(Node(_map_body(node.box, flatten), tuple(given)))
            local.extend(range(count, count + len(node.box.cod)))
            count += len(node.box.cod)
        return [local[w] for w in body.outputs]

    outputs = inline(diagram, wires)
    return Diagram(diagram.dom, tuple(nodes), tuple(outputs), diagram.output_names)


def stable_order(diagram: Diagram) -> list[int]:
    """Node indices in an order that depends on structure only and is the same in every process."""
    return canonical_order(diagram, _stable_seed)


def _stable_seed(box: Box) -> int:
    return zlib.crc32(f"{box.op}|{box.name}|{box.spec!r}|{box.plates!r}".encode())


def _map_body(box: Box, change: Callable[[Diagram], Diagram]) -> Box:
    return box if box.body is None else replace(box, body=change(box.body))


def _nest(diagram: Diagram, depth: int) -> Diagram:
    """Nest the plates from ``depth`` inwards."""
    groups = _segments(diagram, depth)
    start = _starts(diagram)
    made_by = {
        start[k] + port: g
        for g, (_, members) in enumerate(groups)
        for k in members
        for port in range(len(diagram.nodes[k].box.cod))
    }
    leaving: list[list[int]] = [[] for _ in groups]
    needed = set(diagram.outputs)
    for g, (_, members) in enumerate(groups):
        for k in members:
            needed.update(w for w in diagram.nodes[k].inputs if made_by.get(w, g) != g)
    for wire in sorted(needed & made_by.keys()):
        leaving[made_by[wire]].append(wire)

    number = {w: w for w in range(len(diagram.dom))}
    count = len(diagram.dom)
    nodes = []
    for g, (plate, members) in enumerate(groups):
        if plate is None:
            (k,) = members
            box = _map_body(diagram.nodes[k].box, partial(_nest_scan, diagram, k))
            entering: tuple[int, ...] = diagram.nodes[k].inputs
            made = range(start[k], start[k] + len(box.cod))
        else:
            rank = {w: i for i, w in enumerate(_produced(diagram, members, start))}
            made = sorted(leaving[g], key=rank.__getitem__)  # type: ignore[assignment]
            box, entering = _plate_box(diagram, plate, members, list(made), depth)
        nodes.append(Node(box, tuple(number[w] for w in entering)))
        for wire in made:
            number[wire] = count
            count += 1
    outputs = tuple(number[w] for w in diagram.outputs)
    return Diagram(diagram.dom, tuple(nodes), outputs, diagram.output_names)


def _nest_scan(diagram: Diagram, k: int, body: Diagram) -> Diagram:
    """Nest a scan's body; plates around the scan, repeated on every box inside, are no news."""
    around = diagram.nodes[k].box.plates
    repeated = all(n.box.plates[: len(around)] == around for n in body.nodes)
    return _nest(body, len(around) if repeated else 0)


def _plate_box(
    diagram: Diagram, plate: Plate, members: list[int], leaving: list[int], depth: int
) -> tuple[Box, tuple[int, ...]]:
    """The box of one segment of a plate, and the wires that enter it."""
    start = _starts(diagram)
    inside = set(_produced(diagram, members, start))
    used = (w for k in members for w in diagram.nodes[k].inputs)
    entering = tuple(dict.fromkeys(w for w in used if w not in inside))
    local = {w: i for i, w in enumerate(entering)}
    nodes = []
    for k in members:
        node = diagram.nodes[k]
        nodes.append(Node(node.box, tuple(local[w] for w in node.inputs)))
        for port in range(len(node.box.cod)):
            local[start[k] + port] = len(local)
    spaces = tuple(diagram.wires[w] for w in entering)
    body = _nest(Diagram(spaces, tuple(nodes), tuple(local[w] for w in leaving)), depth + 1)
    box = Box(
        "plate",
        spaces,
        body.cod,
        spec=("plate", plate),
        normalized=all(n.box.normalized for n in body.nodes),
        deterministic=all(n.box.deterministic for n in body.nodes),
        plates=diagram.nodes[members[0]].box.plates[:depth],
        body=body,
    )
    return box, entering


def _starts(diagram: Diagram) -> list[int]:
    """The number of each node's first output wire."""
    starts, at = [], len(diagram.dom)
    for node in diagram.nodes:
        starts.append(at)
        at += len(node.box.cod)
    return starts


def _produced(diagram: Diagram, members: list[int], start: list[int]) -> list[int]:
    return [start[k] + p for k in members for p in range(len(diagram.nodes[k].box.cod))]


def _segments(diagram: Diagram, depth: int) -> list[tuple[Plate | None, list[int]]]:
    """Nodes in an order in which every segment of a plate is contiguous.

    List scheduling: boxes outside plates go as soon as they can; then a plate of which everything
    that is left can go now (there is one whenever no plate needs a split), else the one of which
    most can.
    """
    rank = {k: r for r, k in enumerate(stable_order(diagram))}
    starts = _starts(diagram)
    maker = {w: k for k in rank for w in _produced(diagram, [k], starts)}
    children: list[list[int]] = [[] for _ in diagram.nodes]
    waiting = []
    for k, node in enumerate(diagram.nodes):
        parents = {maker[w] for w in node.inputs if w in maker}
        waiting.append(len(parents))
        for parent in sorted(parents):
            children[parent].append(k)
    plate = [n.box.plates[depth] if len(n.box.plates) > depth else None for n in diagram.nodes]
    left = Counter(plate)
    ready: dict[Plate | None, set[int]] = {p: set() for p in plate}
    for k in rank:
        if not waiting[k]:
            ready[plate[k]].add(k)

    def closure(p: Plate | None) -> list[int]:
        heap = [(rank[k], k) for k in ready[p]]
        heapq.heapify(heap)
        met: Counter[int] = Counter()
        found = []
        while heap:
            _, k = heapq.heappop(heap)
            found.append(k)
            for child in children[k]:
                met[child] += 1
                if plate[child] == p and met[child] == waiting[child]:
                    heapq.heappush(heap, (rank[child], child))
        return found

    out: list[tuple[Plate | None, list[int]]] = []
    while sum(left.values()):
        if ready.get(None):
            chosen, members = None, closure(None)
        else:
            options = [(p, closure(p)) for p in ready if ready[p]]
            options.sort(key=lambda o: (len(o[1]) < left[o[0]], -len(o[1]), rank[o[1][0]]))
            chosen, members = options[0]
        for k in members:
            ready[plate[k]].discard(k)
            left[chosen] -= 1
            for child in children[k]:
                waiting[child] -= 1
                if not waiting[child]:
                    ready[plate[child]].add(child)
        gone = set(members)
        ready[chosen] -= gone
        out.extend([(chosen, members)] if chosen else [(None, [k]) for k in members])
    return out
