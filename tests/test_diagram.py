"""The laws of copy-discard categories, structural equality, wiring errors."""

from __future__ import annotations

import sys
from dataclasses import replace

import networkx as nx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from random_diagrams import (
    COUNT,
    REAL,
    VECTOR,
    P,
    diagrams,
    isomorphic,
    parents,
    shuffled,
    starts,
)

from ppcore.diagram import Box, Diagram, Node
from ppcore.errors import CompositionError
from ppcore.space import Space, Support

seeds = st.integers(0, 2**16)


def identity(d: Diagram) -> Diagram:
    return Diagram.id(d.cod)


# Laws: wiring is implicit, so both sides are equal as they stand.


@given(st.data())
def test_sequential_composition_is_associative_with_units(data):
    a = data.draw(diagrams(max_nodes=4))
    b = data.draw(diagrams(dom=a.cod, max_nodes=4))
    c = data.draw(diagrams(dom=b.cod, max_nodes=4))
    assert (a >> b) >> c == a >> (b >> c)
    assert Diagram.id(a.dom) >> a == a
    assert a >> identity(a) == a


@given(diagrams(max_nodes=4), diagrams(max_nodes=4), diagrams(max_nodes=4))
def test_parallel_composition_is_associative_with_unit(a, b, c):
    assert (a @ b) @ c == a @ (b @ c)
    assert a @ Diagram.id(()) == a == Diagram.id(()) @ a


@given(st.data())
def test_interchange(data):
    a = data.draw(diagrams(max_nodes=4))
    b = data.draw(diagrams(dom=a.cod, max_nodes=4))
    c = data.draw(diagrams(max_nodes=4))
    d = data.draw(diagrams(dom=c.cod, max_nodes=4))
    assert (a >> b) @ (c >> d) == (a @ c) >> (b @ d)
    assert (a @ Diagram.id(c.dom)) >> (identity(a) @ c) == a @ c
    assert (Diagram.id(a.dom) @ c) >> (a @ identity(c)) == a @ c


def crossing(left: tuple[Space, ...], right: tuple[Space, ...]) -> Diagram:
    """The symmetry on several wires: left past right."""
    n, m = len(left), len(right)
    return Diagram(left + right, (), (*range(n, n + m), *range(n)))


@given(diagrams(max_nodes=4), diagrams(max_nodes=4))
def test_symmetry_is_natural_and_undoes_itself(a, b):
    assert (a @ b) >> crossing(a.cod, b.cod) == crossing(a.dom, b.dom) >> (b @ a)
    there_and_back = Diagram.swap(REAL, VECTOR) >> Diagram.swap(VECTOR, REAL)
    assert there_and_back == Diagram.id((REAL, VECTOR))


@pytest.mark.parametrize("space", [REAL, VECTOR, COUNT])
def test_copy_and_discard_form_a_commutative_comonoid(space):
    one, copy, discard = Diagram.id((space,)), Diagram.copy(space), Diagram.discard(space)
    assert copy >> (copy @ one) == copy >> (one @ copy) == Diagram.copy(space, 3)
    assert copy >> (discard @ one) == one == copy >> (one @ discard)
    assert copy >> Diagram.swap(space, space) == copy


def test_copy_and_discard_of_a_pair_are_componentwise():
    pair = Diagram((REAL, VECTOR), (), (0, 1, 0, 1))
    middle = Diagram.id((REAL,)) @ Diagram.swap(REAL, VECTOR) @ Diagram.id((VECTOR,))
    assert (Diagram.copy(REAL) @ Diagram.copy(VECTOR)) >> middle == pair


# Equality.


@given(diagrams(max_nodes=9), seeds)
def test_equality_ignores_the_order_of_independent_boxes(d, seed):
    other = shuffled(d, seed)
    assert d == other
    assert hash(d) == hash(other)


@given(diagrams(max_nodes=5), seeds, st.data())
def test_equality_is_isomorphism_on_small_diagrams(d, seed, data):
    """Against trying all matchings, on a diagram with one wire moved."""
    readers = [k for k, n in enumerate(d.nodes) if n.inputs]
    assume(readers)
    k = data.draw(st.sampled_from(readers))
    port = data.draw(st.integers(0, len(d.nodes[k].inputs) - 1))
    space = d.wires[d.nodes[k].inputs[port]]
    allowed = [w for w in range(starts(d)[k]) if d.wires[w] == space]
    inputs = list(d.nodes[k].inputs)
    inputs[port] = data.draw(st.sampled_from(allowed))
    nodes = list(d.nodes)
    nodes[k] = Node(d.nodes[k].box, tuple(inputs))
    moved = shuffled(Diagram(d.dom, tuple(nodes), d.outputs), seed)
    assert (d == moved) == isomorphic(d, moved)


@given(diagrams(named=True), st.data())
def test_equality_sees_swapped_inputs(d, data):
    pairs = [
        (k, i, j)
        for k, n in enumerate(d.nodes)
        for i in range(len(n.inputs))
        for j in range(i)
        if n.inputs[i] != n.inputs[j] and n.box.dom[i] == n.box.dom[j]
    ]
    assume(pairs)
    k, i, j = data.draw(st.sampled_from(pairs))
    inputs = list(d.nodes[k].inputs)
    inputs[i], inputs[j] = inputs[j], inputs[i]
    nodes = [*d.nodes[:k], Node(d.nodes[k].box, tuple(inputs)), *d.nodes[k + 1 :]]
    assert d != Diagram(d.dom, tuple(nodes), d.outputs)


@given(diagrams(), st.data())
def test_equality_sees_a_changed_box(d, data):
    assume(d.nodes)
    k = data.draw(st.integers(0, len(d.nodes) - 1))
    changes = data.draw(
        st.sampled_from([{"op": "z"}, {"name": "new"}, {"spec": (1,)}, {"plates": (P,)}])
    )
    nodes = list(d.nodes)
    nodes[k] = Node(replace(d.nodes[k].box, **changes), d.nodes[k].inputs)
    assert d != Diagram(d.dom, tuple(nodes), d.outputs)


@given(diagrams(named=True), st.data())
def test_equality_sees_swapped_outputs(d, data):
    pairs = [
        (i, j) for i in range(len(d.outputs)) for j in range(i) if d.outputs[i] != d.outputs[j]
    ]
    assume(pairs)
    i, j = data.draw(st.sampled_from(pairs))
    outputs = list(d.outputs)
    outputs[i], outputs[j] = outputs[j], outputs[i]
    assert d != Diagram(d.dom, d.nodes, tuple(outputs))


@pytest.mark.parametrize("deterministic", [False, True])
def test_one_sample_copied_is_not_two_samples(deterministic):
    coin = Diagram.of(Box("sample", (), (REAL,), deterministic=deterministic))
    assert coin >> Diagram.copy(REAL) != coin @ coin


def test_equality_sees_output_names_and_bodies():
    d = Diagram.of(Box("f", (), (REAL,)))
    assert d != Diagram(d.dom, d.nodes, d.outputs, ("x",))
    scan = Box("scan", (REAL,), (REAL,), body=Diagram.id((REAL,)))
    other = replace(scan, body=Diagram.of(Box("f", (REAL,), (REAL,))))
    assert Diagram.of(scan) != Diagram.of(other)
    assert Diagram.of(scan) == Diagram.of(replace(scan, body=Diagram.id((REAL,))))


def two_effects(n: int) -> Diagram:
    """``n`` equal states, each read by two effects."""
    source = Box("s", (), (REAL,))
    f, g = (Box(op, (REAL,), (), normalized=False) for op in "fg")
    nodes = [Node(source, ()) for _ in range(n)]
    nodes += [Node(box, (i,)) for box in (f, g) for i in range(n)]
    return Diagram((), tuple(nodes), ())


@given(st.integers(1, 12), seeds)
def test_many_effects_on_look_alike_states(n, seed):
    d = two_effects(n)
    assert d == shuffled(d, seed)
    one = two_effects(1)
    several = one
    for _ in range(n - 1):
        several = several @ one
    assert several == d


def test_effects_that_are_wired_differently_are_told_apart():
    source, link = Box("s", (), (REAL,)), Box("t", (REAL, REAL), (), normalized=False)
    states = [Node(source, ()) for _ in range(6)]
    ring = [Node(link, (i, (i + 1) % 6)) for i in range(6)]
    rings = [Node(link, (i, (i + 1) % 3 + i // 3 * 3)) for i in range(6)]
    assert Diagram((), (*states, *ring), ()) != Diagram((), (*states, *rings), ())


def steps(d: Diagram) -> int:
    """Lines of Python that the canonical form takes."""
    count = 0

    def local(frame, event, arg):
        nonlocal count
        count += event == "line"
        return local

    def trace(frame, event, arg):
        return local if frame.f_code.co_filename.endswith("canonical.py") else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        d.canonical  # noqa: B018
    finally:
        sys.settrace(before)
    return count


def chain(n: int) -> Diagram:
    box = Box("f", (REAL,), (REAL,))
    return Diagram((REAL,), tuple(Node(box, (i,)) for i in range(n)), (n,))


def fan(n: int) -> Diagram:
    effect = Box("g", (REAL,), (), normalized=False)
    return Diagram((REAL,), (Node(effect, (0,)),) * n, ())


@pytest.mark.parametrize("family", [chain, fan, two_effects])
def test_equality_takes_linear_time(family):
    small, large = steps(family(200)), steps(family(800))
    print(f"{family.__name__}: {small} lines for 200, {large} for 800")
    assert large <= 4.2 * small


# Wiring errors.


def test_a_wire_of_the_wrong_space_is_refused_with_both_spaces():
    box = Box("f", (VECTOR,), (REAL,))
    with pytest.raises(CompositionError) as error:
        Diagram((COUNT,), (Node(box, (0,)),), ())
    assert str(VECTOR) in str(error.value) and str(COUNT) in str(error.value)
    with pytest.raises(CompositionError) as error:
        Diagram.id((COUNT,)) >> Diagram.of(box)
    assert str(VECTOR) in str(error.value) and str(COUNT) in str(error.value)


def test_a_narrower_support_fits_and_a_wider_one_does_not():
    positive = Space((), "float64", Support("positive", 0.0))
    log, exp = Box("log", (positive,), (REAL,)), Box("exp", (REAL,), (positive,))
    assert (Diagram.of(exp) >> Diagram.of(log) >> Diagram.of(exp)).cod == (positive,)
    with pytest.raises(CompositionError, match="positive"):
        Diagram.id((REAL,)) >> Diagram.of(log)


def test_a_cycle_is_refused():
    box = Box("f", (REAL,), (REAL,))
    with pytest.raises(CompositionError, match="acyclic"):
        Diagram((), (Node(box, (1,)), Node(box, (0,))), ())
    with pytest.raises(CompositionError, match="acyclic"):
        Diagram((), (Node(box, (0,)),), ())


def test_other_wiring_errors():
    with pytest.raises(CompositionError, match="'x'"):
        Diagram((REAL,), (), (0, 0), ("x", "x"))
    with pytest.raises(CompositionError, match="takes 1 wires and is given 2"):
        Diagram((REAL,), (Node(Box("f", (REAL,), ()), (0, 0)),), ())
    with pytest.raises(CompositionError, match="Output wire 3"):
        Diagram((REAL,), (), (3,))
    with pytest.raises(CompositionError, match="2 wires leave and 1 enter"):
        Diagram.copy(REAL) >> Diagram.id((REAL,))


# networkx.


@given(diagrams())
def test_to_networkx_keeps_boxes_wires_and_ports(d):
    graph = d.to_networkx()
    assert nx.is_directed_acyclic_graph(graph)
    assert len(graph) == len(d.dom) + len(d.nodes) + len(d.outputs)
    assert graph.number_of_edges() == sum(len(n.inputs) for n in d.nodes) + len(d.outputs)
    for _, _, edge in graph.edges(data=True):
        assert edge["space"] == d.wires[edge["wire"]]
    for k, node in enumerate(d.nodes):
        assert graph.nodes[k]["box"] == node.box
        ports = {e["target_port"]: e["wire"] for _, _, e in graph.in_edges(k, data=True)}
        assert tuple(ports[i] for i in range(len(node.inputs))) == node.inputs
        assert {u for u, _ in graph.in_edges(k) if isinstance(u, int)} == parents(d)[k]
