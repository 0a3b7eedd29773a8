"""Plates as boxes: nest, and flatten, its inverse."""

from __future__ import annotations

import random

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st
from random_diagrams import PLATES, REAL, P, Q, diagrams, parents, shuffled

from ppcore.diagram import Box, Diagram, Node
from ppcore.diagram.nest import flatten, nest
from ppcore.space import Space

seeds = st.integers(0, 2**16)


def plate_boxes(d: Diagram) -> list[Box]:
    return [b for b in d.boxes() if b.op == "plate"]


@given(diagrams(max_nodes=10, plates=True))
def test_flatten_undoes_nest(d):
    nested = nest(d)
    assert (nested.dom, nested.cod) == (d.dom, d.cod)
    assert flatten(nested) == d
    assert nest(nested) == nested


@given(diagrams(max_nodes=10, named=True, plates=True), seeds)
def test_nest_depends_on_structure_only(d, seed):
    assert nest(d) == nest(shuffled(d, seed))


@given(diagrams(max_nodes=10, plates=True))
def test_members_stand_in_the_plates_that_enclose_them(d):
    def check(body: Diagram, around: tuple) -> None:
        for box in (node.box for node in body.nodes):
            assert box.plates == around
            if box.op == "plate":
                inner = box.body
                assert inner.nodes, "no empty plates"
                assert (box.dom, box.cod) == (inner.dom, inner.cod)
                assert box.normalized == all(n.box.normalized for n in inner.nodes)
                assert box.deterministic == all(n.box.deterministic for n in inner.nodes)
                check(inner, (*around, box.spec[1]))

    check(nest(d), ())


@given(diagrams(max_nodes=9, plates=True))
def test_a_plate_is_split_only_where_one_box_each_would_be_a_cycle(d):
    outer = [n.box.plates[:1] for n in d.nodes]
    graph = nx.DiGraph()
    for k, above in enumerate(parents(d)):
        graph.add_node(outer[k] or k)
        for u in above:
            a, b = outer[u] or u, outer[k] or k
            if a != b:
                graph.add_edge(a, b)
    whole = nx.is_directed_acyclic_graph(graph)
    found = [n.box.spec[1] for n in nest(d).nodes if n.box.op == "plate"]
    assert set(found) == {p[0] for p in outer if p}
    if whole:
        assert len(found) == len(set(found))


def site(name: str, *reads: Space, plates: tuple = ()) -> Box:
    return Box("sample", reads, (REAL,), name=name, plates=plates)


def test_a_plate_left_and_entered_again_is_split():
    d = Diagram(
        (),
        (
            Node(site("a", plates=(P,)), ()),
            Node(site("b", REAL), (0,)),
            Node(site("c", REAL, REAL, plates=(P,)), (1, 0)),
        ),
        (0, 1, 2),
        ("a", "b", "c"),
    )
    nested = nest(d)
    assert [str(n.box) for n in nested.nodes] == ["plate", "b", "plate"]
    assert flatten(nested) == d


def test_nested_plates_and_captured_wires():
    d = Diagram(
        (),
        (
            Node(site("mu"), ()),
            Node(site("a", REAL, plates=(P,)), (0,)),
            Node(site("b", REAL, REAL, plates=(P, Q)), (1, 0)),
        ),
        (2,),
    )
    outer = nest(d).nodes[1]
    assert outer.inputs == (0,)
    assert outer.box.spec == ("plate", P) and outer.box.plates == ()
    inner = outer.box.body.nodes[1]
    assert inner.box.spec == ("plate", Q) and inner.box.plates == (P,)
    assert [str(n.box) for n in inner.box.body.nodes] == ["b"]


def test_bodies_of_scans_are_nested_too():
    body = Diagram((REAL,), (Node(site("z", REAL, plates=(P,)), (0,)),), (1,))
    d = Diagram.of(Box("scan", (REAL,), (REAL,), body=body))
    assert len(plate_boxes(nest(d))) == 1
    assert flatten(nest(d)) == d
    inside = Diagram.of(Box("scan", (REAL,), (REAL,), body=body, plates=(P,)))
    assert len(plate_boxes(nest(inside))) == 1, "the plate around the scan is not repeated in it"


def test_random_plates_cover_splits():
    """The random diagrams above do meet plates that must be split."""
    rng = random.Random(0)
    split = 0
    for _ in range(200):
        nodes = []
        for k in range(8):
            reads = tuple(rng.randrange(k) for _ in range(min(k, 2)))
            box = site(f"s{k}", *(REAL,) * len(reads), plates=rng.choice(PLATES))
            nodes.append(Node(box, reads))
        found = [n.box.spec for n in nest(Diagram((), tuple(nodes), ())).nodes]
        plates = [s for s in found if s and s[0] == "plate"]
        split += len(plates) > len(set(plates))
    assert split > 20
