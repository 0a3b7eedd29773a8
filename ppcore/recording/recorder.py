"""The recorder: collects boxes while a model function runs."""

from __future__ import annotations

import contextlib
import contextvars
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram, Hole, Node, Plate
from ppcore.errors import ModelError
from ppcore.recording.wire import Wire
from ppcore.space import Space, natural_space

_current: contextvars.ContextVar[Recorder | None] = contextvars.ContextVar(
    "ppcore_recorder", default=None
)
_PACKAGE = str(Path(__file__).resolve().parents[1])
_LIBRARIES = tuple({sysconfig.get_paths()[k] for k in ("stdlib", "purelib", "platlib")})

Ref = tuple[str, int, int]  # ("in", i, 0) or ("node", k, port)


class Recorder:
    """A diagram under construction.

    ``parent`` is set while the body of a scan is recorded: wires of the parent that the body uses
    become inputs of the body ("captured").
    """

    def __init__(self, parent: Recorder | None = None):
        self.parent = parent
        self.spaces: list[Space] = []
        self.nodes: list[tuple[Box, tuple[Ref, ...]]] = []
        self.data: list[np.ndarray] = []
        self.data_inputs: list[int] = []
        self.captured: dict[tuple[int, Ref], tuple[Wire, Ref]] = {}
        self.sites: list[tuple[str, Ref]] = []
        self._array_refs: dict[int, tuple[Any, Ref]] = {}
        root = parent.root if parent else self
        self.root: Recorder = root
        self.names: dict[str, str] = parent.names if parent else {}
        self.plates: tuple[Plate, ...] = parent.plates if parent else ()
        self.plate_sizes: dict[str, int] = {}
        self.prefix: str = parent.prefix if parent else ""
        self.closed = False

    def add_input(self, space: Space) -> Wire:
        """A new input wire."""
        self.spaces.append(space)
        return Wire(self, ("in", len(self.spaces) - 1, 0), space)

    def add(self, box: Box, inputs: tuple[Ref, ...]) -> list[Wire]:
        """A new box; returns its output wires."""
        self.nodes.append((box, inputs))
        k = len(self.nodes) - 1
        return [Wire(self, ("node", k, p), s) for p, s in enumerate(box.cod)]

    def data_ref(self, array: Any) -> Ref:
        """The wire of an array: data enter a diagram as inputs, never as constants."""
        if self.parent is not None:
            return self.ref(Wire(self.root, self.root.data_ref(array), _space_of(array)))
        known = self._array_refs.get(id(array))
        if known is not None:
            return known[1]
        values = np.asarray(array)
        if values.dtype.kind not in "biufc":
            raise ModelError(
                f"{user_line()}: data of dtype {values.dtype} cannot enter a model. Convert it to "
                "numbers first (for labels, to integer codes)."
            )
        if np.ma.is_masked(array):
            raise ModelError(
                f"{user_line()}: a masked array cannot enter a model, which would ignore the "
                "mask. Pass its values and its mask, and use np.where or dist's .mask(mask)."
            )
        if values.dtype.kind == "f" and np.isnan(values).any():
            at = ", ".join(str(int(i)) for i in np.argwhere(np.isnan(values))[0])
            raise ModelError(
                f"{user_line()}: an array of shape {values.shape} that meets random values holds "
                f"NaN, first at [{at}]. Drop those rows, or fill them and use a mask."
            )
        wire = self.add_input(natural_space(values.shape, values.dtype.name))
        self.data.append(values)
        self.data_inputs.append(wire.ref[1])
        self._array_refs[id(array)] = (array, wire.ref)
        return wire.ref

    def ref(self, wire: Wire) -> Ref:
        """The reference of a wire here, captured from an enclosing recorder if need be."""
        if wire.recorder is self:
            return wire.ref
        if self.parent is None or wire.recorder.closed:
            raise ModelError(
                f"{user_line()}: a random value was used outside the model or scan that made it. "
                "Return it from there, or pass it in as an argument."
            )
        key = (id(wire.recorder), wire.ref)
        if key not in self.captured:
            self.captured[key] = (wire, self.add_input(wire.space).ref)
        return self.captured[key][1]

    def leaf(self, inputs: list[Ref]) -> Any:
        """A leaf function for :func:`ppcore.recording.template.to_template` that gathers inputs."""
        from ppcore.recording.template import is_array

        def leaf(value: Any) -> Hole | None:
            if isinstance(value, Wire):
                ref = self.ref(value)
            elif is_array(value):
                ref = self.data_ref(value)
            else:
                return None
            if ref not in inputs:
                inputs.append(ref)
            return Hole(inputs.index(ref))

        return leaf

    def space(self, ref: Ref) -> Space:
        kind, k, port = ref
        return self.spaces[k] if kind == "in" else self.nodes[k][0].cod[port]

    def claim(self, name: str) -> str:
        """The full name of a site, refused if it is taken."""
        if not isinstance(name, str) or not name:
            raise ModelError(f"A site's name must be a non-empty string, not {name!r}.")
        full = self.prefix + name
        if full in self.names:
            raise ModelError(
                f"Two sites are named {full!r} (first at {self.names[full]}, again at "
                f"{user_line()}). Give one another name, or call the sub-model inside "
                "`with pp.prefix(...)`."
            )
        self.names[full] = user_line()
        return full

    def freeze(self, outputs: list[Ref], names: tuple[str | None, ...]) -> Diagram:
        """The finished diagram with the given outputs."""
        number: dict[Ref, int] = {("in", i, 0): i for i in range(len(self.spaces))}
        at = len(self.spaces)
        nodes = []
        for k, (box, inputs) in enumerate(self.nodes):
            nodes.append(Node(box, tuple(number[r] for r in inputs)))
            for port in range(len(box.cod)):
                number[("node", k, port)] = at
                at += 1
        self.closed = True
        outs = tuple(number[r] for r in outputs)
        return Diagram(tuple(self.spaces), tuple(nodes), outs, names)


def _space_of(array: Any) -> Space:
    values = np.asarray(array)
    return natural_space(values.shape, values.dtype.name)


def current() -> Recorder | None:
    """The recorder of the model being recorded, if any."""
    return _current.get()


def require(what: str) -> Recorder:
    """The current recorder; an error if no model is being recorded."""
    recorder = _current.get()
    if recorder is None:
        raise ModelError(
            f"pp.{what} was called outside a model. Put it in a function decorated with "
            "@pp.model and call that function."
        )
    return recorder


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[Recorder]:
    """Make ``recorder`` the current one."""
    token = _current.set(recorder)
    try:
        yield recorder
    finally:
        _current.reset(token)


def user_line() -> str:
    """``file:line`` of the innermost frame that is the user's: not ppcore's nor a library's."""
    frame: Any = sys._getframe(1)
    first = None
    while frame is not None:
        name = frame.f_code.co_filename
        if not name.startswith(_PACKAGE):
            here = f"{Path(name).name}:{frame.f_lineno}"
            if not name.startswith(_LIBRARIES):
                return here
            first = first or here
        frame = frame.f_back
    return first or "unknown line"
