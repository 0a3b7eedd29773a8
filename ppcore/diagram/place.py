"""From a labelled diagram to boxes in their places: sizes, ports and frames within frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from ppcore.diagram.box import Box, Node
from ppcore.diagram.diagram import Diagram
from ppcore.diagram.label import Label, space_text
from ppcore.diagram.layout import Arrangement, Cell, End, Segment, Spacing, arrange

STRIP = 20.0  # height of the line under a plate that holds its label
SQUARE = 11.0  # side of a factor


@dataclass(frozen=True)
class Shape:
    """A box with its label, size and ports; a frame has a block inside, moved by ``shift``."""

    box: Box
    cell: Cell
    label: Label
    inside: Block | None = None
    shift: float = 0.0


@dataclass(frozen=True)
class Block:
    """A diagram with every place decided, relative to its own left top corner."""

    diagram: Diagram
    shapes: list[Shape]
    places: Arrangement
    top_names: list[str]


class Placer:
    """Measures boxes and places them; pictures of sites and of boxes differ in their ports."""

    def __init__(self, sites: bool):
        self.sites = sites
        self.spacing = Spacing() if sites else Spacing(cell=20, wire=16, layer=46)

    def block(
        self,
        d: Diagram,
        names: Sequence[str] | None = None,
        top_hints: Sequence[float] | None = None,
        bottom_hints: Sequence[float] | None = None,
    ) -> Block:
        """Lay a diagram out: once to see where wires come from, again to meet them there.

        ``names`` label the inputs of the outermost diagram; it is None inside frames.
        """
        outermost = names is not None
        keep_order = outermost and not self.sites
        if keep_order:
            # The order of inputs and outputs has a meaning here.
            top_hints, bottom_hints = range(len(d.dom)), range(len(d.outputs))
        top = [text_width(n, 10.5) for n in names or ()] or [0.0] * len(d.dom)
        bottom = [text_width(end_name(d, j), 10.5) * outermost for j in range(len(d.outputs))]
        wires = _wires(d)

        def place(shapes: list[Shape]) -> Arrangement:
            cells = [s.cell for s in shapes]
            hints = (top_hints, bottom_hints)
            return arrange(cells, wires, top, bottom, self.spacing, *hints, keep_order)

        shapes = [self._shape(node, None, None) for node in d.nodes]
        places = place(shapes)
        if any(s.inside for s in shapes):
            for k, shape in enumerate(shapes):
                if shape.inside is not None:
                    shapes[k] = self._shape(d.nodes[k], *_hints(k, shape, wires, places))
            places = place(shapes)
        places.wires[:] = self._spread(shapes, places)
        return Block(d, shapes, places, list(names or ()))

    def _shape(
        self, node: Node, top: Sequence[float] | None, bottom: Sequence[float] | None
    ) -> Shape:
        box = node.box
        if box.body is not None:
            return self._frame(box, top, bottom)
        label = box.spec if isinstance(box.spec, Label) else Label("operation", str(box))
        n_in, n_out = len(box.dom), len(box.cod)
        title = text_width(label.title, 13, bold=True)
        if label.kind == "factor":
            at = (SQUARE / 2,) * n_in
            return Shape(
                box, Cell(SQUARE + 6 + text_width(factor_text(label), 10.5), SQUARE, at, ()), label
            )
        if label.kind == "input":
            width = text_width(label.title, 10.5)
            return Shape(box, Cell(width, 14.0, (), (width / 2,) * n_out), label)
        if label.kind in ("expression", "operation"):
            width, height = text_width(label.title, 10.5) + 16, 21.0
        else:
            first = title + (5 + text_width(label.space, 11) if label.space else 0)
            width = max(first, text_width(label.note, 10.5)) + 22
            height = 40.0 if label.note else 27.0
        if self.sites:
            ins, outs = [width / 2] * n_in, [width / 2] * n_out
        else:
            legends = [text_width(legend(box, p), 9.5) for p in range(n_out)]
            width = max(width, 15.0 * (n_in + 1), 2 * max(legends, default=0.0) * n_out - 8)
            ins = [width * (i + 1) / (n_in + 1) for i in range(n_in)]
            outs = [width * (p + 1) / (n_out + 1) for p in range(n_out)]
        return Shape(box, Cell(width, height, tuple(ins), tuple(outs)), label)

    def _frame(
        self, box: Box, top: Sequence[float] | None, bottom: Sequence[float] | None
    ) -> Shape:
        """A plate or scan, as large as what it encloses."""
        assert box.body is not None
        if box.op == "plate":
            plate = box.spec[1]
            label = Label("plate", f"{plate.name}, {plate.size}")
        else:
            label = box.spec if isinstance(box.spec, Label) else Label("scan", str(box))
        inside = self.block(box.body, None, top, bottom)
        legend_width = text_width(label.title, 10.5)
        width = max(inside.places.width, legend_width + 24)
        shift = (width - inside.places.width) / 2
        ins = tuple(x + shift for x in inside.places.tops)
        outs = tuple(x + shift for x in inside.places.bottoms)
        if not free_stretches(outs, width, legend_width):
            width = max(outs) + legend_width + 24
        height = inside.places.height + (STRIP if inside.places.bottoms else STRIP - 8)
        return Shape(box, Cell(width, height, ins, outs), label, inside, shift)

    def _spread(self, shapes: list[Shape], places: Arrangement) -> list[list[Segment]]:
        """In a picture of sites, let wires into one box arrive side by side, in their order."""
        if not self.sites:
            return places.wires
        arriving: dict[int, list[tuple[float, int, int]]] = {}
        for i, segments in enumerate(places.wires):
            for j, s in enumerate(segments):
                if s.end is not None and s.end[0] >= 0 and shapes[s.end[0]].inside is None:
                    arriving.setdefault(s.end[0], []).append((s.x0, i, j))
        out = [list(segments) for segments in places.wires]
        for v, found in arriving.items():
            if shapes[v].label.kind == "factor":
                continue
            found.sort()
            step = min(14.0, (shapes[v].cell.width - 20) / max(1, len(found) - 1))
            for r, (_, i, j) in enumerate(found):
                shifted = out[i][j].x1 + step * (r - (len(found) - 1) / 2)
                out[i][j] = replace(out[i][j], x1=shifted)
        return out


def free_stretches(
    outs: Sequence[float], width: float, legend_width: float
) -> list[tuple[float, float]]:
    """Where a frame's label fits on its lower edge between the wires that leave."""
    stops = [0.0, *sorted(outs), width]
    return [(a, b) for a, b in pairwise(stops) if b - a >= legend_width + 16]


def factor_text(label: Label) -> str:
    """What stands beside a factor's square."""
    return f"{label.title}: {label.note}" if label.note else label.title


def _wires(d: Diagram) -> list[tuple[End, list[End]]]:
    """Every used wire: where it comes from and all the ports it goes to."""
    source: list[End] = [(-1, i) for i in range(len(d.dom))]
    for k, node in enumerate(d.nodes):
        source.extend((k, p) for p in range(len(node.box.cod)))
    targets: list[list[End]] = [[] for _ in source]
    for k, node in enumerate(d.nodes):
        for port, w in enumerate(node.inputs):
            targets[w].append((k, port))
    for j, w in enumerate(d.outputs):
        targets[w].append((-1, j))
    return [(s, t) for s, t in zip(source, targets, strict=True) if t]


def _hints(
    k: int, shape: Shape, wires: list[tuple[End, list[End]]], places: Arrangement
) -> tuple[list[float], list[float]]:
    """Where the wires of frame ``k`` come from and go to, seen from its inside."""
    left = places.corners[k][0] + shape.shift
    top = [x - shape.shift for x in shape.cell.ins]
    bottom = [x - shape.shift for x in shape.cell.outs]
    for source, segments in zip((s for s, _ in wires), places.wires, strict=True):
        for s in segments:
            if s.end is not None and s.end[0] == k:
                top[s.end[1]] = s.x0 - left
        if source[0] == k:
            reached = [s.x1 for s in segments if s.end is not None]
            bottom[source[1]] = sum(reached) / len(reached) - left
    return top, bottom


def end_name(d: Diagram, j: int) -> str:
    """What stands at output ``j``."""
    return d.output_names[j] or space_text(d.cod[j])


def legend(box: Box, port: int) -> str:
    """What stands beside the wire at an output port."""
    space = space_text(box.cod[port])
    return f"{box.name}: {space}" if box.name else space


def all_shapes(block: Block) -> list[Shape]:
    """Every box and frame, those inside frames included."""
    out = []
    for shape in block.shapes:
        out.append(shape)
        if shape.inside is not None:
            out.extend(all_shapes(shape.inside))
    return out


def text_width(text: str, size: float, bold: bool = False) -> float:
    """Width in pixels that is enough for the usual sans-serif fonts."""
    units = 0.0
    for c in text:
        if c in "iljI.,:;'|! ()[]·":
            units += 0.36
        elif c in "ftr-/⁰¹²³⁴⁵⁶⁷⁸⁹ˣ₊":
            units += 0.44
        elif c in "mwMWℝ@%…−":
            units += 0.9
        else:
            units += 0.7 if c.isupper() else 0.62
    return units * size * (1.08 if bold else 1.0)
