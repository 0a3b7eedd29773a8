"""What a model function says: sample, plate, deterministic, factor, prefix."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from ppcore.diagram import Box, Plate
from ppcore.dist import Description, build
from ppcore.errors import ModelError, PPCoreError, ShapeError
from ppcore.recording.constraints import (
    argument_constraints,
    check_constants,
    check_kinds,
    is_discrete,
    is_proper,
    support_of,
)
from ppcore.recording.record import as_wire, record
from ppcore.recording.recorder import require, user_line
from ppcore.recording.template import from_template, to_template
from ppcore.recording.wire import Wire
from ppcore.space import Space


def sample(name: str, distribution: Description, obs: None = None) -> Wire:
    """Draw a random value: records one Markov kernel, parameters → value.

    Inside plates the value has at least the plates' sizes along their axes. Data are attached
    afterwards, by ``model(...).observe(name=values)``.

    Parameters
    ----------
    name : str
        The site's name, unique in the model.
    distribution : Description
        From :mod:`ppcore.dist`; its parameters may be random values.
    obs : None
        Only there to tell those who are used to it where data go instead.

    Raises
    ------
    ModelError
        Data are given as ``obs``, the name is taken, or a constant parameter is outside its
        support.
    ShapeError
        Parameters do not broadcast, or do not fit the plates.
    """
    recorder = require("sample")
    if not isinstance(distribution, Description) or distribution.kind not in ("dist", "method"):
        raise ModelError(
            f"{user_line()}: pp.sample({name!r}, …) takes a distribution from ppcore.dist, such "
            f"as dist.Normal(0, 1), not {distribution!r}."
        )
    if obs is not None:
        raise ModelError(
            f"{user_line()}: a model does not hold its data. Drop obs= from site {name!r} and "
            f"attach the data to the model: model(...).observe({name}=data)."
        )
    full = recorder.claim(name)
    check_kinds(full, distribution)
    inputs: list[Any] = []
    template = to_template(distribution, recorder.leaf(inputs))
    spaces = tuple(recorder.space(r) for r in inputs)
    info = describe_site(full, template, spaces)
    check_constants(full, distribution, info.constraints)
    batch = _plate_shape(full, info.batch_shape, recorder.plates)
    space = Space(batch + info.event_shape, info.dtype, info.support)
    box = Box(
        "sample",
        spaces,
        (space,),
        spec=(template, batch, len(info.event_shape), info.proper),
        name=full,
        plates=recorder.plates,
    )
    (wire,) = recorder.add(box, tuple(inputs))
    recorder.sites.append((full, wire.ref))
    return wire


class _Info:
    """What a site's box says, and the constraints on its parameters."""

    def __init__(self, d: Any, parts: dict[Any, Any]):
        self.batch_shape = tuple(d.batch_shape)
        self.event_shape = tuple(d.event_shape)
        self.discrete = is_discrete(d)
        self.dtype = "int64" if self.discrete else "float64"
        self.support = support_of(d.support, self.discrete)
        self.proper = is_proper(d)
        self.constraints = {at: argument_constraints(part) for at, part in parts.items()}


@lru_cache(maxsize=4096)
def _abstract(template: Any, spaces: tuple[Space, ...]) -> _Info:
    import jax

    from ppcore import precision

    seen: list[_Info] = []

    def run(*values: Any) -> Any:
        parts: dict[Any, Any] = {}
        d = build(from_template(template, values), lambda v: v, parts)
        seen.append(_Info(d, parts))
        return 0

    with precision.scope("float64"):
        jax.eval_shape(run, *[jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in spaces])
    return seen[0]


def describe_site(name: str, template: Any, spaces: tuple[Space, ...]) -> _Info:
    try:
        return _abstract(template, spaces)
    except PPCoreError:
        raise
    except Exception as error:
        shapes = ", ".join(str(s) for s in spaces) or "no random or array parameters"
        shown = from_template(template, [f"<{s}>" for s in spaces])
        raise ShapeError(
            f"{user_line()}: site {name!r}: the parameters of {shown!r} do not fit together "
            f"({shapes}): {str(error).splitlines()[0]}"
        ) from None


def _plate_shape(site: str, batch: tuple[int, ...], plates: tuple[Plate, ...]) -> tuple[int, ...]:
    if not plates:
        return batch
    ndim = max(len(batch), max(-p.axis for p in plates))
    shape = [1] * (ndim - len(batch)) + list(batch)
    for plate in plates:
        at = ndim + plate.axis
        if shape[at] not in (1, plate.size):
            raise ShapeError(
                f"{user_line()}: site {site!r} has batch shape {batch}, whose axis {plate.axis} "
                f"does not broadcast with plate {plate.name!r} of size {plate.size}. Index the "
                f"parameter (value[index]) so that this axis has length {plate.size} or 1, or "
                "give the plate another axis=; where each copy is a whole vector, write "
                ".to_event(1) behind the distribution."
            )
        shape[at] = plate.size
    return tuple(shape)


@contextlib.contextmanager
def plate(name: str, size: int, axis: int | None = None) -> Iterator[np.ndarray]:
    """``size`` conditionally independent copies of the sites inside.

    Plates nest; each takes the last free axis, so the outermost plate is axis −1, the next −2, …
    (values of an outer plate then broadcast inside an inner one). ``axis`` (negative, counted in
    the batch shape) overrides this. Yields ``np.arange(size)``.

    Inside :func:`prefix` a plate is named as sites are. A name may be used again for a plate of
    the same size.

    Raises :class:`ModelError` for a size that is not a positive integer, an axis in use, a plate
    inside itself, or a name that has another size already.
    """
    recorder = require("plate")
    if not isinstance(name, str) or not name:
        raise ModelError(f"{user_line()}: a plate's name must be a non-empty string, not {name!r}.")
    name = recorder.prefix + name
    if isinstance(size, (bool, Wire)) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ModelError(
            f"{user_line()}: plate {name!r} needs a positive integer size, not {size!r}."
        )
    used = {p.axis: p.name for p in recorder.plates}
    if any(p.name == name for p in recorder.plates):
        raise ModelError(f"{user_line()}: plate {name!r} is inside itself; give it another name.")
    known = recorder.root.plate_sizes.setdefault(name, int(size))
    if known != size:
        raise ModelError(
            f"{user_line()}: plate {name!r} has size {size} here and {known} before; give one "
            "another name."
        )
    if axis is None:
        axis = -1
        while axis in used:
            axis -= 1
    if not isinstance(axis, (int, np.integer)) or axis >= 0 or axis in used:
        why = f"plate {used[axis]!r} has it" if axis in used else "axes are negative, as in axis=-2"
        raise ModelError(f"{user_line()}: plate {name!r} cannot take axis {axis!r}: {why}.")
    before = recorder.plates
    recorder.plates = (*before, Plate(name, int(size), int(axis)))
    try:
        yield np.arange(size)
    finally:
        recorder.plates = before


@contextlib.contextmanager
def prefix(name: str) -> Iterator[None]:
    """Sites inside are named ``name.site``: call a model inside a model without clashes."""
    recorder = require("prefix")
    if not isinstance(name, str) or not name:
        raise ModelError(f"{user_line()}: a prefix must be a non-empty string, not {name!r}.")
    before = recorder.prefix
    recorder.prefix = f"{before}{name}."
    try:
        yield
    finally:
        recorder.prefix = before


def deterministic(name: str, value: Any) -> Wire:
    """Name a computed value, so that it is kept with the draws."""
    recorder = require("deterministic")
    full = recorder.claim(name)
    wire = record("deterministic", (as_wire(value),), {}, name=full)
    recorder.sites.append((full, wire.ref))
    return wire  # type: ignore[no-any-return]


def factor(name: str, log_weight: Any) -> None:
    """Multiply the joint density by exp(log_weight), summed over its elements: an effect."""
    recorder = require("factor")
    full = recorder.claim(name)
    wire = as_wire(log_weight)
    box = Box("factor", (wire.space,), (), name=full, normalized=False, plates=recorder.plates)
    recorder.add(box, (recorder.ref(wire),))
