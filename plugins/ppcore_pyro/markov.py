"""Whether a chain's state is computed from discrete sites of more than the step before."""

from __future__ import annotations

from ppcore.diagram import Box, Diagram


def remembers_labels(diagram: Diagram) -> bool:
    """Whether some scan of the diagram carries on what it computes from earlier labels.

    A label sampled anew at each step from the one before is no memory; a sum of labels is.
    """
    return any(
        box.body is not None
        and (remembers_labels(box.body) or (box.op == "scan" and _carries_on(box)))
        for box in diagram.boxes()
    )


def _carries_on(box: Box) -> bool:
    body = box.body
    assert body is not None
    from_labels = _reached(body, set(), labels=True)
    labelled = {i for i in range(box.spec.carry) if body.outputs[i] in from_labels}
    onwards = _reached(body, labelled, labels=False)
    return any(body.outputs[i] in onwards for i in range(box.spec.carry))


def _reached(body: Diagram, inputs: set[int], labels: bool) -> set[int]:
    """Wires computed, without drawing anew, from input wires and (if so) from discrete sites."""
    reached, at = set(inputs), len(body.dom)
    for node in body.nodes:
        own = set(range(at, at + len(node.box.cod)))
        at += len(node.box.cod)
        if node.box.op == "sample":
            if labels and node.box.cod[0].support.discrete:
                reached |= own
        elif reached & set(node.inputs):
            reached |= own
    return reached
