"""Layered drawing of a directed acyclic graph: layers, order in a layer, coordinates.

Layers by longest path; long wires get a point in every layer they pass, shared by the branches of
one wire; crossings are reduced by barycentre sweeps; coordinates minimise squared horizontal
distances, one layer at a time, by isotonic regression.

Source: Sugiyama, Tagawa & Toda, "Methods for visual understanding of hierarchical system
structures" (1981), doi:10.1109/TSMC.1981.4308636.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS = 24
PASSES = 20

End = tuple[int, int]  # (cell, port); cell −1 stands for the top or bottom edge


@dataclass(frozen=True)
class Cell:
    """A box to place: its size, and where wires enter and leave, from its left edge."""

    width: float
    height: float
    ins: tuple[float, ...] = ()
    outs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Spacing:
    """Distances between boxes, wires and layers."""

    cell: float = 22.0
    wire: float = 14.0
    layer: float = 34.0
    edge: float = 16.0


@dataclass(frozen=True)
class Segment:
    """A piece of a wire: down at ``x0`` from ``y0`` to ``y1``, over to ``x1`` at ``y2``, to ``y3``.

    ``end`` is the port it reaches, None if it only passes a layer.
    """

    x0: float
    y0: float
    y1: float
    x1: float
    y2: float
    y3: float
    end: End | None


@dataclass
class Arrangement:
    """Left-top corners of cells, segments of each wire, and x of the ends at both edges."""

    width: float
    height: float
    corners: list[tuple[float, float]]
    wires: list[list[Segment]]
    tops: list[float]
    bottoms: list[float]


@dataclass
class _Graph:
    """Vertices: cells, then top ends, bottom ends, and points of long wires."""

    n: int
    n_in: int
    n_out: int
    half: list[float]
    layer: list[int]
    segments: list[tuple[int, float, int, float, int, End | None]] = field(default_factory=list)
    above: list[list[tuple[int, float, float]]] = field(default_factory=list)
    below: list[list[tuple[int, float, float]]] = field(default_factory=list)
    rows: list[list[int]] = field(default_factory=list)

    def is_cell(self, v: int) -> bool:
        return v < self.n


def arrange(
    cells: Sequence[Cell],
    wires: Sequence[tuple[End, Sequence[End]]],
    top_widths: Sequence[float],
    bottom_widths: Sequence[float],
    spacing: Spacing,
    top_hints: Sequence[float] | None = None,
    bottom_hints: Sequence[float] | None = None,
    keep_order: bool = False,
) -> Arrangement:
    """Place cells and route wires, top to bottom.

    Parameters
    ----------
    cells : sequence of Cell
        In an order in which wires lead from earlier to later ones.
    wires : sequence of (source, targets)
        A source (−1, i) is top end i, a target (−1, j) bottom end j.
    top_widths, bottom_widths : sequence of float
        Room for each end at the top and at the bottom edge.
    top_hints, bottom_hints : sequence of float, optional
        Where the ends should be.
    keep_order : bool
        Keep the ends in the order of the hints, even if wires then cross.
    """
    g = _layers(cells, wires, top_widths, bottom_widths)
    _insert_points(g, cells, wires, spacing)
    _order(g, top_hints, bottom_hints, keep_order)
    x = _coordinates(g, spacing, top_hints, bottom_hints)
    return _measure(g, cells, wires, x, spacing, keep_order)


def _layers(
    cells: Sequence[Cell],
    wires: Sequence[tuple[End, Sequence[End]]],
    top_widths: Sequence[float],
    bottom_widths: Sequence[float],
) -> _Graph:
    n, n_in, n_out = len(cells), len(top_widths), len(bottom_widths)
    first = 1 if n_in else 0
    layer = [first] * n
    fed = [False] * (n + 1)
    parents: list[list[int]] = [[] for _ in cells]
    children: list[list[int]] = [[] for _ in cells]
    for (u, _), targets in wires:
        for v, _ in targets:
            fed[v] = fed[v] or v >= 0
            if v >= 0 and u >= 0:
                parents[v].append(u)
                children[u].append(v)
    for v in range(n):
        layer[v] = max([layer[v], *(layer[u] + 1 for u in parents[v])])
    for v in range(n - 1, -1, -1):
        if children[v] and not fed[v]:
            layer[v] = min(layer[c] for c in children[v]) - 1
    last = max(layer, default=first) + 1
    layer = layer + [0] * n_in + [last] * n_out
    half = [c.width / 2 for c in cells] + [w / 2 for w in (*top_widths, *bottom_widths)]
    return _Graph(n, n_in, n_out, half, layer)


def _insert_points(
    g: _Graph,
    cells: Sequence[Cell],
    wires: Sequence[tuple[End, Sequence[End]]],
    spacing: Spacing,
) -> None:
    """Cut long wires at every layer; record segments (upper, offset, lower, offset, wire, end)."""
    for i, ((u, port), targets) in enumerate(wires):
        at = u if u >= 0 else g.n + port
        offset = cells[u].outs[port] - cells[u].width / 2 if u >= 0 else 0.0
        chain = [(at, offset)]
        ends = [(v if v >= 0 else g.n + g.n_in + q, v, q) for v, q in targets]
        for vertex, _, _ in ends:
            while g.layer[vertex] - g.layer[at] > len(chain):
                g.half.append(0.0)
                g.layer.append(g.layer[at] + len(chain))
                point = len(g.half) - 1
                g.segments.append((*chain[-1], point, 0.0, i, None))
                chain.append((point, 0.0))
        for vertex, v, q in ends:
            enter = cells[v].ins[q] - cells[v].width / 2 if v >= 0 else 0.0
            up = chain[g.layer[vertex] - g.layer[at] - 1]
            g.segments.append((*up, vertex, enter, i, (v, q)))
    g.above = [[] for _ in g.half]
    g.below = [[] for _ in g.half]
    for u, a, v, b, _, _ in g.segments:
        g.below[u].append((v, a, b))
        g.above[v].append((u, b, a))
    g.rows = [[] for _ in range(max(g.layer, default=0) + 1)]
    for v, row in enumerate(g.layer):
        g.rows[row].append(v)


def _order(
    g: _Graph,
    top_hints: Sequence[float] | None,
    bottom_hints: Sequence[float] | None,
    keep_order: bool,
) -> None:
    """Reorder ``g.rows`` so that few wires cross."""
    fixed: set[int] = set()
    for hints, start, row in ((top_hints, g.n, 0), (bottom_hints, g.n + g.n_in, len(g.rows) - 1)):
        if hints is not None and len(hints):
            order = sorted(range(len(hints)), key=lambda i, h=hints: (h[i], i))  # type: ignore[misc]
            g.rows[row] = [start + i for i in order]
            if keep_order:
                fixed.add(row)
    best, fewest = [list(r) for r in g.rows], _crossings(g)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        place = {v: i for row in g.rows for i, v in enumerate(row)}
        rows = range(1, len(g.rows)) if down else range(len(g.rows) - 2, -1, -1)
        for r in rows:
            if r in fixed:
                continue
            near = g.above if down else g.below
            centre = {}
            for v in g.rows[r]:
                at = [place[u] + b / (2 * g.half[u] + 1) for u, _, b in near[v]]
                centre[v] = sum(at) / len(at) if at else float(place[v])
            # Every other pair of sweeps reverses ties, which gets out of local minima.
            flip = -1 if sweep % 4 >= 2 else 1
            g.rows[r].sort(key=lambda v: (centre[v], flip * place[v]))
            for i, v in enumerate(g.rows[r]):
                place[v] = i
        count = _crossings(g)
        if count < fewest:
            best, fewest = [list(r) for r in g.rows], count
    g.rows = best


def _crossings(g: _Graph) -> int:
    place = {v: i for row in g.rows for i, v in enumerate(row)}
    by_row: dict[int, list[tuple[tuple[float, float], tuple[float, float]]]] = {}
    for u, a, v, b, _, _ in g.segments:
        by_row.setdefault(g.layer[u], []).append(((place[u], a), (place[v], b)))
    total = 0
    for pairs in by_row.values():
        pairs.sort()
        seen: list[tuple[float, float]] = []
        for _, lower in pairs:
            total += len(seen) - bisect_right(seen, lower)
            insort(seen, lower)
    return total


def _coordinates(
    g: _Graph,
    spacing: Spacing,
    top_hints: Sequence[float] | None,
    bottom_hints: Sequence[float] | None,
) -> list[float]:
    """Centres: each row in turn goes as near to its neighbours as its order and sizes allow."""
    x = [0.0] * len(g.half)
    for row in g.rows:
        at = 0.0
        for i, v in enumerate(row):
            at += _separation(g, row[i - 1], v, spacing) if i else 0.0
            x[v] = at
        middle = at / 2
        for v in row:
            x[v] -= middle
    hint: dict[int, float] = {}
    for hints, start in ((top_hints, g.n), (bottom_hints, g.n + g.n_in)):
        if hints is not None and len(hints):
            middle = sum(hints) / len(hints)
            hint.update({start + i: h - middle for i, h in enumerate(hints)})
    for step in range(PASSES):
        sides = [g.above, g.below] if step >= PASSES - 4 else [(g.above, g.below)[step % 2]]
        order = g.rows if step % 2 == 0 else g.rows[::-1]
        for row in order:
            wish, weight = [], []
            for v in row:
                pulls = [
                    (x[u] + there - here, 1.0 + 3.0 * ((u >= g.n) + (v >= g.n)) ** 2)
                    for side in sides
                    for u, here, there in side[v]
                ]
                if v in hint and step < PASSES - 2:
                    pulls.append((hint[v], 0.2))
                if not pulls:
                    pulls = [(x[v], 0.05)]
                total = sum(w for _, w in pulls)
                wish.append(sum(p * w for p, w in pulls) / total)
                weight.append(total)
            gaps = [_separation(g, a, b, spacing) for a, b in pairwise(row)]
            for v, place in zip(row, _isotonic(wish, weight, gaps), strict=True):
                x[v] = place
    _straighten(g, x, spacing)
    return x


def _straighten(g: _Graph, x: list[float], spacing: Spacing) -> None:
    """Small bends on the way of a long wire go away where there is room."""
    for near, rows in ((g.above, g.rows), (g.below, g.rows[::-1])):
        for row in rows:
            for i, v in enumerate(row):
                if v < g.n or len(near[v]) != 1:
                    continue
                u, here, there = near[v][0]
                goal = x[u] + there - here
                left = x[row[i - 1]] + _separation(g, row[i - 1], v, spacing) if i else goal
                last = i + 1 == len(row)
                right = goal if last else x[row[i + 1]] - _separation(g, v, row[i + 1], spacing)
                if abs(goal - x[v]) < 2 * spacing.wire and left <= goal <= right:
                    x[v] = goal


def _separation(g: _Graph, a: int, b: int, spacing: Spacing) -> float:
    gap = spacing.cell if g.is_cell(a) and g.is_cell(b) else spacing.wire
    return g.half[a] + g.half[b] + gap


def _isotonic(wish: Sequence[float], weight: Sequence[float], gaps: Sequence[float]) -> list[float]:
    """argmin Σ weight (x − wish)² subject to x[i+1] − x[i] ≥ gaps[i] (pool adjacent violators)."""
    shift = [0.0]
    for gap in gaps:
        shift.append(shift[-1] + gap)
    blocks: list[list[float]] = []  # mean, weight, count
    for d, w, s in zip(wish, weight, shift, strict=False):
        blocks.append([d - s, w, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, mass, count = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * mass) / (last[1] + mass)
            last[1] += mass
            last[2] += count
    flat = [mean for mean, _, count in blocks for _ in range(int(count))]
    return [m + s for m, s in zip(flat, shift, strict=False)]


def _measure(
    g: _Graph,
    cells: Sequence[Cell],
    wires: Sequence[tuple[End, Sequence[End]]],
    x: list[float],
    spacing: Spacing,
    wide: bool,
) -> Arrangement:
    """Turn centres and rows into corners, paths and the size of the whole."""
    heights = [max((cells[v].height for v in row if v < g.n), default=0.0) for row in g.rows]
    low, high = [], []
    at = 0.0 if g.n_in else spacing.edge
    for r, height in enumerate(heights):
        if r:
            to_edge = (r == 1 and g.n_in) or (r == len(heights) - 1 and g.n_out)
            at += spacing.edge * 1.5 if to_edge and not wide else spacing.layer
        low.append(at)
        at += height
        high.append(at)
    bottom = at if g.n_out else at + spacing.edge
    left = min((x[v] - g.half[v] for v in range(len(x))), default=0.0) - spacing.edge
    right = max((x[v] + g.half[v] for v in range(len(x))), default=0.0) + spacing.edge
    x = [c - left for c in x]
    corners = []
    for v, cell in enumerate(cells):
        row = g.layer[v]
        slack = heights[row] - cell.height
        corners.append((x[v] - cell.width / 2, low[row] + slack / 2))
    pieces: list[list[Segment]] = [[] for _ in wires]
    for u, a, v, b, i, end in g.segments:
        y0 = corners[u][1] + cells[u].height if u < g.n else high[g.layer[u]]
        y3 = corners[v][1] if v < g.n else high[g.layer[v]]
        curve_end = low[g.layer[v]]
        pieces[i].append(Segment(x[u] + a, y0, high[g.layer[u]], x[v] + b, curve_end, y3, end))
    tops = [x[g.n + i] for i in range(g.n_in)]
    bottoms = [x[g.n + g.n_in + j] for j in range(g.n_out)]
    return Arrangement(right - left, bottom, corners, pieces, tops, bottoms)
