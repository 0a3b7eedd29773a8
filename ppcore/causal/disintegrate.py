"""Disintegration: from a joint to a conditional, as a diagram with the given sites as inputs.

A conditional p(rest | given) of a state ω: I → A ⊗ B is a kernel c: A → B with
ω = (copy; id ⊗ c) after ω's marginal on A. Three ways lead to one without inference:

- *forward*: if everything that the given sites depend on is given too, their boxes are cut off
  and their wires become inputs; what is left is the conditional;
- *finite*: from the joint's tensor, one site after another, p(x_i | given, x_1 … x_{i−1});
- *linear*: the same for linear-Gaussian sites (:mod:`ppcore.causal.linear`).

Any other conditional exists too, but has to be inferred for each value of the given sites.

Source: Cho & Jacobs (2019), arXiv:1709.00322, sections 3 and 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ppcore.causal.marginal import marginal, prune
from ppcore.causal.rebuild import copy_nodes, first_wires, site_box
from ppcore.diagram import Box, Diagram
from ppcore.diagram.condition import site_space
from ppcore.dist import Description
from ppcore.errors import ModelError, did_you_mean
from ppcore.exact.protocol import NotExact
from ppcore.exact.tensor import solve_tensor
from ppcore.recording.record import record
from ppcore.recording.recorder import Recorder, recording
from ppcore.recording.sites import sample
from ppcore.recording.wire import Wire
from ppcore.semantics.finite import LIMIT
from ppcore.semantics.finite_dist import finite_values
from ppcore.space import Space

Cut = tuple[Diagram, tuple[Any, ...]]


def forward(diagram: Diagram, given: Sequence[str]) -> Diagram | None:
    """The conditional by cutting boxes off, or None if that is not it.

    The given sites become inputs behind the data, in the order of ``given``; they leave the
    outputs. None if the diagram has effects, or if a given site depends on a random site that is
    not given.
    """
    if not all(b.normalized for b in diagram.boxes()):
        return None
    nodes = {name: site_box(diagram, name)[0] for name in given}
    for name, k in nodes.items():
        box = diagram.nodes[k].box
        if box.body is not None or (box.op != "sample" and name in diagram.named("deterministic")):
            return None
        if not _random_above(diagram, k) <= set(nodes.values()):
            return None
    recorder = Recorder()
    inputs = [recorder.add_input(s).ref for s in diagram.dom]
    entering = {nodes[n]: recorder.add_input(site_space(diagram, n)).ref for n in given}

    def change(k: int, box: Box, ins: tuple[Any, ...]) -> list[Any] | None:
        return [entering[k]] if k in entering else None

    refs = copy_nodes(recorder, diagram, inputs, None, change)
    left = [
        (w, n) for w, n in zip(diagram.outputs, diagram.output_names, strict=True) if n not in given
    ]
    out = recorder.freeze([refs[w] for w, _ in left], tuple(n for _, n in left))
    return prune(out)


def _random_above(diagram: Diagram, node: int) -> set[int]:
    """Random nodes that a node depends on, itself included."""
    starts = first_wires(diagram)
    maker = {
        w: k
        for k, n in enumerate(diagram.nodes)
        for w in range(starts[k], starts[k] + len(n.box.cod))
    }
    found, queue = set(), [node]
    while queue:
        k = queue.pop()
        if k in found:
            continue
        found.add(k)
        queue.extend(maker[w] for w in diagram.nodes[k].inputs if w in maker)
    return {k for k in found if not diagram.nodes[k].box.deterministic}


def finite(
    diagram: Diagram,
    data: Sequence[Any],
    given: Sequence[str],
    keep: Sequence[str],
    evidence: Mapping[str, Any] | None = None,
) -> Cut:
    """The conditional p(keep | given, evidence) of a finite model, as a diagram of table boxes.

    Where the given values have probability zero, any distribution will do: the uniform one is
    taken. Given sites enter behind the data (the tables), in the order of ``given``.

    Raises :class:`~ppcore.exact.protocol.NotExact` if a site is not finite or not scalar, or the
    joint table is too large.
    """
    spaces = {n: site_space_of(diagram, n) for n in (*given, *keep)}
    for name, space in spaces.items():
        if space.size != 1 or space.shape:
            raise NotExact("tensor", name, "a table conditional needs scalar sites.")
        if finite_values(space) is None:
            raise NotExact("tensor", name, f"its values are {space.support}, not a finite set.")
    table = joint_table(diagram, data, (*given, *keep), evidence)
    recorder = Recorder()
    tables = []
    k = len(given)
    for i in range(k, table.ndim):
        tables.append(conditional_table(table.sum(axis=tuple(range(i + 1, table.ndim))), i))
    with recording(recorder):
        refs = [recorder.data_ref(t) for t in tables]
        wires = [recorder.add_input(spaces[n]) for n in given]
        outputs = []
        for name, ref in zip(keep, refs, strict=True):
            rows = Wire(recorder, ref, recorder.space(ref))
            made = table_site(name, rows, wires, spaces[name])
            wires.append(made)
            outputs.append(made.ref)
    return recorder.freeze(outputs, tuple(keep)), tuple(tables)


def table_site(name: str, rows: Any, parents: Sequence[Any], space: Space) -> Any:
    """A site drawn from row ``rows[parents]`` of a table of probabilities."""
    index = table_index(parents)
    chosen = record("getitem", (rows, index), {}) if index else rows
    support = finite_values(space)
    assert support is not None
    if len(support) == 2 and space.support.name == "boolean":
        return sample(name, _bernoulli(record("getitem", (chosen, 1), {})))
    if int(support[0]) != 0:
        raise NotExact("tensor", name, "its values do not start at zero.")
    return sample(name, Description("dist", "Categorical", (("probs", chosen),)))


def table_index(wires: Sequence[Any]) -> tuple[Any, ...]:
    """Finite wires as positions in the axes of a table."""
    index = []
    for wire in wires:
        support = finite_values(wire.space)
        assert support is not None
        low = int(support[0])
        code = record("astype", (wire, "int64"), {}) if wire.space.dtype != "int64" else wire
        index.append(code - low if low else code)
    return tuple(index)


def _bernoulli(probability: Any) -> Description:
    return Description("dist", "Bernoulli", (("probs", probability),))


def conditional_table(table: np.ndarray, at: int) -> np.ndarray:
    """p(last axis | the others) from a joint; rows of no mass become uniform."""
    mass = table.sum(axis=at, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(mass > 0, table / mass, 1 / table.shape[at])


def joint_table(
    diagram: Diagram,
    data: Sequence[Any],
    sites: Sequence[str],
    evidence: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """p(sites | evidence), normalised: one axis for each scalar finite site.

    Raises :class:`~ppcore.exact.protocol.NotExact` if it would be too large, or is not finite.
    """
    given = dict(evidence or {})
    size = 1.0
    for name in sites:
        support = finite_values(site_space_of(diagram, name))
        size *= len(support) if support is not None else 1
    if size > LIMIT:
        raise NotExact(
            "tensor", sites[0], f"the joint of {len(sites)} sites has {size:.2g} entries."
        )
    solution = solve_tensor(marginal(diagram, [*sites, *given]), tuple(data), given)
    return solution.table(*sites)


def site_space_of(diagram: Diagram, name: str) -> Space:
    """The space of a named output.

    Raises :class:`ModelError` with a suggestion if there is none.
    """
    if name not in diagram.output_names:
        known = [n for n in diagram.output_names if n is not None]
        raise ModelError(f"The model has no site {name!r}. {did_you_mean(name, known)}")
    return diagram.cod[diagram.output_names.index(name)]


__all__ = ["Cut", "finite", "forward", "joint_table", "table_index", "table_site"]
