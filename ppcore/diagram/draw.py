"""Pictures of diagrams: standalone SVG, laid out here, no graphviz needed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from xml.sax.saxutils import escape, quoteattr

from ppcore.diagram.condense import condense
from ppcore.diagram.diagram import Diagram
from ppcore.diagram.label import space_text
from ppcore.diagram.layout import Segment
from ppcore.diagram.nest import nest
from ppcore.diagram.place import (
    SQUARE,
    Block,
    Placer,
    Shape,
    all_shapes,
    end_name,
    factor_text,
    free_stretches,
    legend,
    text_width,
)
from ppcore.errors import SettingsError, did_you_mean

DETAILS = ("sites", "boxes")
STUB = 13.0  # how far a wire runs straight before it bends, where its space is written beside it

# Text on no box is mid-grey and boxes are filled, so that a picture reads on white and on black.
STYLE = """
.ppcore text{font-family:"Helvetica Neue",Helvetica,Arial,"DejaVu Sans",sans-serif}
.ppcore .wire{fill:none;stroke:#7b8494;stroke-width:1.3}
.ppcore .tip,.ppcore .dot{fill:#7b8494;stroke:none}
.ppcore .site rect{fill:#fff;stroke:#303a4b;stroke-width:1.3}
.ppcore .observed rect{fill:#c6d2e4;stroke:#303a4b;stroke-width:1.3}
.ppcore .deterministic rect{fill:#fff;stroke:#303a4b;stroke-width:1;stroke-dasharray:3.5 2.5}
.ppcore .expression rect,.ppcore .operation rect{fill:#f2f4f7;stroke:#a9b1bf;stroke-width:.8}
.ppcore .factor rect{fill:#1b212c;stroke:#7b8494;stroke-width:1}
.ppcore .plate>rect{fill:#7b8494;fill-opacity:.07;stroke:#7b8494;stroke-width:1.1}
.ppcore .scan>rect{fill:#3f74b5;fill-opacity:.08;stroke:#5b86ba;stroke-width:1.4}
.ppcore .name{font-size:13px;font-weight:600;fill:#121722}
.ppcore .space{font-size:11px;fill:#5a6474}
.ppcore .note{font-size:10.5px;fill:#4a5364}
.ppcore .formula{font-size:10.5px;fill:#303a4b}
.ppcore .outside{font-size:10.5px;fill:#757e8d}
""".strip()


def draw_svg(
    diagram: Diagram,
    detail: str = "sites",
    *,
    input_names: Sequence[str | None] = (),
    observed: Collection[str] = (),
    shown: Collection[int] = (),
) -> str:
    """The diagram as SVG text; equal input gives equal text, byte for byte.

    Rounded boxes are kernels, with the site's name and distribution; shaded ones are observed,
    dashed ones computed; black squares are factors. Plates and scans enclose their members.

    Parameters
    ----------
    diagram : Diagram
        With plates as annotations or as boxes.
    detail : "sites" or "boxes"
        "sites" gathers array operations into expressions and leaves plain data out; "boxes"
        draws every box and every wire.
    input_names : sequence of str, optional
        What to call the input wires.
    observed : collection of str, optional
        Sites to shade besides boxes with ``op="observe"``.
    shown : collection of int, optional
        Inputs that are open wires rather than data: drawn with ``detail="sites"`` too.

    Raises
    ------
    SettingsError
        An unknown ``detail``.

    >>> from ppcore.diagram import Box
    >>> from ppcore.space import Space
    >>> coin = Diagram.of(Box("sample", (), (Space((), "bool"),), name="heads"))
    >>> draw_svg(coin).startswith("<svg")
    True
    """
    if detail not in DETAILS:
        raise SettingsError(f"detail={detail!r} is not known. {did_you_mean(detail, DETAILS)}")
    picture = nest(condense(diagram, detail, input_names, observed, shown))
    given = [*input_names, *[None] * (len(diagram.dom) - len(input_names))]
    if len(picture.dom) < len(given):
        given = [given[i] for i in sorted(shown)]
    names = [given[i] or space_text(s) for i, s in enumerate(picture.dom)]
    sites = detail == "sites"
    return _Writer(sites).svg(Placer(sites).block(picture, names))


class _Writer:
    """Writes SVG in three coats: frames, wires, boxes."""

    def __init__(self, sites: bool):
        self.sites = sites
        self.frames: list[str] = []
        self.wires: list[str] = []
        self.boxes: list[str] = []

    def svg(self, block: Block) -> str:
        """The whole picture."""
        head = 18.0 if block.places.tops else 0.0
        foot = 18.0 if block.places.bottoms else 0.0
        self._write(block, 0.0, head)
        for x, name in zip(block.places.tops, block.top_names, strict=True):
            self._text("outside", name, x, head - 5, "middle")
        for j, x in enumerate(block.places.bottoms):
            name = end_name(block.diagram, j)
            self._text("outside", name, x, head + block.places.height + 13, "middle")
        width, height = block.places.width, head + block.places.height + foot
        size = f'width="{_n(width)}" height="{_n(height)}" viewBox="0 0 {_n(width)} {_n(height)}"'
        sites = [s.label.title for s in all_shapes(block) if s.label.kind in _NAMED]
        described = quoteattr("Model diagram: " + ", ".join(sites))
        start = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="ppcore" role="img" '
            f"aria-label={described} {size}>"
        )
        lines = [start, f"<style>{STYLE}</style>", *self.frames, *self.wires, *self.boxes, "</svg>"]
        return "\n".join(lines) + "\n"

    def _write(self, block: Block, dx: float, dy: float) -> None:
        for (x, y), shape in zip(block.places.corners, block.shapes, strict=True):
            if shape.inside is not None:
                self._write_frame(shape, x + dx, y + dy)
                self._write(shape.inside, x + dx + shape.shift, y + dy)
            else:
                self._write_box(shape, x + dx, y + dy)
        for segments in block.places.wires:
            self._write_wire(block, segments, dx, dy)

    def _write_wire(self, block: Block, segments: list[Segment], dx: float, dy: float) -> None:
        parts = []
        starts = [(s.x0, s.y1) for s in segments]
        for x, y in sorted({at for at in starts if starts.count(at) > 1 and not self.sites}):
            at = f'cx="{_n(x + dx)}" cy="{_n(y + dy + STUB)}"'
            self.boxes.append(f'<circle class="dot" {at} r="2.4"/>')
        for s in segments:
            tip = self.sites and s.end is not None and s.end[0] >= 0
            tip = tip and block.shapes[s.end[0]].inside is None  # type: ignore[index]
            x0, y0, y1, x1, y2 = s.x0 + dx, s.y0 + dy, s.y1 + dy, s.x1 + dx, s.y2 + dy
            y3 = s.y3 + dy - (4 if tip else 0)
            y1, y2 = y1 if self.sites else min(y1 + STUB, y2), min(y2, y3)
            bend = (y2 - y1) * 0.5
            path = f"M{_n(x0)} {_n(y0)}" + (f"V{_n(y1)}" if y1 > y0 else "")
            path += f"C{_n(x0)} {_n(y1 + bend)} {_n(x1)} {_n(y2 - bend)} {_n(x1)} {_n(y2)}"
            parts.append(path + (f"V{_n(y3)}" if y3 > y2 else ""))
            if tip:
                corners = f"{_n(x1 - 3.2)},{_n(y3 - 2)} {_n(x1 + 3.2)},{_n(y3 - 2)}"
                self.boxes.append(
                    f'<polygon class="tip" points="{corners} {_n(x1)},{_n(y3 + 4)}"/>'
                )
        if parts:
            self.wires.append(f'<path class="wire" d="{"".join(parts)}"/>')

    def _write_frame(self, shape: Shape, x: float, y: float) -> None:
        cell, kind = shape.cell, shape.label.kind
        self.frames.append(
            f'<g class="{kind}" data-name={quoteattr(shape.label.title)}>'
            f"{_rect(x, y, cell.width, cell.height, 9)}</g>"
        )
        if shape.inside is not None:
            for port in cell.outs:
                top, end = y + shape.inside.places.height, y + cell.height
                path = f"M{_n(x + port)} {_n(top)}V{_n(end)}"
                self.wires.append(f'<path class="wire" d="{path}"/>')
        if kind == "scan":
            for port, at in [(p, y) for p in cell.ins] + [(p, y + cell.height) for p in cell.outs]:
                self.boxes.append(
                    f'<circle class="dot" cx="{_n(x + port)}" cy="{_n(at)}" r="2.4"/>'
                )
        legend_width = text_width(shape.label.title, 10.5)
        left, right = free_stretches(cell.outs, cell.width, legend_width)[-1]
        at, anchor = (right - 9, "end") if right >= cell.width else (left + 9, "start")
        self._text("outside", shape.label.title, x + at, y + cell.height - 7, anchor)

    def _write_box(self, shape: Shape, x: float, y: float) -> None:
        label, cell = shape.label, shape.cell
        middle = x + cell.width / 2
        self.boxes.append(f'<g class="{label.kind}" data-name={quoteattr(label.title)}>')
        if label.full:
            self.boxes.append(f"<title>{escape(label.full)}</title>")
        if label.kind == "factor":
            self.boxes.append(_rect(x, y, SQUARE, SQUARE, 1))
            text = factor_text(label)
            self._text("outside", text, x + SQUARE + 5, y + SQUARE - 1.5, "start")
        elif label.kind == "input":
            self._text("outside", label.title, middle, y + 10.5, "middle")
        elif label.kind in ("expression", "operation"):
            self.boxes.append(_rect(x, y, cell.width, cell.height, 6))
            self._text("formula", label.title, middle, y + cell.height / 2 + 3.7, "middle")
        else:
            self.boxes.append(_rect(x, y, cell.width, cell.height, 8))
            name, room = text_width(label.title, 13, bold=True), text_width(label.space, 11)
            if label.space:
                half = (name + 5 + room) / 2
                self._text("name", label.title, middle - half, y + 17.5, "start")
                self._text("space", label.space, middle + half, y + 17.5, "end")
            else:
                self._text("name", label.title, middle, y + 17.5, "middle")
            self._text("note", label.note, middle, y + 32, "middle")
        self.boxes.append("</g>")
        if not self.sites:
            for port, out in enumerate(cell.outs):
                text = legend(shape.box, port)
                self._text("outside", text, x + out + 4, y + cell.height + 11, "start", 9.5)

    def _text(self, kind: str, text: str, x: float, y: float, anchor: str, size: float = 0) -> None:
        if text:
            small = f' style="font-size:{_n(size)}px"' if size else ""
            self.boxes.append(
                f'<text class="{kind}" x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}"{small}>'
                f"{escape(text)}</text>"
            )


_NAMED = ("site", "observed", "deterministic", "factor")


def _rect(x: float, y: float, width: float, height: float, radius: float) -> str:
    return (
        f'<rect x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}" '
        f'rx="{_n(radius)}"/>'
    )


def _n(value: float) -> str:
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
