"""Simplify: sites that inform nothing pruned, constants computed once, equal boxes shared.

A normalised site from which no evidence is reached integrates to one, so the posterior of the rest
does not see it; it is drawn forward from the rest afterwards. A deterministic box whose inputs are
data is a constant of the density. Two equal deterministic boxes on the same wires are one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ppcore import precision
from ppcore.diagram import Box, Diagram
from ppcore.recording.record import evaluate
from ppcore.rewrite.build import Builder, Token
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import has_labels, told
from ppcore.semantics.interpret import Handler, interpret
from ppcore.semantics.log_density import bijection, layout

NORMAL = ("Normal", "LogNormal")
MOST = 1 << 22
"""Elements of a constant that is worth keeping."""


@dataclass(frozen=True)
class Simplify:
    """Prune, fold and share.

    >>> Simplify().name
    'simplify'
    """

    name: ClassVar[str] = "simplify"
    summary: ClassVar[str] = (
        "sites that inform nothing pruned, constants folded, equal boxes shared"
    )

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The smaller problem, or that there is nothing to do."""
        if has_labels(problem.diagram):
            return NotApplicable("discrete sites are summed out")
        barren = _barren(problem.diagram)
        builder, folded, shared = _rebuilt(problem, frozenset(barren))
        said = []
        if barren:
            names = ", ".join(str(problem.diagram.nodes[k].box.name) for k in sorted(barren))
            said.append(f"{names} drawn forward from the rest")
        if folded:
            said.append(f"{folded} constant boxes computed once")
        if shared:
            said.append(f"{shared} boxes shared")
        if not said:
            return NotApplicable("nothing to prune, fold or share")
        after = builder.finish()
        back = None
        if barren:
            sites = tuple(str(problem.diagram.nodes[k].box.name) for k in sorted(barren))
            back = _recovery(problem, after, sites)
        return Rewritten(after, back, "; ".join(said))


def _barren(diagram: Diagram) -> set[int]:
    """Nodes that sample proper sites from which no effect is reached."""
    maker = _makers(diagram)
    needed: set[int] = set()
    stack = []
    for k, node in enumerate(diagram.nodes):
        box = node.box
        improper = box.op == "sample" and not box.spec[3]
        if not box.cod or improper or (box.body is not None and not box.deterministic):
            stack.append(k)
    while stack:
        k = stack.pop()
        if k not in needed:
            needed.add(k)
            stack.extend(m for w in diagram.nodes[k].inputs if (m := maker[w]) is not None)
    return {k for k, n in enumerate(diagram.nodes) if n.box.op == "sample" and k not in needed}


def _makers(diagram: Diagram) -> list[int | None]:
    maker: list[int | None] = [None] * len(diagram.dom)
    for k, node in enumerate(diagram.nodes):
        maker.extend([k] * len(node.box.cod))
    return maker


def _rebuilt(problem: Problem, barren: frozenset[int]) -> tuple[Builder, int, int]:
    """A builder with what is left, and how many boxes were folded and shared."""
    builder = Builder()
    diagram = problem.diagram
    tokens: list[Token | None] = [
        builder.input(v, s) for v, s in zip(problem.data, diagram.dom, strict=True)
    ]
    known: dict[int, Any] = dict(enumerate(problem.data))
    seen: dict[Any, list[Token]] = {}
    folded = shared = 0
    for k, node in enumerate(diagram.nodes):
        at = len(tokens)
        inputs = [tokens[w] for w in node.inputs]
        if k in barren or any(t is None for t in inputs):
            tokens.extend([None] * len(node.box.cod))
            continue
        there: list[Token] = [t for t in inputs if t is not None]
        values = _constant(node.box, [known.get(w) for w in node.inputs])
        if values is not None:
            made = [builder.input(v, s) for v, s in zip(values, node.box.cod, strict=True)]
            known |= {at + i: v for i, v in enumerate(values)}
            folded += 1
        elif node.box.deterministic and node.box.name is None and node.box.body is None:
            key = (node.box, tuple((t.node, t.port) for t in there))
            if key in seen:
                shared += 1
            made = seen.setdefault(key, []) or builder.add(node.box, there)
            seen[key] = made
        else:
            made = builder.add(node.box, there)
        tokens.extend(made)
    return builder, folded, shared


def _constant(box: Box, inputs: Sequence[Any]) -> list[np.ndarray] | None:
    """The outputs of a deterministic box whose inputs are data; None if it is worth no input."""
    if not box.deterministic or box.body is not None or not inputs:
        return None
    if any(v is None for v in inputs) or sum(s.size for s in box.cod) > MOST:
        return None
    with precision.scope("float64"):
        made = evaluate(box, list(inputs))
        return [np.asarray(v, s.dtype) for v, s in zip(made, box.cod, strict=True)]


class _Forward(Handler):
    """Entries are coordinates; a site without one is drawn. Records hold ``z``."""

    needs_key = True

    def __init__(self, noise: dict[str, Any] | None = None) -> None:
        self.noise = noise
        self.needs_key = noise is None

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        t = bijection(distribution)
        if given is not None:
            return t(given), {"z": given}
        if self.noise is None:
            value = distribution.sample(key)
            return value, {"z": t.inv(value)}
        base = distribution
        while not hasattr(base, "loc"):
            base = base.base_dist
        z = base.loc + base.scale * self.noise[str(box.name)]
        return t(z), {"z": z}


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Forward:
    """Coordinates of the pruned problem -> those of the whole, pruned sites drawn with a key.

    Attributes
    ----------
    before, after : Diagram
        Static.
    sites : tuple of str
        What was pruned; static.
    data : tuple of arrays
        Of the problem before.
    """

    before: Diagram
    after: Diagram
    sites: tuple[str, ...]
    data: tuple[Any, ...]

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.data,), (self.before, self.after, self.sites)

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: Any) -> Forward:
        return cls(static[0], static[1], static[2], leaves[0])

    def __call__(self, key: Any, x: Any) -> Any:
        """float[d′] -> float[d]."""
        return self._run(x, _Forward(), key)

    def _run(self, x: Any, handler: Handler, key: Any) -> Any:
        where = layout(self.before)
        given = layout(self.after).split(x)
        records = interpret(self.before, self.data, handler, given, key)[1]
        return where.join({n: records[n]["z"] for n in where.names})


@jax.tree_util.register_pytree_node_class
class ForwardNormal(Forward):
    """The same where all pruned sites are normal or log-normal: functions of standard normals."""

    @property
    def noise_size(self) -> int:
        """How many."""
        where = layout(self.before)
        return sum(where.sizes[where.names.index(s)] for s in self.sites)

    def given(self, x: Any, z: Any) -> Any:
        """float[d′], float[noise_size] -> float[d]."""
        where, noise, at = layout(self.before), {}, 0
        for site in self.sites:
            i = where.names.index(site)
            noise[site] = z[at : at + where.sizes[i]].reshape(where.shapes[i])
            at += where.sizes[i]
        return self._run(x, _Forward(noise), None)


def _recovery(problem: Problem, after: Problem, sites: tuple[str, ...]) -> Forward:
    boxes = [b for b in problem.diagram.boxes() if b.op == "sample" and b.name in sites]
    arguments = (problem.diagram, after.diagram, sites, problem.data)
    if all(told(b).family in NORMAL for b in boxes):
        return ForwardNormal(*arguments)
    return Forward(*arguments)
