"""Marginals: discard outputs, and delete the boxes that discarding makes pointless.

Discarding all outputs of a normalised box is discarding its inputs (naturality of discard), so the
box goes; an effect, which is not normalised, stays, and everything above it.

>>> from ppcore.semantics.tensor import stochastic, tensor
>>> import numpy as np
>>> coin = stochastic(np.array([0.3, 0.7]), (), (2,))
>>> flip = stochastic(np.array([[0.9, 0.1], [0.2, 0.8]]), (2,), (2,))
>>> wasted = flip >> Diagram.discard(flip.cod[0])
>>> prune(coin >> Diagram.copy(coin.cod[0]) >> (Diagram.id(coin.cod) @ wasted)) == coin
True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ppcore.diagram import Box, Diagram, Node
from ppcore.errors import ModelError, did_you_mean
from ppcore.space import Space


def marginal(diagram: Diagram, keep: Sequence[str]) -> Diagram:
    """The diagram with the outputs named in ``keep`` only, in their old order, pruned.

    Raises :class:`ModelError` with a suggestion for a name that is no output.
    """
    for name in keep:
        if name not in diagram.output_names:
            known = [n for n in diagram.output_names if n is not None]
            raise ModelError(f"The model has no site {name!r}. {did_you_mean(name, known)}")
    kept = [(w, n) for w, n in zip(diagram.outputs, diagram.output_names, strict=True) if n in keep]
    cut = Diagram(diagram.dom, diagram.nodes, tuple(w for w, _ in kept), tuple(n for _, n in kept))
    return prune(cut)


def prune(diagram: Diagram) -> Diagram:
    """Delete normalised boxes none of whose outputs is used; the kernel stays the same.

    Stacked outputs of a scan that nobody reads are deleted with the boxes behind them.
    """
    nodes = list(diagram.nodes)
    used = set(diagram.outputs)
    starts, at = [], len(diagram.dom)
    for node in nodes:
        starts.append(at)
        at += len(node.box.cod)
    alive = [False] * len(nodes)
    for k in range(len(nodes) - 1, -1, -1):
        box = nodes[k].box
        made = range(starts[k], starts[k] + len(box.cod))
        alive[k] = not box.normalized or any(w in used for w in made)
        if alive[k]:
            used.update(nodes[k].inputs)
    number = {w: w for w in range(len(diagram.dom))}
    count = len(diagram.dom)
    out = []
    for k, node in enumerate(nodes):
        if not alive[k]:
            continue
        made = range(starts[k], starts[k] + len(node.box.cod))
        box, kept, taken = _narrow(node.box, [w in used for w in made])
        out.append(Node(box, tuple(number[node.inputs[i]] for i in taken)))
        for i in kept:
            number[made[i]] = count
            count += 1
    outputs = tuple(number[w] for w in diagram.outputs)
    return Diagram(diagram.dom, tuple(out), outputs, diagram.output_names)


def _narrow(box: Box, used: list[bool]) -> tuple[Box, list[int], list[int]]:
    """A scan or plate without what nobody reads; which outputs and which inputs are left."""
    everything, inputs = list(range(len(box.cod))), list(range(len(box.dom)))
    if box.op not in ("scan", "plate") or box.body is None:
        return box, everything, inputs
    k = box.spec.carry if box.op == "scan" else 0
    kept = [i for i in everything if i < k or used[i]]
    body = box.body
    cut = Diagram(
        body.dom,
        body.nodes,
        tuple(body.outputs[i] for i in kept),
        tuple(body.output_names[i] for i in kept),
    )
    body, taken = _without_idle_inputs(prune(cut), k)
    spec = box.spec
    if box.op == "scan":
        n = spec.carry + spec.xs
        xs = sum(1 for i in taken if k <= i < n)
        spec = replace(spec, ys=sum(1 for i in kept if k <= i < k + spec.ys), xs=xs)
    cod: tuple[Space, ...] = tuple(box.cod[i] for i in kept)
    dom = tuple(box.dom[i] for i in taken)
    return replace(box, dom=dom, cod=cod, spec=spec, body=body), kept, taken


def _without_idle_inputs(body: Diagram, carry: int) -> tuple[Diagram, list[int]]:
    """A body without the inputs behind its carry that nothing uses."""
    read = {w for n in body.nodes for w in n.inputs} | set(body.outputs)
    taken = [i for i in range(len(body.dom)) if i < carry or i in read]
    if len(taken) == len(body.dom):
        return body, taken
    gone = len(body.dom) - len(taken)
    number = {old: new for new, old in enumerate(taken)}

    def move(w: int) -> int:
        return number[w] if w < len(body.dom) else w - gone

    nodes = tuple(Node(n.box, tuple(map(move, n.inputs))) for n in body.nodes)
    dom = tuple(body.dom[i] for i in taken)
    return Diagram(dom, nodes, tuple(map(move, body.outputs)), body.output_names), taken
