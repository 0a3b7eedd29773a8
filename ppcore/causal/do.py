"""Surgery: replace the mechanism of a site, and nothing else.

``do(x = v)`` cuts the box that makes x out of the diagram and plugs the value into its place;
``do(x = k)`` plugs in another kernel. Sites above x keep their law; those below see the new value.

Source: Jacobs, Kissinger & Zanasi (2019), arXiv:1811.08338; Pearl, "Causality" (2009), ch. 3.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ppcore.causal.marginal import prune
from ppcore.causal.rebuild import (
    copy_nodes,
    descendants,
    new_data,
    site_box,
    start,
    tidy,
)
from ppcore.diagram import Box, Diagram
from ppcore.diagram.condition import site_space
from ppcore.dist import Description
from ppcore.errors import ModelError, ShapeError
from ppcore.recording.record import as_wire
from ppcore.recording.recorder import Recorder, recording
from ppcore.recording.sites import sample
from ppcore.recording.template import to_template
from ppcore.recording.wire import Wire
from ppcore.space import Space

Surgery = tuple[Diagram, tuple[Any, ...]]


def do(diagram: Diagram, data: Sequence[Any], name: str, new: Any) -> Surgery:
    """The diagram in which site ``name`` is made by ``new``, and its data.

    Parameters
    ----------
    diagram, data
        A joint and the values of its inputs.
    name : str
        A sampled or computed site.
    new : array, Description, or callable
        A value; a distribution; or a function whose arguments are named after sites that do not
        depend on ``name``, and which returns either.

    Raises
    ------
    ModelError
        There is no such site, or the new mechanism would make a cycle.
    ShapeError
        The new value has another shape.
    """
    at, box = site_box(diagram, name)
    if box.body is not None:
        if isinstance(new, Description) or callable(new):
            raise ModelError(
                f"Site {name!r} is inside a scan; give its values, one for each step, instead of a "
                "distribution or a function."
            )
        return _do_inside(diagram, data, at, name, new)
    below = descendants(diagram, [at])
    above = [k for k in range(len(diagram.nodes)) if k not in below]
    order = [*above, *(k for k in range(len(diagram.nodes)) if k in below)]
    recorder, inputs = start(diagram)
    reference: dict[str, Any] = {}

    def change(k: int, old: Box, given: tuple[Any, ...]) -> list[Any] | None:
        if k != at:
            return None
        made = _mechanism(recorder, diagram, old, new, reference, below)
        return [made.ref]

    wires = _Named(diagram, recorder, reference)
    refs = copy_nodes(recorder, diagram, inputs, order, wires.watch(change))
    out = recorder.freeze([refs[w] for w in diagram.outputs], diagram.output_names)
    return tidy(prune(out), (*data, *recorder.data))


class _Named:
    """Remembers the references of named sites while a diagram is copied."""

    def __init__(self, diagram: Diagram, recorder: Recorder, reference: dict[str, Any]):
        self.recorder, self.reference = recorder, reference
        self.names: dict[int, list[str]] = {}
        for wire, name in zip(diagram.outputs, diagram.output_names, strict=True):
            if name is not None:
                self.names.setdefault(wire, []).append(name)
        self.diagram = diagram
        for i in range(len(diagram.dom)):
            for name in self.names.get(i, ()):
                reference[name] = ("in", i, 0)

    def watch(self, change: Callable[..., Any]) -> Callable[..., list[Any]]:
        from ppcore.causal.rebuild import first_wires, retyped

        starts = first_wires(self.diagram)

        def watched(k: int, box: Box, given: tuple[Any, ...]) -> list[Any]:
            made = change(k, box, given)
            if made is None:
                fresh = retyped(box, [self.recorder.space(r) for r in given])
                made = [w.ref for w in self.recorder.add(fresh, given)]
            for port, ref in enumerate(made):
                for name in self.names.get(starts[k] + port, ()):
                    self.reference[name] = ref
            return list(made)

        return watched


def _mechanism(
    recorder: Recorder,
    diagram: Diagram,
    old: Box,
    new: Any,
    reference: Mapping[str, Any],
    below: set[int],
) -> Wire:
    name, space = str(old.name), old.cod[0]
    if not (callable(new) or isinstance(new, (Description, Wire))):
        return constant_site(recorder, name, space, new, old)
    recorder.names.pop(name, None)
    recorder.plates = old.plates
    with recording(recorder):
        if callable(new) and not isinstance(new, Description):
            new = new(**_arguments(recorder, diagram, name, new, reference, below))
        if isinstance(new, Description):
            made = sample(name, new)
        else:
            value = as_wire(new)
            made = computed_site(recorder, name, value)
    recorder.plates = ()
    if (made.shape, made.space.dtype) != (space.shape, space.dtype):
        raise ShapeError(
            f"do({name}=…): the new mechanism gives {made.space}, the site is {space}. Give it the "
            "same shape and dtype."
        )
    return made


def _arguments(
    recorder: Recorder,
    diagram: Diagram,
    name: str,
    fn: Callable[..., Any],
    reference: Mapping[str, Any],
    below: set[int],
) -> dict[str, Wire]:
    found = {}
    for argument in inspect.signature(fn).parameters:
        at, _ = site_box(diagram, argument)
        if at in below:
            what = "itself" if argument == name else f"{argument!r}, which depends on it"
            raise ModelError(
                f"do({name}=…): the new mechanism of {name!r} reads {what}: that would be a cycle. "
                "It may read sites that do not depend on it."
            )
        ref = reference.get(argument)
        if ref is None:
            raise ModelError(f"do({name}=…): site {argument!r} was discarded by marginal().")
        found[argument] = Wire(recorder, ref, recorder.space(ref))
    return found


def constant_site(recorder: Recorder, name: str, space: Space, value: Any, old: Box) -> Wire:
    """The site held at a value, which is a new input: data, not structure."""
    wire = new_data(recorder, value, space)
    return computed_site(recorder, name, wire, space, old.plates)


def computed_site(
    recorder: Recorder,
    name: str,
    value: Wire,
    space: Space | None = None,
    plates: tuple[Any, ...] | None = None,
) -> Wire:
    """A named deterministic box that passes ``value`` on."""
    inputs: list[Any] = []
    template = to_template(((value,), {}), recorder.leaf(inputs))
    box = Box(
        "deterministic",
        (value.space,),
        (space or value.space,),
        spec=template,
        name=name,
        deterministic=True,
        plates=recorder.plates if plates is None else plates,
    )
    return recorder.add(box, tuple(inputs))[0]


def _do_inside(diagram: Diagram, data: Sequence[Any], at: int, name: str, value: Any) -> Surgery:
    """Hold a site of a scan's body at stacked values: they enter as one more stacked input."""
    recorder, inputs = start(diagram)
    box = diagram.nodes[at].box
    if box.op == "plate" or box.body is None:
        raise ModelError("Flatten the diagram's plates first (ppcore.diagram.nest.flatten).")
    space = site_space(diagram, name) if name in diagram.named("sample") else _stacked(box, name)
    scan = held_scan(box, name, Space(space.shape[1:], space.dtype, space.support))

    def change(k: int, old: Box, given: tuple[Any, ...]) -> list[Any] | None:
        if k != at:
            return None
        n = old.spec.carry + old.spec.xs
        wire = new_data(recorder, value, space)
        made = recorder.add(scan, (*given[:n], wire.ref, *given[n:]))
        return [w.ref for w in made]

    refs = copy_nodes(recorder, diagram, inputs, None, change)
    out = recorder.freeze([refs[w] for w in diagram.outputs], diagram.output_names)
    return tidy(prune(out), (*data, *recorder.data))


def _stacked(box: Box, name: str) -> Space:
    assert box.body is not None
    at = box.body.output_names.index(name)
    return box.cod[at]


def held_scan(box: Box, name: str, space: Space) -> Box:
    """The scan whose site ``name`` reads one more stacked input, behind the others."""
    body = box.body
    assert body is not None
    n = box.spec.carry + box.spec.xs
    recorder = Recorder()
    inputs: list[Any] = []
    extra: Any = None
    for i, s in enumerate(body.dom):
        if i == n:
            extra = recorder.add_input(space)
        inputs.append(recorder.add_input(s).ref)
    if extra is None:
        extra = recorder.add_input(space)
    at, inner = site_box(body, name)
    if inner.body is not None:
        raise ModelError(f"Site {name!r} is inside a scan inside a scan; do() reaches one level.")

    def change(k: int, old: Box, given: tuple[Any, ...]) -> list[Any] | None:
        if k != at:
            return None
        return [computed_site(recorder, name, extra, old.cod[0], old.plates).ref]

    refs = copy_nodes(recorder, body, inputs, None, change)
    new_body = prune(recorder.freeze([refs[w] for w in body.outputs], body.output_names))
    stacked = Space((box.spec.length, *space.shape), space.dtype, space.support)
    return replace(
        box,
        dom=(*box.dom[:n], stacked, *box.dom[n:]),
        spec=replace(box.spec, xs=box.spec.xs + 1),
        deterministic=all(b.deterministic for b in new_body.boxes()),
        body=new_body,
    )


__all__ = ["computed_site", "constant_site", "do", "held_scan"]
