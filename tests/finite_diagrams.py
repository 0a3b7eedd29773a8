"""Random finite diagrams for tests of laws."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

import ppcore as pp
from ppcore import dist
from ppcore.diagram import Diagram
from ppcore.semantics.tensor import finite_space, stochastic, tensor

SIZES = st.integers(1, 3)
SEEDS = st.integers(0, 2**32 - 1)
WIRES = st.lists(SIZES, min_size=0, max_size=2).map(tuple)


def random_box(
    rng: np.random.Generator, dom: tuple[int, ...], cod: tuple[int, ...], kind: str = "kernel"
) -> Diagram:
    """One box: "kernel" (normalised), "function" (deterministic) or "effect" (neither).

    Tables have exact zeros, so that laws are tried on what has no full support too.
    """
    rows, columns = int(np.prod(dom)), int(np.prod(cod))
    if kind == "function":
        table = np.eye(columns)[rng.integers(columns, size=rows)]
    else:
        table = rng.gamma(0.5, size=(rows, columns)) * rng.integers(0, 2, (rows, columns))
        table[np.arange(rows), rng.integers(columns, size=rows)] += rng.uniform(0.1, 1, rows)
        if kind == "kernel":
            table /= table.sum(1, keepdims=True)
    return stochastic(table.reshape((*dom, *cod)), dom, cod)


@st.composite
def boxes(draw: Any, dom: Any = WIRES, cod: Any = WIRES, kind: Any = "kernel") -> Diagram:
    kind = draw(kind) if isinstance(kind, st.SearchStrategy) else kind
    dom = draw(dom) if isinstance(dom, st.SearchStrategy) else dom
    cod = draw(cod) if isinstance(cod, st.SearchStrategy) else cod
    return random_box(np.random.default_rng(draw(SEEDS)), tuple(dom), tuple(cod), kind)


KINDS = st.sampled_from(["kernel", "function", "effect"])


@st.composite
def diagrams(draw: Any, dom: Any = None, layers: int = 3, kind: Any = KINDS) -> Diagram:
    """A composite of random layers: boxes beside wires that are copied, discarded and swapped."""
    wires = draw(WIRES) if dom is None else tuple(dom)
    made = Diagram.id(tuple(map(finite_space, wires)))
    for _ in range(draw(st.integers(1, layers))):
        spaces = made.cod
        picks = draw(st.lists(st.integers(0, max(len(spaces) - 1, 0)), max_size=3))
        chosen = [p for p in picks if spaces]
        wiring = Diagram(spaces, (), tuple(chosen))
        made = made >> wiring
        k = draw(st.integers(0, len(made.cod)))
        above = tuple(size_of(s) for s in made.cod[:k])
        box = draw(boxes(dom=above, cod=WIRES, kind=kind))
        made = made >> (box @ Diagram.id(made.cod[k:]))
        if len(made.cod) > 3:
            made = made >> Diagram(made.cod, (), (0, 1, 2))
    return made


def size_of(space: Any) -> int:
    return int(space.support.upper) + 1


def matrix(diagram: Diagram) -> np.ndarray:
    """The tensor as a matrix, inputs by outputs."""
    rows = int(np.prod([size_of(s) for s in diagram.dom]))
    return tensor(diagram).reshape(rows, -1)


def same(a: Diagram, b: Diagram) -> bool:
    """Equal meaning, to 1e-10."""
    x, y = tensor(a), tensor(b)
    return x.shape == y.shape and bool(np.allclose(x, y, rtol=1e-10, atol=1e-10))


@st.composite
def networks(draw: Any, nodes: int = 4, positive: bool = False) -> Any:
    """A random Bayesian network as a model with sites x0 … x{n−1}: (model, parents)."""
    rng = np.random.default_rng(draw(SEEDS))
    n = draw(st.integers(2, nodes))
    sizes = [draw(st.integers(2, 3)) for _ in range(n)]
    parents = [[j for j in range(i) if draw(st.booleans())][:2] for i in range(n)]
    tables = []
    for i in range(n):
        shape = (*(sizes[j] for j in parents[i]), sizes[i])
        table = rng.gamma(1.0, size=shape) + (0.05 if positive else 0.0)
        if not positive:
            table *= rng.integers(0, 2, shape)
            table[..., 0] += 0.1
        tables.append(table / table.sum(-1, keepdims=True))

    @pp.model
    def network() -> None:
        wires: list[Any] = []
        for i in range(n):
            rows = tables[i]
            index = tuple(wires[j] for j in parents[i])
            chosen = pp.math.get_at(rows, index) if index else rows
            wires.append(pp.sample(f"x{i}", dist.Categorical(chosen)))

    return network(), parents


def close(a: Any, b: Any) -> None:
    """Equal to 1e-10."""
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def table(model: Any, sites: Any) -> np.ndarray:
    """p(sites), exactly."""
    return model.solve().table(*sites)
