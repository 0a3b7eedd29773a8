"""Observations with equal parameters, gathered: one weighted value for many.

Rows of a plate whose predictors (indices and columns) are equal have the same distribution. Their
log densities depend on the values only through Σ T(y), T the family's sufficient statistic, and so
on a few weighted values with the same sums; for a family without T, on how often each value occurs.
The densities stay NumPyro's. Source: Fisher, "Two new properties of mathematical likelihood"
(1934), doi:10.1098/rspa.1934.0050.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from ppcore.diagram import Box, Hole, Node
from ppcore.dist import build
from ppcore.recording.template import Structure, from_template
from ppcore.rewrite.build import Builder, Token
from ppcore.rewrite.linear import Reader
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.row_statistics import sigma_points, summed
from ppcore.rewrite.sites import has_labels, told
from ppcore.space import Space, natural_space

MOST = 40_000_000  # numbers that are sorted to find equal rows
GLANCE = 4096  # rows looked at first
_ELEMENTWISE = frozenset(
    f"numpy.{n}"
    for n in "add subtract multiply divide true_divide negative positive exp log log1p expm1 sqrt "
    "square abs absolute power maximum minimum tanh sin cos reciprocal where logaddexp".split()
)


class _No(Exception):
    """Why a site's rows cannot be gathered."""


@dataclass(frozen=True)
class RepeatedRows:
    """Gather observations whose parameters are equal.

    The density at every point is unchanged: Σ_n log p(y_n | θ_r(n)) = Σ_r Σ_i w_ri
    log p(y*_ri | θ_r) + constant, where r counts distinct rows of predictors and the weighted
    values y* have the same sums of sufficient statistics.

    >>> RepeatedRows().name
    'repeated_rows'
    """

    name: ClassVar[str] = "repeated_rows"
    summary: ClassVar[str] = "observations with equal parameters are gathered"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem with fewer, weighted observations."""
        if has_labels(problem.diagram):
            return NotApplicable("discrete sites are summed out here, observation by observation.")
        reader = Reader(problem)
        found: dict[int, Gathered] = {}
        reasons = []
        for k, node in enumerate(problem.diagram.nodes):
            if node.box.op == "observe":
                try:
                    found[k] = _gathered(reader, node)
                except _No as why:
                    reasons.append(f"{node.box.name!r} {why}")
        if not found:
            return NotApplicable("; ".join(reasons) or "nothing is observed outside scans.")
        builder = Builder()
        tokens = builder.copy(problem, frozenset(found))
        lines = []
        for k, rows in found.items():
            node = problem.diagram.nodes[k]
            _emit(builder, tokens, reader, node, rows)
            lines.append(f"{node.box.name}: {rows.before} observations became {len(rows.weights)}")
        return Rewritten(builder.finish(), None, "; ".join(lines))


@dataclass(frozen=True, eq=False)
class Gathered:
    """The rows that stand for all.

    Attributes
    ----------
    before : int
        Number of observations.
    rows : int[m] or None
        An original row with the parameters of each; None if no parameter varies.
    cone : tuple of int
        Nodes that compute row by row, in order.
    values, weights : float[m, ...], float[m]
    constant : float
    """

    before: int
    rows: np.ndarray | None
    cone: tuple[int, ...]
    values: np.ndarray
    weights: np.ndarray
    constant: float


@dataclass(frozen=True)
class Described:
    """A distribution's template, kept from being filled before its box runs."""

    template: Structure


def weighted_log_prob(*values: Any, described: Described) -> Any:
    """Σ w log p(y | parameters) + constant; ``values``: w, constant, the box's inputs and y."""
    import jax.numpy as jnp

    weights, constant, *inputs, y = values
    distribution = build(from_template(described.template, inputs), lambda v: v)
    return jnp.sum(weights * distribution.log_prob(y)) + constant


def _gathered(reader: Reader, node: Node) -> Gathered:
    site, shape = told(node.box), node.box.dom[-1].shape
    bounded = node.box.dom[-1].support.dependent and not site.family.startswith("Binomial")
    if site.masks or bounded:
        raise _No("is masked, or bounded by random values.")
    y = np.asarray(reader.known(node.inputs[-1]))
    if site.family == "MultivariateNormal" and len(shape) == 2:
        return _vectors(reader, node, y)
    if len(shape) != 1 or node.box.spec[2] > 1 or site.family in ("Multinomial", "Dirichlet"):
        raise _No("is no plate of numbers.")
    n = shape[0]
    cone, leaves = _cone(reader, node, n)
    columns = [np.asarray(reader.known(w)).reshape(n, -1) for w in leaves]
    keys = np.concatenate(columns, axis=1).astype(float) if columns else np.zeros((n, 0))
    if (keys.shape[1] + 1) * n > MOST:
        raise _No("has too many numbers to look for equal rows.")
    trials = None
    if site.family.startswith("Binomial"):
        template = site.arguments.get("total_count", 1)
        wire = node.inputs[template.index] if isinstance(template, Hole) else None
        if wire is not None and reader.random[wire]:
            raise _No("has a random number of trials.")
        trials = np.asarray(template if wire is None else reader.known(wire), float)
    made = summed(site.family, y, _distinct(keys), trials) if _repeats(keys) else None
    if made is None:
        both = np.concatenate([keys, y.reshape(n, 1).astype(float)], axis=1)
        if not _repeats(both):
            raise _No("has rows that hardly repeat.")
        _, first, count = np.unique(both, axis=0, return_index=True, return_counts=True)
        made = first, y[first], count.astype(float), 0.0
    rows, values, weights, constant = made
    if 2 * len(weights) > n:
        raise _No(f"has {len(weights)} different rows of {n}.")
    return Gathered(n, rows if leaves else None, cone, values, weights, constant)


def _repeats(keys: np.ndarray) -> bool:
    """Whether a look at the first rows finds equal ones."""
    if not keys.shape[1]:
        return True
    part = keys[:GLANCE]
    return len(np.unique(part, axis=0)) <= 0.7 * len(part) or len(keys) > 4 * GLANCE


def _distinct(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An original row of each different one, and which of them every row equals."""
    if not keys.shape[1]:
        return np.zeros(1, int), np.zeros(len(keys), int)
    _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first, inverse.reshape(-1)


def _vectors(reader: Reader, node: Node, y: np.ndarray) -> Gathered:
    n, d = y.shape
    for w in node.inputs[:-1]:
        if reader.diagram.wires[w].shape not in ((), (d,), (d, d)):
            raise _No("has parameters that vary from row to row.")
    if n <= 4 * d or n == d:
        raise _No(f"has only {n} rows.")
    values, weights = sigma_points(y)
    return Gathered(n, None, (), values, weights, 0.0)


def _cone(reader: Reader, node: Node, n: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Nodes that compute parameters row by row, and the data wires that tell rows apart."""
    diagram = reader.diagram
    cone: set[int] = set()
    leaves: set[int] = set()
    stack = list(node.inputs[:-1])
    # A category's parameters are vectors: one for all rows, or gathered row by row.
    whole = {w for w in stack if told(node.box).family.startswith("Categorical")}
    whole -= {w for w in whole if len(diagram.wires[w].shape) not in (1, 2)}
    while stack:
        w = stack.pop()
        space = diagram.wires[w]
        if (space.shape in ((), (1,)) and n > 1) or (w in whole and space.shape[0] != n):
            continue
        if space.shape[:1] != (n,) or (len(space.shape) > 1 and w not in whole):
            raise _No(f"has a parameter of shape {space.shape}.")
        if not reader.random[w]:
            leaves.add(w)
            continue
        k = reader.maker[w]
        assert k is not None
        if k in cone:
            continue
        box, inputs = diagram.nodes[k].box, diagram.nodes[k].inputs
        if len(space.shape) == 1 and _is_elementwise(box):
            stack.extend(inputs)
        elif _is_gather(reader, box, inputs, n):
            leaves.add(inputs[1])
        elif _is_product(reader, box, inputs, n):
            leaves.add(inputs[0])
        else:
            raise _No(f"has a parameter that {str(box)!r} makes of all rows at once.")
        cone.add(k)
    return tuple(sorted(cone)), tuple(sorted(leaves))


def _is_elementwise(box: Box) -> bool:
    named = box.op in _ELEMENTWISE or box.op == "deterministic"
    return named or box.op.startswith("scipy.special.")


def _is_gather(reader: Reader, box: Box, inputs: tuple[int, ...], n: int) -> bool:
    """``values[index]`` with known integer indices."""
    if box.op != "getitem" or len(inputs) != 2 or reader.random[inputs[1]]:
        return False
    index, source = box.dom[1], box.dom[0]
    plain = box.spec.items[0].items == (Hole(0), Hole(1))
    kind = np.dtype(index.dtype).kind
    return plain and kind in "iu" and index.shape == (n,) and len(source.shape) >= 1


def _is_product(reader: Reader, box: Box, inputs: tuple[int, ...], n: int) -> bool:
    """``matrix @ vector`` with a known matrix."""
    if box.op not in ("numpy.matmul", "numpy.dot") or len(inputs) != 2 or reader.random[inputs[0]]:
        return False
    plain = box.spec.items[0].items == (Hole(0), Hole(1))
    return plain and len(box.dom[0].shape) == 2 and len(box.dom[1].shape) == 1


def _emit(builder: Builder, tokens: list[Any], reader: Reader, node: Node, found: Gathered) -> None:
    """The factor of the gathered rows, and the boxes that compute their parameters."""
    diagram, m = reader.diagram, len(found.weights)
    dtype = (
        node.box.dom[-1].dtype if np.dtype(node.box.dom[-1].dtype).kind == "f" else _real(builder)
    )
    own: dict[int, Token] = {}

    def token(w: int, rowwise: bool) -> Token:
        """The wire for the gathered rows: computed again, cut to them, or as it is."""
        if w in own:
            return own[w]
        space = diagram.wires[w]
        if reader.random[w] or not rowwise or space.shape in ((), (1,)):
            return tokens[w]  # type: ignore[no-any-return]
        cut = np.asarray(reader.known(w))[found.rows]
        own[w] = builder.input(
            cut.astype(space.dtype), Space(cut.shape, space.dtype, space.support)
        )
        return own[w]

    for k in found.cone:
        box, inputs = diagram.nodes[k].box, diagram.nodes[k].inputs
        gather, product = box.op == "getitem", box.op in ("numpy.matmul", "numpy.dot")
        given = [
            token(w, not ((gather and i == 0) or (product and i == 1)))
            for i, w in enumerate(inputs)
        ]
        cod = tuple(replace(s, shape=(m, *s.shape[1:])) for s in box.cod)
        plain = replace(
            box,
            op="numpy.positive" if box.op == "deterministic" else box.op,
            dom=tuple(t.space for t in given),
            cod=cod,
            name=None,
            plates=(),
        )
        first = next(i for i, j in enumerate(reader.maker) if j == k)
        own[first] = builder.add(plain, given)[0]
    entering = [
        builder.input(np.asarray(found.weights, dtype)),
        builder.input(np.asarray(found.constant, dtype)),
        *(token(w, found.rows is not None) for w in node.inputs[:-1]),
        builder.input(np.asarray(found.values, dtype if found.values.dtype.kind == "f" else None)),
    ]
    template: Any = node.box.spec[0]
    while template.kind.startswith("describe:method:"):
        template = template.items[0]
    assert isinstance(template, Structure)
    builder.weight(
        str(node.box.name), weighted_log_prob, entering, dtype, described=Described(template)
    )


def _real(builder: Builder) -> str:
    """The floating point type of the problem."""
    kinds = [t.space.dtype for t in builder.inputs if np.dtype(t.space.dtype).kind == "f"]
    return kinds[0] if kinds else natural_space((), "float64").dtype
