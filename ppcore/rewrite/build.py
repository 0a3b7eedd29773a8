"""Building the diagram that a rewrite leaves, without counting wires by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram, Hole, Node
from ppcore.recording.template import Structure
from ppcore.rewrite.protocol import Problem
from ppcore.space import Space, natural_space


@dataclass(frozen=True, eq=False)
class Token:
    """A wire of a diagram under construction: input ``port``, or output ``port`` of a node."""

    node: int | None
    port: int
    space: Space


class Builder:
    """Collects inputs and boxes; :meth:`finish` leaves out what nothing uses."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.inputs: list[Token] = []
        self.nodes: list[tuple[Box, tuple[Token, ...]]] = []

    def input(self, value: Any, space: Space | None = None) -> Token:
        """A data input and its value."""
        array = np.asarray(value)
        space = space or natural_space(array.shape, array.dtype.name)
        token = Token(None, len(self.values), space)
        self.values.append(value)
        self.inputs.append(token)
        return token

    def add(self, box: Box, inputs: Sequence[Token]) -> list[Token]:
        """A box; the tokens of its outputs."""
        self.nodes.append((box, tuple(inputs)))
        k = len(self.nodes) - 1
        return [Token(k, port, space) for port, space in enumerate(box.cod)]

    def weight(
        self,
        name: str,
        fn: Callable[..., Any],
        inputs: Sequence[Token],
        dtype: str,
        **static: Any,
    ) -> None:
        """A factor exp(fn(*inputs, **static)) named ``name``."""
        box = lifted(fn, [t.space for t in inputs], [Space((), dtype)], **static)
        (log_weight,) = self.add(box, inputs)
        self.add(Box("factor", (log_weight.space,), (), name=name, normalized=False), (log_weight,))

    def copy(self, problem: Problem, skip: frozenset[int] = frozenset()) -> list[Any]:
        """All inputs and boxes of a problem but ``skip``; the token of each wire, None if gone."""
        diagram = problem.diagram
        pairs = zip(problem.data, diagram.dom, strict=True)
        tokens: list[Any] = [self.input(value, space) for value, space in pairs]
        for k, node in enumerate(diagram.nodes):
            if k in skip:
                tokens.extend([None] * len(node.box.cod))
            else:
                tokens.extend(self.add(node.box, [tokens[w] for w in node.inputs]))
        return tokens

    def finish(self, computed: bool = False) -> Problem:
        """The problem: its outputs are the latent sites; boxes and data without use are gone.

        With ``computed`` named computed sites are kept, and are outputs too.
        """
        needed: set[int] = set()
        stack = [
            k
            for k, (box, _) in enumerate(self.nodes)
            if box.op == "sample"
            or not box.cod
            or (box.body is not None and not box.deterministic)
            or (computed and box.op == "deterministic")
        ]
        while stack:
            k = stack.pop()
            if k not in needed:
                needed.add(k)
                stack.extend(t.node for t in self.nodes[k][1] if t.node is not None)
        kept = sorted(needed)
        used = {t.port for k in kept for t in self.nodes[k][1] if t.node is None}
        entering = [i for i in range(len(self.values)) if i in used]
        number: dict[tuple[int | None, int], int] = {(None, i): w for w, i in enumerate(entering)}
        count = len(entering)
        nodes, outputs, names = [], [], []
        for k in kept:
            box, inputs = self.nodes[k]
            nodes.append(Node(box, tuple(number[t.node, t.port] for t in inputs)))
            for port in range(len(box.cod)):
                number[k, port] = count
                count += 1
            if box.op == "sample" or (computed and box.op == "deterministic"):
                outputs.append(count - 1)
                names.append(box.name)
        dom = tuple(self.inputs[i].space for i in entering)
        diagram = Diagram(dom, tuple(nodes), tuple(outputs), tuple(names))
        return Problem(diagram, tuple(self.values[i] for i in entering))


def unobserved(problem: Problem) -> Problem:
    """The sites without their evidence: what names and constrains draws, and no more data."""
    effects = (k for k, node in enumerate(problem.diagram.nodes) if not node.box.cod)
    builder = Builder()
    builder.copy(problem, frozenset(effects))
    return builder.finish(computed=True)


def lifted(
    fn: Callable[..., Any], dom: Sequence[Space], cod: Sequence[Space], **static: Any
) -> Box:
    """A deterministic box that computes ``fn(*inputs, **static)``; fn is a module's own function.

    >>> str(lifted(np.add, (Space(), Space()), (Space(),)))
    'lift'
    """
    holes = Structure("tuple", (), tuple(Hole(i) for i in range(len(dom))))
    keywords = Structure("dict", tuple(static), tuple(static.values()))
    template = Structure("tuple", (), (holes, keywords))
    real = tuple(Space(s.shape, s.dtype) for s in dom)
    return Box("lift", real, tuple(cod), spec=(fn, template, False), deterministic=True)


def is_lifted(box: Box, fn: Callable[..., Any]) -> bool:
    """Whether a box computes ``fn``."""
    return box.op == "lift" and box.spec[0] is fn
