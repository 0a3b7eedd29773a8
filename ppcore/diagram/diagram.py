"""String diagrams of Markov kernels: copy and discard, never merge.

A diagram is a morphism of a copy-discard category. Wires are numbered: first the inputs, then
the outputs of each node in order. A node may only use wires with smaller numbers, so a diagram is
acyclic and every wire has one producer by construction. Using a wire twice is copying; not using
it is discarding.

Source: Cho & Jacobs, "Disintegration and Bayesian inversion via string diagrams" (2019),
arXiv:1709.00322.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ppcore.diagram.box import Box, Node
from ppcore.diagram.canonical import canonical_form
from ppcore.errors import CompositionError
from ppcore.space import Space

if TYPE_CHECKING:
    import networkx


@dataclass(frozen=True, eq=False)
class Diagram:
    """A diagram ``dom -> cod``.

    Parameters
    ----------
    dom : tuple of Space
        Types of the input wires, numbered 0 … len(dom) − 1.
    nodes : tuple of Node
        Boxes in an order in which each uses only wires made before it.
    outputs : tuple of int
        The wires that leave.
    output_names : tuple of (str or None), optional
        Names of the outputs; a model's sites.

    Raises
    ------
    CompositionError
        A node uses a wire that does not exist yet (a cycle, or a wrong number) or of another
        space than its box takes, or two outputs have one name.

    Equality is structural: equal up to the order of independent boxes, decided in time linear in
    the size (up to the sort of the boxes from which no output is reached).

    >>> real = Space()
    >>> f = Diagram.of(Box("f", (real,), (real,), deterministic=True))
    >>> g = Diagram.of(Box("g", (real,), (real,)))
    >>> (f @ Diagram.id((real,))) >> (Diagram.id((real,)) @ g) == f @ g
    True
    >>> f >> g == g >> f
    False
    """

    dom: tuple[Space, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    output_names: tuple[str | None, ...] = ()

    def __post_init__(self) -> None:
        if not self.output_names:
            object.__setattr__(self, "output_names", (None,) * len(self.outputs))
        named = [n for n in self.output_names if n is not None]
        if len(set(named)) != len(named):
            twice = next(n for n in named if named.count(n) > 1)
            raise CompositionError(f"Two outputs are named {twice!r}; rename one of them.")
        self._check_wiring()

    def _check_wiring(self) -> None:
        wires = list(self.dom)
        for node in self.nodes:
            box = node.box
            if len(node.inputs) != len(box.dom):
                raise CompositionError(
                    f"Box {box} takes {len(box.dom)} wires and is given {len(node.inputs)}."
                )
            for port, (wire, space) in enumerate(zip(node.inputs, box.dom, strict=True)):
                if not 0 <= wire < len(wires):
                    raise CompositionError(
                        f"Box {box} uses wire {wire}, which no earlier box produces: diagrams are "
                        "acyclic. Put the producer first, or record a feedback loop as a scan."
                    )
                if not space.accepts(wires[wire]):
                    raise CompositionError(
                        f"Input {port} of box {box} takes {space}, but its wire carries "
                        f"{wires[wire]}."
                    )
            wires.extend(box.cod)
        for wire in self.outputs:
            if not 0 <= wire < len(wires):
                raise CompositionError(f"Output wire {wire} does not exist.")
        object.__setattr__(self, "_wires", tuple(wires))

    @property
    def wires(self) -> tuple[Space, ...]:
        """The space of every wire, by number."""
        return self._wires  # type: ignore[attr-defined, no-any-return]

    @property
    def cod(self) -> tuple[Space, ...]:
        """Types of the outputs."""
        return tuple(self.wires[i] for i in self.outputs)

    @classmethod
    def of(cls, box: Box) -> Diagram:
        """The diagram of a single box."""
        n = len(box.dom)
        outs = tuple(range(n, n + len(box.cod)))
        return cls(box.dom, (Node(box, tuple(range(n))),), outs)

    @classmethod
    def id(cls, spaces: tuple[Space, ...]) -> Diagram:
        """Plain wires."""
        return cls(tuple(spaces), (), tuple(range(len(spaces))))

    @classmethod
    def copy(cls, space: Space, n: int = 2) -> Diagram:
        """One wire to ``n`` equal ones."""
        return cls((space,), (), (0,) * n)

    @classmethod
    def discard(cls, space: Space) -> Diagram:
        """One wire to none."""
        return cls((space,), (), ())

    @classmethod
    def swap(cls, a: Space, b: Space) -> Diagram:
        """Two wires crossed."""
        return cls((a, b), (), (1, 0))

    def then(self, other: Diagram) -> Diagram:
        """Sequential composition, ``self >> other``.

        Raises :class:`CompositionError` where the ends do not meet, showing both spaces.
        """
        if len(self.outputs) != len(other.dom):
            raise CompositionError(
                f"Cannot compose: {len(self.outputs)} wires leave and {len(other.dom)} enter."
            )
        for i, (a, b) in enumerate(zip(self.cod, other.dom, strict=True)):
            if not b.accepts(a):
                raise CompositionError(f"Cannot compose at wire {i}: {a} leaves, {b} is expected.")
        return self._append(other, list(self.outputs), (), ())

    def tensor(self, other: Diagram) -> Diagram:
        """Parallel composition, ``self @ other``."""
        lifted = Diagram.__new__(Diagram)
        shift = len(other.dom)
        k = len(self.dom)

        def move(w: int) -> int:
            return w if w < k else w + shift

        nodes = tuple(Node(n.box, tuple(map(move, n.inputs))) for n in self.nodes)
        outputs = tuple(map(move, self.outputs))
        lifted = Diagram(self.dom + other.dom, nodes, outputs, self.output_names)
        entering = list(range(k, k + shift))
        return lifted._append(other, entering, outputs, self.output_names)

    def _append(
        self,
        other: Diagram,
        entering: list[int],
        outputs: tuple[int, ...],
        names: tuple[str | None, ...],
    ) -> Diagram:
        wires = list(entering)
        nodes = list(self.nodes)
        count = len(self.wires)
        for node in other.nodes:
            nodes.append(Node(node.box, tuple(wires[i] for i in node.inputs)))
            wires.extend(range(count, count + len(node.box.cod)))
            count += len(node.box.cod)
        outs = outputs + tuple(wires[i] for i in other.outputs)
        return Diagram(self.dom, tuple(nodes), outs, names + other.output_names)

    def __rshift__(self, other: Diagram) -> Diagram:
        return self.then(other) if isinstance(other, Diagram) else NotImplemented

    def __matmul__(self, other: Diagram) -> Diagram:
        return self.tensor(other) if isinstance(other, Diagram) else NotImplemented

    @cached_property
    def canonical(self) -> tuple[Any, ...]:
        """A tuple that two diagrams share exactly when they are structurally equal."""
        return canonical_form(self)

    @cached_property
    def _hash(self) -> int:
        return hash(self.canonical)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Diagram):
            return NotImplemented
        return self._hash == other._hash and self.canonical == other.canonical

    def boxes(self) -> Iterator[Box]:
        """Every box, those inside plates and scans included, outer boxes first."""
        for node in self.nodes:
            yield node.box
            if node.box.body is not None:
                yield from node.box.body.boxes()

    def named(self, op: str) -> tuple[str, ...]:
        """Names of the sites of one kind ("sample", "observe", …), in order."""
        return tuple(b.name for b in self.boxes() if b.op == op and b.name is not None)

    def to_networkx(self) -> networkx.MultiDiGraph:
        """The diagram as a graph of boxes; wires are edges with ``wire`` and ``space``."""
        from ppcore.diagram.graph import to_networkx

        return to_networkx(self)

    def draw(self, detail: str = "sites") -> str:
        """The diagram as SVG text; see :func:`ppcore.diagram.draw.draw_svg`.

        ``detail="sites"`` shows sites and expressions, "boxes" every box and wire.
        """
        from ppcore.diagram.draw import draw_svg

        return draw_svg(self, detail)

    def _repr_svg_(self) -> str:
        return self.draw()

    def __repr__(self) -> str:
        dom = " ⊗ ".join(map(str, self.dom)) or "I"
        cod = " ⊗ ".join(
            f"{n}: {s}" if n else str(s) for n, s in zip(self.output_names, self.cod, strict=True)
        )
        return f"Diagram({dom} → {cod or 'I'}, {len(self.nodes)} boxes)"
