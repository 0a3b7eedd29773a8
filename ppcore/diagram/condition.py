"""Evidence: turn sample boxes into effects that compare with data.

A sample box P: A → Y with evidence y becomes the effect A ⊗ Y → I with density p(y | a), and every
use of Y reads the data instead: conditioning the joint state at the wire Y, before normalisation.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from ppcore.diagram.box import Box, Node
from ppcore.diagram.diagram import Diagram
from ppcore.space import Space


@lru_cache(maxsize=256)
def condition(diagram: Diagram, names: tuple[str, ...]) -> Diagram:
    """The diagram given evidence at the sample sites ``names``.

    The data enter as new inputs, appended to ``dom`` in the order of ``names``; the observed
    sites leave the outputs. Sites inside scans take stacked data.

    >>> from ppcore.space import Space
    >>> prior = Box("sample", (), (Space(),), name="mu")
    >>> noise = Box("sample", (Space(),), (Space(),), name="y")
    >>> d = Diagram((), (Node(prior, ()), Node(noise, (0,))), (0, 1), ("mu", "y"))
    >>> condition(d, ("y",))
    Diagram(float64[] real → mu: float64[] real, 2 boxes)
    """
    evidence = [site_space(diagram, name) for name in names]
    entering = {name: len(diagram.dom) + i for i, name in enumerate(names)}
    wires = list(range(len(diagram.dom)))
    count = len(diagram.dom) + len(names)
    nodes: list[Node] = []
    for node in diagram.nodes:
        box, inputs = node.box, tuple(wires[i] for i in node.inputs)
        inside = [n for n in names if box.body is not None and n in box.body.named("sample")]
        if box.op == "sample" and box.name in entering:
            value = entering[box.name]
            effect = replace(box, op="observe", dom=(*box.dom, *box.cod), cod=(), normalized=False)
            nodes.append(Node(effect, (*inputs, value)))
            wires.append(value)
        elif inside:
            scan, kept = _condition_scan(box, tuple(inside))
            at = box.spec.carry + box.spec.xs
            given = tuple(entering[n] for n in inside)
            nodes.append(Node(scan, inputs[:at] + given + inputs[at:]))
            for name in kept:
                if isinstance(name, str):
                    wires.append(entering[name])
                else:
                    wires.append(count)
                    count += 1
        else:
            nodes.append(Node(box, inputs))
            wires.extend(range(count, count + len(box.cod)))
            count += len(box.cod)
    left = [
        (w, n) for w, n in zip(diagram.outputs, diagram.output_names, strict=True) if n not in names
    ]
    return Diagram(
        diagram.dom + tuple(evidence),
        tuple(nodes),
        tuple(wires[w] for w, _ in left),
        tuple(n for _, n in left),
    )


def site_space(diagram: Diagram, name: str) -> Space:
    """The space of a sample site, stacked if it is inside a scan."""
    for box in (node.box for node in diagram.nodes):
        if box.name == name and box.op in ("sample", "observe"):
            return box.cod[0] if box.op == "sample" else box.dom[-1]
        if box.body is not None and name in box.body.named("sample"):
            space = site_space(box.body, name)
            return Space((box.spec.length, *space.shape), space.dtype, space.support)
    raise KeyError(name)


def _condition_scan(box: Box, inside: tuple[str, ...]) -> tuple[Box, list[str | None]]:
    """The scan with evidence as further stacked inputs; what each old output became."""
    assert box.body is not None
    spec, k = box.spec, box.spec.carry + box.spec.xs
    body = condition(box.body, inside)
    n = len(box.body.dom)
    # Evidence was appended behind the captured wires; it belongs with the stacked inputs.
    order = [*range(k), *range(n, n + len(inside)), *range(k, n)]
    body = _reorder_inputs(body, order)
    fate: list[str | None] = [name if name in inside else None for name in box.body.output_names]
    cod = tuple(s for s, f in zip(box.cod, fate, strict=True) if f is None)
    evidence = tuple(site_space(box.body, name) for name in inside)
    stacked = tuple(Space((spec.length, *s.shape), s.dtype, s.support) for s in evidence)
    scan = replace(
        box,
        dom=box.dom[:k] + stacked + box.dom[k:],
        cod=cod,
        spec=replace(spec, xs=spec.xs + len(inside)),
        normalized=False,
        body=body,
    )
    return scan, fate


def _reorder_inputs(diagram: Diagram, order: list[int]) -> Diagram:
    new = {old: at for at, old in enumerate(order)}
    nodes = tuple(Node(n.box, tuple(new.get(i, i) for i in n.inputs)) for n in diagram.nodes)
    outputs = tuple(new.get(i, i) for i in diagram.outputs)
    dom = tuple(diagram.dom[i] for i in order)
    return Diagram(dom, nodes, outputs, diagram.output_names)
