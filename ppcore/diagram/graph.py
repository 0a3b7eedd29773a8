"""Diagrams as networkx graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import networkx

    from ppcore.diagram.diagram import Diagram


def to_networkx(diagram: Diagram) -> networkx.MultiDiGraph:
    """A directed multigraph: nodes are boxes (attribute ``box``) and boundary points.

    Node k of the diagram is the integer k; inputs are ("in", i), outputs ("out", j). Every edge
    carries ``wire`` (its number), ``space``, ``source_port`` and ``target_port``.

    >>> from ppcore.diagram import Box, Diagram
    >>> from ppcore.space import Space
    >>> g = to_networkx(Diagram.of(Box("f", (Space(),), (Space(),))))
    >>> sorted(map(str, g.edges()))
    ["(('in', 0), 0)", "(0, ('out', 0))"]
    """
    import networkx as nx

    graph = nx.MultiDiGraph()
    source: list[tuple[object, int]] = []
    for i, space in enumerate(diagram.dom):
        graph.add_node(("in", i), space=space)
        source.append((("in", i), 0))
    for k, node in enumerate(diagram.nodes):
        graph.add_node(k, box=node.box, name=str(node.box))
        for port, wire in enumerate(node.inputs):
            _edge(graph, diagram, source[wire], k, wire, port)
        source.extend((k, port) for port in range(len(node.box.cod)))
    for j, wire in enumerate(diagram.outputs):
        graph.add_node(("out", j), name=diagram.output_names[j], space=diagram.wires[wire])
        _edge(graph, diagram, source[wire], ("out", j), wire, 0)
    return graph


def _edge(
    graph: networkx.MultiDiGraph,
    diagram: Diagram,
    source: tuple[object, int],
    target: object,
    wire: int,
    port: int,
) -> None:
    graph.add_edge(
        source[0],
        target,
        wire=wire,
        space=diagram.wires[wire],
        source_port=source[1],
        target_port=port,
    )
