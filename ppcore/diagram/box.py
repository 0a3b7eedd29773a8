"""Boxes: the Markov kernels that a diagram is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ppcore.space import Space

if TYPE_CHECKING:
    from ppcore.diagram.diagram import Diagram


@dataclass(frozen=True)
class Plate:
    """``size`` conditionally independent copies, laid out along a negative batch ``axis``."""

    name: str
    size: int
    axis: int


@dataclass(frozen=True)
class Hole:
    """The place of input ``index`` in a box's ``spec``."""

    index: int


@dataclass(frozen=True)
class Box:
    """One kernel: ``dom -> cod``.

    Parameters
    ----------
    op : str
        What it computes: "sample", "observe", "factor", "deterministic", "scan", "plate",
        "lift", or the name of an array function such as "numpy.exp". A semantics maps it to
        code by this name.
    dom, cod : tuple of Space
        Types of the inputs and of the outputs.
    spec : hashable
        Static arguments, with a :class:`Hole` where an input wire goes.
    name : str, optional
        The site's name; unique in a diagram.
    normalized : bool
        Total mass one for every input. Discarding all outputs of a normalised box may delete it.
    deterministic : bool
        A function. Copying commutes with deterministic boxes only.
    plates : tuple of Plate
        The plates it stands in, outermost first.
    body : Diagram, optional
        The sub-diagram of a scan or plate.
    """

    op: str
    dom: tuple[Space, ...]
    cod: tuple[Space, ...]
    spec: Any = ()
    name: str | None = None
    normalized: bool = True
    deterministic: bool = False
    plates: tuple[Plate, ...] = ()
    body: Diagram | None = None

    def __str__(self) -> str:
        return self.name or self.op.rsplit(".", 1)[-1]


@dataclass(frozen=True)
class Node:
    """A box in its place: the wires that enter it."""

    box: Box
    inputs: tuple[int, ...]
