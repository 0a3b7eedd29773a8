"""The diagram that a picture shows: array operations gathered into expressions, boxes labelled."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from ppcore.diagram.box import Box, Node, Plate
from ppcore.diagram.diagram import Diagram
from ppcore.diagram.label import (
    ATOM,
    Label,
    Text,
    box_text,
    bracket,
    distribution_name,
    distribution_text,
    fit,
    operation,
    space_text,
)
from ppcore.diagram.nest import flatten
from ppcore.space import Space

EXPRESSION = 44  # characters that fit
NOTE = 34
REFERENCE = 14


def condense(
    diagram: Diagram,
    detail: str = "sites",
    input_names: Sequence[str | None] = (),
    observed: Collection[str] = (),
    shown: Collection[int] = (),
) -> Diagram:
    """The diagram to draw: every box has a :class:`Label` as its ``spec``.

    With ``detail="sites"`` each group of deterministic array operations through which one result
    is computed becomes one box, and wires that carry data only are left out; a pointer at them
    stays in the text. With ``detail="boxes"`` nothing is left out. Inputs in ``shown`` are no data.
    """
    flat = flatten(diagram)
    hide = detail == "sites" and any(b.op in ("sample", "observe") for b in flat.boxes())
    names = list(input_names) + [None] * (len(flat.dom) - len(input_names))
    hidden = frozenset(range(len(flat.dom))) - set(shown) if hide else frozenset()
    unnamed = "data" if hide else "·"
    return _Picture(flat, detail, [n or unnamed for n in names], hidden, set(observed)).build(None)


class _Picture:
    """One level of a diagram on its way into a picture."""

    def __init__(
        self,
        d: Diagram,
        detail: str,
        input_names: Sequence[str],
        hidden: frozenset[int],
        observed: set[str],
    ):
        self.d, self.sites, self.observed = d, detail == "sites", observed
        self.names: list[str | None] = list(input_names)
        self.made: list[int] = [-1] * len(d.dom)
        self.hidden = set(hidden)
        for k, node in enumerate(d.nodes):
            box, first = node.box, len(self.made)
            self.made.extend([k] * len(box.cod))
            self.names.extend(_wire_names(box))
            known = all(w in self.hidden for w in node.inputs) and _is_operation(box)
            if known and self.sites and self.hidden and box.name is None:
                self.hidden.update(range(first, len(self.made)))
        self.group = list(range(len(d.nodes)))
        if self.sites:
            self._gather()
            self._absorb()

    def _readers(self) -> list[set[int]]:
        """The boxes that read each box; −1 stands for the outputs."""
        users: list[set[int]] = [set() for _ in self.d.nodes]
        for k, node in enumerate(self.d.nodes):
            for w in node.inputs:
                if self.made[w] >= 0:
                    users[self.made[w]].add(k)
        for w in self.d.outputs:
            if self.made[w] >= 0:
                users[self.made[w]].add(-1)
        return users

    def _gather(self) -> None:
        """Operations join the operation that alone reads them."""
        users, group = self._readers(), self.group
        for k in range(len(group) - 1, -1, -1):
            box = self.d.nodes[k].box
            roots = {group[u] if u >= 0 else -1 for u in users[k]}
            if len(roots) != 1 or not _is_operation(box) or box.name is not None:
                continue
            (root,) = roots
            if root >= 0 and _is_operation(self.d.nodes[root].box):
                if box.plates in ((), self.d.nodes[root].box.plates):
                    group[k] = root

    def _absorb(self) -> None:
        """An expression so short that its only reader's label shows it needs no box."""
        users, into = self._readers(), {}
        for k, node in enumerate(self.d.nodes):
            if self.group[k] != k or not _is_operation(node.box) or node.box.name is not None:
                continue
            sole = next(iter(users[k])) if len(users[k]) == 1 else -1
            room = {"sample": REFERENCE, "observe": REFERENCE, "factor": NOTE}
            limit = room.get(self.d.nodes[sole].box.op, -1) if sole >= 0 else -1
            if len(self.node_text(k, 9, k)[0]) <= limit:
                into[k] = sole
        self.group = [into.get(g, g) for g in self.group]

    def text(self, wire: int, depth: int, home: int) -> Text:
        """A wire as text; an expression that has a box of its own only if it is short."""
        name, k = self.names[wire], self.made[wire]
        if name is not None:
            return name, ATOM
        if not _is_operation(self.d.nodes[k].box):
            return "…", ATOM
        if self.group[k] != home:
            text = self.node_text(k, 9, self.group[k])
            return text if len(text[0]) <= REFERENCE else ("…", ATOM)
        return self.node_text(k, depth, home) if depth > 0 else ("…", ATOM)

    def node_text(self, k: int, depth: int, home: int) -> Text:
        node = self.d.nodes[k]
        return box_text(node.box, lambda i, left: self.text(node.inputs[i], left, home), depth)

    def build(self, kept: Sequence[int] | None) -> Diagram:
        """The picture, with the outputs numbered ``kept`` (None: those that sites do not show)."""
        d = self.d
        if kept is None:
            kept = [j for j in range(len(d.outputs)) if not self._is_shown(j)]
        live = self._live({d.outputs[j] for j in kept})
        entering = [i for i in range(len(d.dom)) if i not in self.hidden]
        number = {w: i for i, w in enumerate(entering)}
        count = len(entering)
        plates = self._plates(live, {d.outputs[j] for j in kept})
        nodes: list[Node] = []
        first = len(d.dom)
        for k, node in enumerate(d.nodes):
            made = range(first, first + len(node.box.cod))
            first = made.stop
            if self.group[k] != k or k not in live:
                continue
            wires = self._inputs(k)
            if node.box.body is not None:
                box, kept_ports, wires = self._scan(k, made, live, {d.outputs[j] for j in kept})
                made_kept = [made[p] for p in kept_ports]
                for i in [w for w in wires if w not in number]:
                    label = Label("input", self.names[i] or "data")
                    nodes.append(Node(Box("input", (), (d.wires[i],), spec=label), ()))
                    number[i] = count
                    count += 1
            else:
                spaces = tuple(d.wires[w] for w in wires)
                box = replace(node.box, dom=spaces, spec=self._label(k), plates=plates[k])
                made_kept = list(made)
            nodes.append(Node(box, tuple(number[w] for w in wires)))
            for w in made_kept:
                number[w] = count
                count += 1
        outputs = [j for j in kept if d.outputs[j] in number]
        return Diagram(
            tuple(d.dom[i] for i in entering),
            tuple(nodes),
            tuple(number[d.outputs[j]] for j in outputs),
            tuple(d.output_names[j] for j in outputs),
        )

    def _is_shown(self, j: int) -> bool:
        k = self.made[self.d.outputs[j]]
        if not self.sites or self.d.output_names[j] is None or k < 0:
            return False
        return self.d.nodes[k].box.name is not None or self.d.nodes[k].box.body is not None

    def _inputs(self, k: int) -> list[int]:
        """The wires that enter the group of ``k``; in a picture of sites, each once."""
        if not self.sites:
            return list(self.d.nodes[k].inputs)
        found: dict[int, None] = {}
        seen: set[int] = set()

        def visit(at: int) -> None:
            for w in self.d.nodes[at].inputs:
                if self.made[w] >= 0 and self.group[self.made[w]] == k:
                    if self.made[w] not in seen:
                        seen.add(self.made[w])
                        visit(self.made[w])
                elif w not in self.hidden:
                    found[w] = None

        visit(k)
        return list(found)

    def _live(self, kept: set[int]) -> set[int]:
        """Groups that are drawn: all but operations whose results nothing uses."""
        live: set[int] = set()
        used = set(kept)
        end = len(self.made)
        for k in range(len(self.d.nodes) - 1, -1, -1):
            node = self.d.nodes[k]
            made = range(end - len(node.box.cod), end)
            end = made.start
            wanted = any(w in used and w not in self.hidden for w in made)
            idle = self.sites and _is_operation(node.box) and node.box.name is None and not wanted
            if self.group[k] == k and not idle:
                live.add(k)
                used.update(self._inputs(k))
        return live

    def _plates(self, live: set[int], kept: set[int]) -> dict[int, tuple[Plate, ...]]:
        """Plates of each group; an expression stands in those that all its readers share."""
        readers: dict[int, list[int]] = {}
        for k in live:
            for w in self._inputs(k):
                readers.setdefault(self.made[w], []).append(k)
        leaving = {self.made[w] for w in kept}
        plates: dict[int, tuple[Plate, ...]] = {}
        for k in sorted(live, reverse=True):
            box = self.d.nodes[k].box
            plates[k] = box.plates
            if box.plates or not self.sites or not _is_operation(box) or box.name is not None:
                continue
            if k in readers and k not in leaving:
                shared = plates[readers[k][0]]
                for reader in readers[k][1:]:
                    shared = _common(shared, plates[reader])
                fitting = [all(p.size in s.shape for s in box.cod) for p in shared]
                length = fitting.index(False) if False in fitting else len(shared)
                plates[k] = shared[:length]
        return plates

    def _label(self, k: int) -> Label:
        node = self.d.nodes[k]
        box = node.box
        if box.op == "factor":
            made = self.made[node.inputs[0]] if len(node.inputs) == 1 else -1
            absorbed = self.sites and made >= 0 and self.group[made] == k
            note = self.node_text(made, 9, k)[0] if absorbed else ""
            return Label("factor", box.name or "", note, f"factor {box.name or ''}".strip())
        if not _is_operation(box):
            return self._site_label(k)
        full = self.node_text(k, 9, k)[0]
        if box.name is not None:
            shown = fit(lambda depth: self.node_text(k, depth, k), NOTE) if self.sites else None
            space = self._space(box.cod[0]) if box.cod else ""
            return Label("deterministic", box.name, shown or "", full, space)
        if not self.sites:
            return Label("operation", operation(box), full=box.op)
        shown = fit(lambda depth: self.node_text(k, depth, k), EXPRESSION) or operation(box)
        return Label("expression", shown, full=full)

    def _site_label(self, k: int) -> Label:
        node = self.d.nodes[k]
        box = node.box

        def text(depth: int) -> Text:
            return distribution_text(
                box, lambda i, left: self.text(node.inputs[i], left, -1), depth
            )

        note = fit(text, NOTE) if self.sites else None
        full = text(9)[0]
        kind = "observed" if box.op == "observe" or box.name in self.observed else "site"
        title = box.name or str(box)
        note, full = note or distribution_name(box), f"{title} ~ {full}" if full else ""
        spaces = (*box.cod, *box.dom[-1:])
        return Label(kind, title, note, full, self._space(spaces[0]) if spaces else "")

    def _space(self, space: Space) -> str:
        """Beside a site's name; pictures of boxes have it beside the wires."""
        return space_text(space) if self.sites else ""

    def _scan(
        self, k: int, made: range, live: set[int], outer: set[int]
    ) -> tuple[Box, list[int], list[int]]:
        """A scan's box with its body as a picture, its kept output ports and its inputs."""
        node = self.d.nodes[k]
        box, body = node.box, node.box.body
        assert body is not None
        carry = int(getattr(box.spec, "carry", 0))
        xs = int(getattr(box.spec, "xs", 0))
        names = []
        for i, w in enumerate(node.inputs):
            before = bracket(self.text(w, 9, -1), ATOM)
            names.append(f"{before}[t]" if carry <= i < carry + xs else before)
        inner = _Picture(body, "", [""] * len(body.dom), frozenset(), set())
        for i in range(carry):
            name = inner.names[body.outputs[i]]
            names[i] = f"{name}[t−1]" if name else "carry"
        hidden = [i for i, w in enumerate(node.inputs) if w in self.hidden and i >= carry]
        used = set(outer).union(*(self._inputs(j) for j in live))
        kept = [p for p, w in enumerate(made) if p < carry or w in used or not self.sites]
        picture = _Picture(
            flatten(body),
            "sites" if self.sites else "boxes",
            names,
            frozenset(hidden),
            self.observed,
        ).build(kept)
        wires = [w for i, w in enumerate(node.inputs) if i not in hidden]
        length = getattr(box.spec, "length", None)
        title = box.op if length is None else f"{box.op}, T = {length}"
        spaces = tuple(self.d.wires[w] for w in wires)
        cod = tuple(box.cod[p] for p in kept)
        label = Label("scan", title)
        return replace(box, dom=spaces, cod=cod, spec=label, body=picture), kept, wires


def _is_operation(box: Box) -> bool:
    return box.deterministic and box.body is None and box.op != "observe"


def _wire_names(box: Box) -> list[str | None]:
    """Names of a box's outputs: a site's own, and those of the sites that a scan stacks."""
    if box.body is not None and box.op == "scan":
        return [*box.body.output_names, *[None] * len(box.cod)][: len(box.cod)]
    return [box.name] * len(box.cod)


def _common(a: tuple[Plate, ...], b: tuple[Plate, ...]) -> tuple[Plate, ...]:
    n = 0
    while n < min(len(a), len(b)) and a[n] == b[n]:
        n += 1
    return a[:n]
