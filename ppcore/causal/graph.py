"""The graph of a model's sites, and what can be read off it.

Sites are nodes; an edge says that a value is computed or drawn from another without a site between.
A site with a plate is one node. The sites of a scan hang together through its carry, which is a
latent common parent here: the graph claims fewer independences than the unrolled chain has, never
more. A factor is a child of its inputs on which the model is conditioned.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any

from ppcore.causal.rebuild import SITES
from ppcore.diagram import Diagram
from ppcore.errors import ModelError, did_you_mean

if TYPE_CHECKING:
    import networkx


def site_graph(diagram: Diagram) -> networkx.DiGraph:
    """The directed acyclic graph of sites.

    Nodes carry ``op`` ("sample", "deterministic", "observe", "factor", or "carry" for what the
    sites of a scan share) and ``deterministic``.

    >>> from ppcore.diagram import Box, Node
    >>> from ppcore.space import Space
    >>> a = Box("sample", (), (Space(),), name="a")
    >>> b = Box("sample", (Space(),), (Space(),), name="b")
    >>> d = Diagram((), (Node(a, ()), Node(b, (0,))), (0, 1), ("a", "b"))
    >>> list(site_graph(d).edges)
    [('a', 'b')]
    """
    import networkx as nx

    graph = nx.DiGraph()
    behind: list[frozenset[str]] = [frozenset()] * len(diagram.dom)
    _add(graph, diagram, behind)
    return graph


def _add(graph: Any, diagram: Diagram, behind: list[frozenset[str]]) -> None:
    for k, node in enumerate(diagram.nodes):
        box = node.box
        parents: frozenset[str] = frozenset().union(*(behind[w] for w in node.inputs))
        if box.op == "scan" and box.body is not None:
            carry = f"carry of {', '.join(b.name for b in box.body.boxes() if b.name) or k}"
            graph.add_node(carry, op="carry", deterministic=box.deterministic)
            graph.add_edges_from((p, carry) for p in parents)
            inner = [frozenset({carry, *parents})] * len(box.body.dom)
            _add(graph, box.body, inner)
            behind.extend([frozenset({carry})] * len(box.cod))
            _name_outputs(box.body, behind, len(box.cod))
        elif box.op == "plate" and box.body is not None:
            inner = [behind[w] for w in node.inputs]
            _add(graph, box.body, inner)
            behind.extend(inner[w] for w in box.body.outputs)
        elif box.name is not None:
            graph.add_node(box.name, op=box.op, deterministic=box.deterministic)
            graph.add_edges_from((p, box.name) for p in sorted(parents))
            behind.extend([frozenset({box.name})] * len(box.cod))
        else:
            behind.extend([parents] * len(box.cod))


def _name_outputs(body: Diagram, behind: list[frozenset[str]], n: int) -> None:
    for j, name in enumerate(body.output_names):
        if name is not None:
            behind[len(behind) - n + j] = frozenset({name})


def ancestors(diagram: Diagram, site: str) -> frozenset[str]:
    """Sites that ``site`` depends on, itself not included."""
    import networkx as nx

    graph = site_graph(diagram)
    _require(graph, [site])
    return frozenset(n for n in nx.ancestors(graph, site) if graph.nodes[n]["op"] in SITES)


def descendant_sites(diagram: Diagram, site: str) -> frozenset[str]:
    """Sites that depend on ``site``, itself not included."""
    import networkx as nx

    graph = site_graph(diagram)
    _require(graph, [site])
    return frozenset(n for n in nx.descendants(graph, site) if graph.nodes[n]["op"] in SITES)


def markov_blanket(diagram: Diagram, site: str) -> frozenset[str]:
    """Parents, children and the children's other parents: given them, the rest says nothing."""
    graph = site_graph(diagram)
    _require(graph, [site])
    found = set(graph.predecessors(site))
    for child in graph.successors(site):
        found.add(child)
        found.update(graph.predecessors(child))
    found.discard(site)
    carried = {n for n in found if graph.nodes[n]["op"] == "carry"}
    for carry in carried:
        found.update(graph.successors(carry))
        found.update(graph.predecessors(carry))
    return frozenset(n for n in found if graph.nodes[n]["op"] in SITES and n != site)


def d_separated(
    diagram: Diagram,
    a: Collection[str],
    b: Collection[str],
    given: Collection[str] = (),
    observed: Collection[str] = (),
) -> bool:
    """Whether the graph makes ``a`` independent of ``b`` given ``given``.

    Sites that are functions of given ones count as given (Geiger, Verma & Pearl 1990), since
    knowing a function's arguments is knowing its value. True is a proof of independence; False
    means only that the graph does not imply it. Observed sites and factors are conditioned on.

    Raises :class:`ModelError` for a name that is no site, or one that is in two of the sets.
    """
    import networkx as nx

    graph = site_graph(diagram)
    a, b, given = set(a), set(b), set(given)
    _require(graph, [*a, *b, *given])
    both = (a & b) | (a & given) | (b & given)
    if both:
        raise ModelError(f"Site {sorted(both)[0]!r} stands on two sides of an independence.")
    z = given | set(observed)
    z |= {n for n, v in graph.nodes.items() if v["op"] in ("factor", "observe")}
    z = determined(graph, z)
    return bool(nx.is_d_separator(graph, a - z, b - z, z)) if a - z and b - z else True


def determined(graph: networkx.DiGraph, given: Iterable[str]) -> set[str]:
    """``given`` and every computed site all of whose parents are determined."""
    import networkx as nx

    known = set(given)
    for n in nx.topological_sort(graph):
        deterministic = graph.nodes[n]["deterministic"] and graph.nodes[n]["op"] != "carry"
        if deterministic and all(p in known for p in graph.predecessors(n)):
            known.add(n)
    return known


def _require(graph: Any, names: Iterable[str]) -> None:
    for name in names:
        if name not in graph or graph.nodes[name]["op"] == "carry":
            known = [n for n in graph if graph.nodes[n]["op"] != "carry"]
            raise ModelError(f"The model has no site {name!r}. {did_you_mean(name, known)}")
