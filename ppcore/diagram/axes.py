"""Names for the axes of a diagram's sites."""

from __future__ import annotations

from ppcore.diagram.box import Box
from ppcore.diagram.diagram import Diagram


def site_dims(diagram: Diagram) -> dict[str, tuple[str, ...]]:
    """{site: a name per axis}: the plate that made it, or ``{site}_dim_{i}``.

    >>> from ppcore.diagram.box import Node, Plate
    >>> from ppcore.space import Space
    >>> box = Box("sample", (), (Space((3,)),), spec=((), (3,), 0, True), name="a",
    ...           plates=(Plate("group", 3, -1),))
    >>> site_dims(Diagram((), (Node(box, ()),), (0,), ("a",)))
    {'a': ('group',)}
    """
    found: dict[str, tuple[str, ...]] = {}
    for box, lead in _sites(diagram, 0):
        name = str(box.name)
        space = box.cod[0] if box.cod else box.dom[-1]
        event = box.spec[2] if box.op in ("sample", "observe") else 0
        ndim = lead + space.ndim
        dims = [f"{name}_dim_{i}" for i in range(ndim)]
        for plate in box.plates:
            at = ndim - event + plate.axis
            if lead <= at < ndim and space.shape[at - lead] == plate.size:
                dims[at] = plate.name
        found[name] = tuple(dims)
    return found


def _sites(diagram: Diagram, lead: int) -> list[tuple[Box, int]]:
    out = []
    for node in diagram.nodes:
        box = node.box
        if box.op in ("sample", "observe", "deterministic") and box.name is not None:
            out.append((box, lead))
        if box.body is not None:
            out.extend(_sites(box.body, lead + (box.op == "scan")))
    return out
