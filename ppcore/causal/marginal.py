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
        box, kept = _narrow(node.box, [w in used for w in made])
        out.append(Node(box, tuple(number[w] for w in node.inputs)))
        for i in kept:
            number[made[i]] = count
            count += 1
    outputs = tuple(number[w] for w in diagram.outputs)
    return Diagram(diagram.dom, tuple(out), outputs, diagram.output_names)


def _narrow(box: Box, used: list[bool]) -> tuple[Box, list[int]]:
    """A scan or plate without unused outputs; which outputs are left."""
    everything = list(range(len(box.cod)))
    if box.op not in ("scan", "plate") or box.body is None:
        return box, everything
    k = box.spec.carry if box.op == "scan" else 0
    kept = [i for i in everything if i < k or used[i]]
    body = box.body
    if len(kept) < len(everything) or box.op == "scan":
        cut = Diagram(
            body.dom,
            body.nodes,
            tuple(body.outputs[i] for i in kept),
            tuple(body.output_names[i] for i in kept),
        )
        body = prune(cut)
    spec = box.spec
    if box.op == "scan":
        spec = replace(spec, ys=sum(1 for i in kept if k <= i < k + spec.ys))
    cod: tuple[Space, ...] = tuple(box.cod[i] for i in kept)
    return replace(box, cod=cod, spec=spec, body=body), kept
