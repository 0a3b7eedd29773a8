"""Comb disintegration and the front-door criterion.

A state ω on x, z, y in which x acts on y through z only, x and y having a hidden common cause, has
the form of a comb f with a channel c: x → z in its gap. Both can be found in ω alone:
c = p(z | x) and f = p(x) p(y | x, z). Cutting x out and plugging a value in gives
p(y | do(x)) = Σ_z p(z | x) Σ_x' p(x') p(y | x', z).

Source: Jacobs, Kissinger & Zanasi (2019), arXiv:1811.08338, theorem 6; Pearl (2009), section 3.3.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ppcore.causal.disintegrate import (
    Cut,
    conditional_table,
    joint_table,
    site_space_of,
    table_site,
)
from ppcore.diagram import Diagram
from ppcore.errors import ModelError, UnsupportedError, did_you_mean
from ppcore.recording.recorder import Recorder, recording
from ppcore.recording.wire import Wire

if TYPE_CHECKING:
    import networkx


class NotIdentifiable(UnsupportedError):
    """An effect cannot be computed from the joint of the observed sites; the message says why."""


def require_front_door(graph: networkx.DiGraph, x: str, z: str, y: str) -> None:
    """Check the front-door criterion for the effect of x on y through z.

    ``graph`` is the causal graph, hidden causes included as nodes.

    Raises :class:`NotIdentifiable` naming the path that breaks it.

    >>> import networkx as nx
    >>> g = nx.DiGraph([("h", "x"), ("h", "y"), ("x", "z"), ("z", "y")])
    >>> require_front_door(g, "x", "z", "y")
    """
    import networkx as nx

    for name in (x, z, y):
        if name not in graph:
            raise ModelError(f"The graph has no node {name!r}. {did_you_mean(name, graph)}")
    if not nx.is_directed_acyclic_graph(graph):
        cycle = " → ".join(str(a) for a, _ in nx.find_cycle(graph))
        raise ModelError(f"The causal graph has a cycle ({cycle}); effects need a direction.")
    through = graph.subgraph([n for n in graph if n != z])
    if nx.has_path(through, x, y):
        path = " → ".join(nx.shortest_path(through, x, y))
        raise NotIdentifiable(
            f"The front door is open: {x!r} reaches {y!r} past {z!r} ({path}). Choose a mediator "
            "that every directed path goes through, or identify the effect in another way."
        )
    if not _no_back_door(graph, x, z, set()):
        raise NotIdentifiable(
            f"There is an open back-door path between {x!r} and the mediator {z!r}: they share a "
            "cause, so p(z | x) is not the effect of x on z."
        )
    if not _no_back_door(graph, z, y, {x}):
        raise NotIdentifiable(
            f"There is a back-door path between the mediator {z!r} and {y!r} that {x!r} does not "
            "block, so p(y | x, z) mixes cause and correlation."
        )


def _no_back_door(graph: Any, a: str, b: str, given: set[str]) -> bool:
    import networkx as nx

    cut = graph.copy()
    cut.remove_edges_from(list(graph.out_edges(a)))
    return bool(nx.is_d_separator(cut, {a}, {b}, given))


def comb(diagram: Diagram, data: Sequence[Any], x: str, z: str, y: str) -> Cut:
    """p(y | do(x)) of a joint by comb disintegration: a diagram x → y, and its data.

    The hidden sites of the diagram are the comb's own copy of x (named ``x.before``) and z. That ω
    has the form of the comb is the caller's assumption (:func:`require_front_door` checks it).

    Raises :class:`~ppcore.exact.protocol.NotExact` if a site is not finite and scalar.
    """
    p = joint_table(diagram, data, (x, z, y))
    before, channel, rest = p.sum((1, 2)), p.sum(2), p
    tables = [before, conditional_table(channel, 1), conditional_table(rest, 2)]
    spaces = [site_space_of(diagram, n) for n in (x, z, y)]
    recorder = Recorder()
    with recording(recorder):
        rows = [Wire(recorder, r, recorder.space(r)) for r in map(recorder.data_ref, tables)]
        held = recorder.add_input(spaces[0])
        own = table_site(f"{x}.before", rows[0], [], spaces[0])
        middle = table_site(z, rows[1], [held], spaces[1])
        effect = table_site(y, rows[2], [own, middle], spaces[2])
    return recorder.freeze([effect.ref], (y,)), tuple(tables)
