"""Programs of other libraries, as frontends hand them over.

A frontend traces a foreign program once as a function from its data and the values of
its sites to the parameters of every site's distribution. Replayed on wires that function becomes a
diagram (:mod:`ppcore.frontends`); the program's own density stands beside it, to compare with, and
to go on with where a program cannot be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from ppcore.diagram import Plate


@dataclass(frozen=True)
class Slot:
    """The place of output ``index`` of the traced function in a description.

    ``elementwise`` parameters broadcast against each other and the site's plates, so that copies
    the program has made of one number for that purpose may be left out.
    """

    index: int
    elementwise: bool = False


@dataclass(frozen=True)
class ForeignSite:
    """One site of a foreign program.

    Attributes
    ----------
    kind : "sample", "deterministic" or "factor"
    name : str
    content : Description or Slot
        A sample site's distribution, with slots for parameters; otherwise the value's slot.
    plates : tuple of Plate
    shape : tuple of int
        Of the site's value.
    observed : array, optional
        The value a sample site is observed at.
    """

    kind: str
    name: str
    content: Any
    plates: tuple[Plate, ...] = ()
    shape: tuple[int, ...] = ()
    observed: Any = None


class Replay(Protocol):
    """A traced function (data…, value of each sample site…) -> the values of all slots, on wires.

    Inputs are handed in as they become known; an output needs only those it depends on.
    """

    def give(self, index: int, value: Any) -> None:
        """Input ``index`` is ``value``: a wire or an array."""
        ...

    def output(self, index: int, bare: bool = False) -> Any:
        """Output ``index``: a wire, or an array where no wire had a part in it.

        ``bare``: as it was before the program broadcast it, if that came last.
        """
        ...


@dataclass(frozen=True)
class Reading:
    """A program as a function of its sites.

    Attributes
    ----------
    replay : callable
        () -> a fresh :class:`Replay`.
    data : tuple of arrays
        They become inputs of the diagram.
    sites : tuple of ForeignSite
        In the program's order.
    """

    replay: Callable[[], Replay]
    data: tuple[Any, ...]
    sites: tuple[ForeignSite, ...]


@dataclass(frozen=True)
class ForeignProgram:
    """What a frontend makes of a program.

    Attributes
    ----------
    name : str
    density : Target
        The program's own unnormalised density on R^d, in double precision.
    latents, deterministics : tuple of str
        Continuous latent sites, in the order of x; computed sites.
    observed : mapping of str to array
    reading : Reading, optional
    why : str
        Why there is no reading, as the end of "..., because".
    summed : tuple of str
        Discrete latent sites. ``density`` sums them out, unless it says it cannot.
    needs_reading : bool
        Whether ``density`` is without meaning because of them, so that only a diagram will do.
    dims : mapping of str to tuple of str
        Names of the sites' axes, where the program has any.
    """

    name: str
    density: Any
    latents: tuple[str, ...]
    deterministics: tuple[str, ...] = ()
    observed: Mapping[str, Any] = field(default_factory=dict)
    reading: Reading | None = None
    why: str = ""
    summed: tuple[str, ...] = ()
    needs_reading: bool = False
    dims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Frontend:
    """A way in and out of another library.

    Attributes
    ----------
    read : callable
        ``(model, args, kwargs) -> ForeignProgram``.
    write : callable, optional
        ``(Model) -> program``.
    """

    read: Callable[[Any, tuple[Any, ...], dict[str, Any]], ForeignProgram]
    write: Callable[[Any], Any] | None = None
