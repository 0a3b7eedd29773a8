"""Random diagrams for property tests."""

from __future__ import annotations

import random
from itertools import permutations

from hypothesis import strategies as st

from ppcore.diagram import Box, Diagram, Node, Plate
from ppcore.space import Space

REAL, VECTOR, COUNT = Space(), Space((3,)), Space((), "int64")
SPACES = (REAL, VECTOR, COUNT)
P, Q, R = Plate("p", 3, -1), Plate("q", 2, -2), Plate("r", 5, -1)
PLATES = ((), (), (P,), (P, Q), (R,), (R, Q))


@st.composite
def diagrams(draw, dom=None, max_nodes=7, named=False, plates=False):
    """A random diagram; ``named`` gives every box a name of its own."""
    if dom is None:
        dom = tuple(draw(st.lists(st.sampled_from(SPACES), max_size=3)))
    wires = list(dom)
    nodes = []
    for k in range(draw(st.integers(0, max_nodes))):
        inputs: tuple[int, ...] = ()
        if wires:
            inputs = tuple(draw(st.lists(st.integers(0, len(wires) - 1), max_size=3)))
        cod = tuple(draw(st.lists(st.sampled_from(SPACES), max_size=2)))
        box = Box(
            draw(st.sampled_from("fg")),
            tuple(wires[i] for i in inputs),
            cod,
            name=f"box{k}" if named else None,
            normalized=bool(cod),
            deterministic=draw(st.booleans()),
            plates=draw(st.sampled_from(PLATES)) if plates else (),
        )
        nodes.append(Node(box, inputs))
        wires.extend(cod)
    outputs: tuple[int, ...] = ()
    if wires:
        outputs = tuple(draw(st.lists(st.integers(0, len(wires) - 1), max_size=4)))
    return Diagram(tuple(dom), tuple(nodes), outputs)


def starts(d: Diagram) -> list[int]:
    """The first output wire of every node."""
    out, at = [], len(d.dom)
    for node in d.nodes:
        out.append(at)
        at += len(node.box.cod)
    return out


def reorder(d: Diagram, order: list[int]) -> Diagram:
    """The same diagram with its nodes listed in another topological order."""
    first = starts(d)
    number = {i: i for i in range(len(d.dom))}
    nodes = []
    at = len(d.dom)
    for k in order:
        nodes.append(Node(d.nodes[k].box, tuple(number[w] for w in d.nodes[k].inputs)))
        for port in range(len(d.nodes[k].box.cod)):
            number[first[k] + port] = at
            at += 1
    return Diagram(d.dom, tuple(nodes), tuple(number[w] for w in d.outputs), d.output_names)


def parents(d: Diagram) -> list[set[int]]:
    """The nodes that each node reads."""
    first = starts(d)
    maker = {first[k] + p: k for k, n in enumerate(d.nodes) for p in range(len(n.box.cod))}
    return [{maker[w] for w in n.inputs if w in maker} for n in d.nodes]


def shuffled(d: Diagram, seed: int) -> Diagram:
    """A random topological reordering."""
    rng = random.Random(seed)
    above, order, left = parents(d), [], set(range(len(d.nodes)))
    while left:
        k = rng.choice(sorted(k for k in left if not above[k] & left))
        order.append(k)
        left.remove(k)
    return reorder(d, order)


def isomorphic(a: Diagram, b: Diagram) -> bool:
    """Whether some matching of boxes turns one diagram into the other, by trying all."""
    if (a.dom, len(a.nodes), a.output_names) != (b.dom, len(b.nodes), b.output_names):
        return False
    first_a, first_b = starts(a), starts(b)
    for match in permutations(range(len(b.nodes))):
        if any(a.nodes[k].box != b.nodes[m].box for k, m in enumerate(match)):
            continue
        to = {i: i for i in range(len(a.dom))}
        for k, m in enumerate(match):
            to.update({first_a[k] + p: first_b[m] + p for p in range(len(a.nodes[k].box.cod))})
        wired = all(
            tuple(to[w] for w in a.nodes[k].inputs) == b.nodes[m].inputs
            for k, m in enumerate(match)
        )
        if wired and tuple(to[w] for w in a.outputs) == b.outputs:
            return True
    return False
