"""Marginalise discrete: make a diagram ready to have its discrete latent sites summed out.

Which observation belongs to which label must be known when a density is compiled, but data are
inputs of a diagram, known only when it runs. The rewrite turns those integer data that decide it
(indices into labels, the start of a chain) from inputs into constant boxes. Nothing else changes:
the diagram means the same at these data. The sum itself is :mod:`ppcore.semantics.mixed`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram, Node
from ppcore.recording.template import StaticArray, Structure
from ppcore.space import Space, natural_space


def marginalise_discrete(
    diagram: Diagram, data: Sequence[Any], observed: Sequence[str]
) -> tuple[Diagram, tuple[Any, ...]]:
    """The diagram and data with integer data that index discrete latent sites held constant.

    Parameters
    ----------
    diagram : Diagram
        A joint, data → all sites.
    data : sequence of arrays
        Values of its inputs.
    observed : sequence of str
        Sites that are not latent.

    >>> from ppcore.space import Space
    >>> diagram = Diagram.of(Box("sample", (), (Space(),), name="x"))
    >>> marginalise_discrete(diagram, (), ())[0] is diagram
    True
    """
    if not _has_labels(diagram, observed):
        return diagram, tuple(data)
    folded = sorted(_deciding(diagram, observed))
    if not folded:
        return diagram, tuple(data)
    wires: list[int] = []
    dom: list[Space] = []
    kept = []
    for i, space in enumerate(diagram.dom):
        wires.append(len(dom) if i not in folded else -1)
        if i not in folded:
            dom.append(space)
            kept.append(data[i])
    nodes, count = [], len(dom)
    for i in folded:
        nodes.append(Node(constant_box(np.asarray(data[i])), ()))
        wires[i] = count
        count += 1
    for node in diagram.nodes:
        nodes.append(Node(node.box, tuple(wires[w] for w in node.inputs)))
        wires.extend(range(count, count + len(node.box.cod)))
        count += len(node.box.cod)
    outputs = tuple(wires[w] for w in diagram.outputs)
    return Diagram(tuple(dom), tuple(nodes), outputs, diagram.output_names), tuple(kept)


def constant_box(value: np.ndarray) -> Box:
    """A box with no input that always gives ``value``.

    >>> from ppcore.recording.record import evaluate
    >>> [made] = evaluate(constant_box(np.array([1, 2])), [])
    >>> made.tolist()
    [1, 2]
    """
    arguments = Structure("tuple", (), (StaticArray.of(np.array(value, order="C")),))
    spec = Structure("tuple", (), (arguments, Structure("dict", (), ())))
    space = natural_space(value.shape, value.dtype.name)
    return Box("numpy.asarray", (), (space,), spec=spec, deterministic=True)


def _has_labels(diagram: Diagram, observed: Sequence[str]) -> bool:
    return any(_is_label(b, observed) for b in diagram.boxes())


def _is_label(box: Box, observed: Sequence[str]) -> bool:
    return box.op == "sample" and box.cod[0].support.discrete and box.name not in observed


def _deciding(diagram: Diagram, observed: Sequence[str]) -> set[int]:
    """Integer inputs that meet, in an array box or as a scan's start, what depends on labels."""
    depends = [False] * len(diagram.dom)  # on a label
    sources: list[set[int] | None] = [  # integer inputs that make a constant; None if not constant
        {i} if np.dtype(s.dtype).kind in "iub" else None for i, s in enumerate(diagram.dom)
    ]
    found: set[int] = set()
    for node in diagram.nodes:
        box, inputs = node.box, node.inputs
        touched = any(depends[w] for w in inputs)
        inside = box.body is not None and _has_labels(box.body, observed)
        if box.op == "scan" and (touched or inside):
            k, n = box.spec.carry, box.spec.carry + box.spec.xs
            deciding: Sequence[int] = (*inputs[:k], *inputs[n:])
        elif box.deterministic and touched:
            deciding = inputs
        else:
            deciding = ()
        for w in deciding:
            found |= sources[w] or set()
        made: set[int] | None = None
        if box.deterministic and box.body is None and all(sources[w] is not None for w in inputs):
            made = set().union(*(sources[w] or set() for w in inputs))
        label = touched or inside or _is_label(box, observed)
        depends.extend([label] * len(box.cod))
        sources.extend([made] * len(box.cod))
    return found
