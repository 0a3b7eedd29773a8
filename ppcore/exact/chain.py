"""Models that are one Markov chain: what comes before the scan, its step, and what comes after."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram, Node
from ppcore.exact.protocol import NotExact


class NoChain(NotExact):
    """The model is not a single chain, which says nothing about whether it can be solved."""


@dataclass(frozen=True, eq=False)
class Chain:
    """A joint diagram cut at its only scan.

    Attributes
    ----------
    before : Diagram
        Data → the scan's inputs, as computed sites named by ``inputs``, and the sites up to there.
    inputs : tuple of str
        Names of the scan's inputs in ``before``.
    box : Box
        The scan.
    after : frozenset of str
        Sites that depend on the chain's results. They are not observed, so they say nothing about
        the chain: draws of them are forward draws given the chain.
    """

    before: Diagram
    inputs: tuple[str, ...]
    box: Box
    after: frozenset[str]


def find_chain(joint: Diagram, evidence: Collection[str], solver: str) -> Chain:
    """Cut a joint diagram at its scan.

    Raises (in the name of ``solver``) :class:`NoChain` if there is not exactly one scan, and
    :class:`NotExact` if evidence depends on the chain's results rather than on its steps.
    """
    scans = [k for k, node in enumerate(joint.nodes) if node.box.op == "scan"]
    if len(scans) != 1:
        found = "no scan" if not scans else f"{len(scans)} scans"
        raise NoChain(solver, "the model", f"it has {found}; a chain is a single pp.scan.")
    (at,) = scans
    reached: set[int] = set()
    before: list[Node] = []
    number = {w: w for w in range(len(joint.dom))}
    after: set[str] = set()
    wire = len(joint.dom)
    count = len(joint.dom)
    for k, node in enumerate(joint.nodes):
        made = range(wire, wire + len(node.box.cod))
        wire += len(node.box.cod)
        if k == at or any(w in reached for w in node.inputs):
            reached.update(made)
            if k != at:
                after |= _after(node.box, evidence, solver)
            continue
        before.append(Node(node.box, tuple(number[w] for w in node.inputs)))
        for w in made:
            number[w] = count
            count += 1
    box = joint.nodes[at].box
    kept: list[tuple[int, str | None]] = [
        (number[w], n)
        for w, n in zip(joint.outputs, joint.output_names, strict=True)
        if w not in reached
    ]
    names = tuple(f"input {i} of the scan" for i in range(len(box.dom)))
    for name, w in zip(names, joint.nodes[at].inputs, strict=True):
        space = joint.wires[w]
        before.append(Node(_named(name, space), (number[w],)))
        kept.append((count, name))
        count += 1
    outputs, labels = zip(*kept, strict=True)
    return Chain(Diagram(joint.dom, tuple(before), outputs, labels), names, box, frozenset(after))


def _named(name: str, space: Any) -> Box:
    from ppcore.diagram import Hole
    from ppcore.recording.template import Structure

    arguments = Structure("tuple", (), (Hole(0),)), Structure("dict", (), ())
    spec = Structure("tuple", (), arguments)
    return Box("deterministic", (space,), (space,), spec, name=name, deterministic=True)


def _after(box: Box, evidence: Collection[str], solver: str) -> set[str]:
    """Sites of a box behind the scan, which must not be evidence."""
    found = set()
    inside = [box, *(box.body.boxes() if box.body is not None else ())]
    for b in inside:
        if b.op in ("observe", "factor") or (b.op == "sample" and b.name in evidence):
            raise NotExact(
                solver,
                str(b.name),
                "it is evidence about the chain's results. Put it in the step, where it meets one "
                "state of the chain.",
            )
        if b.op in ("sample", "deterministic") and b.name is not None:
            found.add(b.name)
    return found


def in_order(values: Any, reverse: bool) -> Any:
    """Stacked arrays in the order in which a scan walks them (its own inverse)."""
    import jax

    if not reverse:
        return values
    return jax.tree_util.tree_map(lambda v: np.asarray(v)[::-1], values)
