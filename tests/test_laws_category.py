"""Laws of copy-discard categories, on random diagrams with the tensor semantics, to 1e-10."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from ppcore.diagram import Diagram
from ppcore.exact import ZeroEvidenceError
from ppcore.model_kernel import from_diagram
from ppcore.semantics.tensor import finite_space, tensor
from tests.finite_diagrams import KINDS, SIZES, WIRES, boxes, diagrams, matrix, same, size_of

settings.register_profile("laws", parent=settings.get_profile("fixed"), max_examples=50)
laws = settings(settings.get_profile("laws"))


@laws
@given(diagrams(layers=2), diagrams(layers=2), st.data())
def test_interchange(f, g, data) -> None:
    f2 = data.draw(diagrams(dom=map(size_of, f.cod), layers=1))
    g2 = data.draw(diagrams(dom=map(size_of, g.cod), layers=1))
    assert same((f >> f2) @ (g >> g2), (f @ g) >> (f2 @ g2))
    assert (f >> f2) @ (g >> g2) == (f @ g) >> (f2 @ g2)


@laws
@given(diagrams(layers=2), st.data())
def test_the_tensor_semantics_is_a_functor(f, data) -> None:
    g = data.draw(diagrams(dom=map(size_of, f.cod), layers=2))
    h = data.draw(diagrams(layers=2))
    np.testing.assert_allclose(matrix(f >> g), matrix(f) @ matrix(g), rtol=1e-10, atol=1e-10)
    beside = np.kron(matrix(f), matrix(h))
    np.testing.assert_allclose(matrix(f @ h), beside, rtol=1e-10, atol=1e-10)


@laws
@given(WIRES)
def test_identities_are_identity_matrices(sizes) -> None:
    n = int(np.prod(sizes))
    assert np.array_equal(matrix(Diagram.id(tuple(map(finite_space, sizes)))), np.eye(n))


@laws
@given(diagrams(layers=1), SIZES)
def test_symmetry_is_natural(f, size) -> None:
    """A wire crosses a box or its outputs alike, and crossing twice is nothing."""
    one = finite_space(size)

    def past(spaces):
        n = len(spaces)
        return Diagram((*spaces, one), (), (n, *range(n)))

    left = (f @ Diagram.id((one,))) >> past(f.cod)
    right = past(f.dom) >> (Diagram.id((one,)) @ f)
    assert same(left, right) and left == right
    there, back = Diagram.swap(one, finite_space(2)), Diagram.swap(finite_space(2), one)
    assert there >> back == Diagram.id((one, finite_space(2)))


@laws
@given(SIZES)
def test_copy_and_discard_are_a_commutative_comonoid(size) -> None:
    x = finite_space(size)
    copy, wire, drop = Diagram.copy(x), Diagram.id((x,)), Diagram.discard(x)
    for a, b in (
        (copy >> (copy @ wire), copy >> (wire @ copy)),
        (copy >> Diagram.swap(x, x), copy),
        (copy >> (drop @ wire), wire),
        (copy >> (wire @ drop), wire),
    ):
        assert a == b and same(a, b)


@laws
@given(boxes(kind=KINDS))
def test_discard_is_natural_exactly_for_normalised_boxes(f) -> None:
    drop = [Diagram(d, (), ()) for d in (f.cod, f.dom)]
    natural = same(f >> drop[0], drop[1])
    assert natural == f.nodes[0].box.normalized


@laws
@given(boxes(kind=KINDS))
def test_copy_is_natural_exactly_for_deterministic_boxes(f) -> None:
    def twice(spaces):
        n = len(spaces)
        return Diagram(spaces, (), (*range(n), *range(n)))

    natural = same(f >> twice(f.cod), twice(f.dom) >> (f @ f))
    box = f.nodes[0].box
    # A weight that is 0 or 1 everywhere is copyable too without being normalised.
    table = tensor(f)
    rows = table.reshape(int(np.prod([size_of(s) for s in f.dom])), -1)
    partial = bool(np.isin(table, (0, 1)).all() and (rows.sum(1) <= 1).all())
    assert natural == (box.deterministic or partial)
    assume(box.normalized)
    assert natural == box.deterministic


@laws
@given(diagrams())
def test_structural_rewrites_keep_the_tensor(f) -> None:
    from ppcore.causal.marginal import prune
    from ppcore.diagram.nest import flatten, nest

    assert same(prune(f), f)
    assert same(flatten(nest(f)), f)


@settings(laws, max_examples=15)
@given(diagrams(dom=(), kind="kernel"))
def test_sampling_is_a_functor(f) -> None:
    """The draws of a composite follow its tensor: a goodness-of-fit test at level 1e-5 each."""
    names = [f"w{j}" for j in range(len(f.cod))]
    assume(names)
    model = from_diagram(f, names)
    table = tensor(f)
    np.testing.assert_allclose(model.solve().table(*names), table, rtol=1e-10, atol=1e-10)
    n = 2000
    draws = model.simulate(0, n)
    cell = np.ravel_multi_index([draws[w].astype(int) for w in names], table.shape)
    counts, expected = np.bincount(cell, minlength=table.size), n * table.ravel()
    assert not counts[expected < 1e-9].any(), "a draw where the tensor has no mass"
    common = expected > 5
    if common.sum() > 1:
        share = expected[common] / expected[common].sum()
        p = chisquare(counts[common], share * counts[common].sum()).pvalue
        assert p > 1e-5


@settings(laws, max_examples=15)
@given(diagrams(dom=()))
def test_lowering_keeps_the_weight_of_effects(f) -> None:
    names = [f"w{j}" for j in range(len(f.cod))]
    assume(names)
    table = tensor(f)
    model = from_diagram(f, names)
    if table.sum() == 0:
        with pytest.raises(ZeroEvidenceError):
            model.solve()
        return
    solution = model.solve()
    np.testing.assert_allclose(solution.log_evidence, np.log(table.sum()), atol=1e-10)
    np.testing.assert_allclose(solution.table(*names), table / table.sum(), atol=1e-10)
