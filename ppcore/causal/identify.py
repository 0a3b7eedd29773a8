"""General identification: an effect as an expression in the joint of the observed sites.

The algorithms ID and IDC are the package y0's; here their expressions are evaluated exactly on a
finite model, with tables that carry the names of their axes.

Source: Shpitser & Pearl, "Identification of joint interventional distributions in recursive
semi-Markovian causal models" (2006); "Identification of conditional interventional distributions"
(2006), arXiv:1206.6876.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore.causal.front_door import NotIdentifiable
from ppcore.errors import ModelError, PluginError, did_you_mean

if TYPE_CHECKING:
    import networkx

Named = tuple[tuple[str, ...], np.ndarray]


@dataclass(frozen=True, eq=False)
class Estimand:
    """p(outcome | do(treatments), given), in terms of the observed joint.

    Attributes
    ----------
    expression : y0.dsl.Expression
    outcome : str
    treatments, given : tuples of str
    """

    expression: Any
    outcome: str
    treatments: tuple[str, ...]
    given: tuple[str, ...]

    def table(self, model: Any) -> np.ndarray:
        """The effect in a finite model: treatments, given sites, then the outcome, an axis each.

        Only the joint of the observed sites of ``model`` is used.
        """
        solution = model.solve()
        names, values = evaluate(self.expression, solution)
        axes = (*self.treatments, *self.given, self.outcome)
        for name in axes:
            if name not in names:  # the effect does not depend on it
                size = len(solution.table(name))
                names, values = (*names, name), np.repeat(values[..., None], size, -1)
        return np.einsum(values, [names.index(n) for n in names], [names.index(a) for a in axes])

    def __str__(self) -> str:
        return str(self.expression)


def identify(
    graph: networkx.DiGraph,
    hidden: Collection[str],
    outcome: str,
    do: Sequence[str],
    given: Sequence[str] = (),
) -> Estimand:
    """The effect of ``do`` on ``outcome`` given ``given``, by ID or IDC.

    Parameters
    ----------
    graph : networkx.DiGraph
        The causal graph.
    hidden : collection of str
        Its nodes that are not observed.
    outcome, do, given : names of observed nodes

    Raises
    ------
    NotIdentifiable
        Two models with this graph and the same observed joint differ in the effect.
    PluginError
        y0 is not installed.
    """
    import networkx as nx

    dsl, mixed, algorithm = _load()
    for name in (outcome, *do, *given):
        if name not in graph or name in hidden:
            known = [n for n in graph if n not in hidden]
            raise ModelError(
                f"The graph has no observed node {name!r}. {did_you_mean(name, known)}"
            )
    if not nx.is_directed_acyclic_graph(graph):
        cycle = " → ".join(str(a) for a, _ in nx.find_cycle(graph))
        raise ModelError(f"The causal graph has a cycle ({cycle}); effects need a direction.")
    code = {n: f"V{i}" for i, n in enumerate(graph)}  # y0 has rules for names of its own
    tagged = nx.DiGraph()
    tagged.add_nodes_from((code[n], {"hidden": n in hidden}) for n in graph)
    tagged.add_edges_from((code[a], code[b]) for a, b in graph.edges)
    projected = mixed.from_latent_variable_dag(tagged, "hidden")
    variable = {n: dsl.Variable(code[n]) for n in graph}
    try:
        found = algorithm.identify_outcomes(
            projected,
            treatments={variable[n] for n in do},
            outcomes={variable[outcome]},
            conditions={variable[n] for n in given} or None,
        )
    except algorithm.Unidentifiable:
        found = None
    if found is None:
        seen = sorted(str(n) for n in graph if n not in hidden)
        raise NotIdentifiable(
            f"p({outcome} | do({', '.join(do)})"
            + (f", {', '.join(given)}" if given else "")
            + f") is not identifiable from the joint of {', '.join(seen)}: models with this graph "
            "agree on the joint and differ in the effect (a hidden cause confounds the two). "
            "Measure a mediator or a confounder, or assume more."
        )
    back = {v: k for k, v in code.items()}
    return Estimand(_Expression(found, back), outcome, tuple(do), tuple(given))


class _Expression:
    """An expression of y0 with the sites' own names."""

    def __init__(self, expression: Any, names: dict[str, str]):
        self.expression, self.names = expression, names

    def __str__(self) -> str:
        import re

        return re.sub(r"V\d+", lambda m: self.names.get(m[0], m[0]), str(self.expression))


def evaluate(expression: Any, solution: Any) -> Named:
    """The value of an expression on a finite joint: axis names, and the array."""
    names = expression.names if isinstance(expression, _Expression) else {}
    inner = expression.expression if isinstance(expression, _Expression) else expression
    return _value(inner, names, solution)


def _value(e: Any, names: dict[str, str], solution: Any) -> Named:
    kind = type(e).__name__
    if kind == "One":
        return (), np.ones(())
    if kind == "Zero":
        return (), np.zeros(())
    if kind == "Probability":
        children = [_name(v, names) for v in e.children]
        parents = [_name(v, names) for v in e.parents]
        axes = tuple(dict.fromkeys((*parents, *children)))
        joint = solution.table(*axes)
        mass = joint.sum(axis=tuple(range(len(parents), joint.ndim)), keepdims=True)
        return axes, _ratio(joint, mass) if parents else joint
    if kind == "Product":
        return _product([_value(p, names, solution) for p in e.expressions])
    if kind == "Sum":
        axes, values = _value(e.expression, names, solution)
        gone = {_name(v, names) for v in e.ranges}
        summed = values.sum(axis=tuple(i for i, a in enumerate(axes) if a in gone))
        return tuple(a for a in axes if a not in gone), summed
    if kind == "Fraction":
        top = _value(e.numerator, names, solution)
        bottom = _value(e.denominator, names, solution)
        axes, one = _product([bottom, (top[0], np.ones(top[1].shape))])
        _, values = _product([top, (axes, np.ones(one.shape))])
        order = [_product([top, (axes, one)])[0].index(a) for a in axes]
        return axes, _ratio(values.transpose(order), one)
    raise NotIdentifiable(f"The estimand holds a {kind}, which has no value on a single joint.")


def _name(variable: Any, names: dict[str, str]) -> str:
    return names.get(str(variable.name), str(variable.name))


def _ratio(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where both vanish: a context of probability zero weighs nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(b > 0, a / b, 0.0)


def _product(parts: Sequence[Named]) -> Named:
    axes = tuple(dict.fromkeys(a for names, _ in parts for a in names))
    operands: list[Any] = []
    for names, values in parts:
        operands += [values, [axes.index(n) for n in names]]
    return axes, np.einsum(*operands, list(range(len(axes)))) if parts else np.ones(())


def _load() -> tuple[Any, Any, Any]:
    try:
        from y0 import dsl
        from y0.algorithm import identify as algorithm
        from y0.graph import NxMixedGraph
    except ImportError as error:
        raise PluginError(
            "identify() uses the package y0, which is not installed. Install it with "
            "pip install 'ppcore[causal]'."
        ) from error
    return dsl, NxMixedGraph, algorithm
