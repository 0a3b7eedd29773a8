"""Reading the template of a sample or observe box: family, arguments and masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.diagram import Box, Hole
from ppcore.recording.template import StaticArray, Structure
from ppcore.rewrite.linear import Form, Reader
from ppcore.space import Space


@dataclass(frozen=True)
class Told:
    """What a sample or observe box says of its distribution.

    Attributes
    ----------
    family : str
        NumPyro's name.
    arguments : dict of str to template
    masks : tuple of templates
    space : Space
        Of the value.
    """

    family: str
    arguments: dict[str, Any]
    masks: tuple[Any, ...]
    space: Space


def told(box: Box) -> Told:
    """The description in a sample or observe box, without ``expand`` and ``to_event``."""
    template, masks = box.spec[0], []
    while template.kind.startswith("describe:method:"):
        if template.kind.endswith(":mask"):
            masks.append(template.items[1])
        template = template.items[0]
    arguments = dict(zip(template.keys, template.items, strict=True))
    space = box.cod[0] if box.op == "sample" else box.dom[-1]
    return Told(template.kind.rsplit(":", 1)[-1], arguments, tuple(masks), space)


def form_of(reader: Reader, inputs: tuple[int, ...], template: Any, default: float) -> Form | None:
    """The form of an argument, or None if it is no single array."""
    if template is None:
        return np.asarray(default)
    if isinstance(template, Hole):
        return reader.form(inputs[template.index])
    if isinstance(template, StaticArray):
        return template.array()
    if isinstance(template, Structure):
        return None
    return np.asarray(template, float)


def has_labels(diagram: Any) -> bool:
    """Whether discrete latent sites are summed out of the diagram's density."""
    return any(b.op == "sample" and b.cod[0].support.discrete for b in diagram.boxes())
