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
from ppcore.recording.record import as_wire, record
from ppcore.recording.recorder import require, user_line
from ppcore.recording.template import from_template, is_array, to_template
from ppcore.recording.wire import Wire
from ppcore.space import Space, Support


def sample(name: str, distribution: Description) -> Wire:
    """Draw a random value: records one Markov kernel, parameters → value.

    Inside plates the value has at least the plates' sizes along their axes. Data are attached
    afterwards, by ``model(...).observe(name=values)``.

    Parameters
    ----------
    name : str
        The site's name, unique in the model.
    distribution : Description
        From :mod:`ppcore.dist`; its parameters may be random values.

    Raises
    ------
    ModelError
        The name is taken, or a constant parameter is outside its support.
    ShapeError
        Parameters do not broadcast, or do not fit the plates.
    """
    recorder = require("sample")
    if not isinstance(distribution, Description) or distribution.kind not in ("dist", "method"):
        raise ModelError(
            f"{user_line()}: pp.sample({name!r}, …) takes a distribution from ppcore.dist, such "
            f"as dist.Normal(0, 1), not {distribution!r}."
        )
    full = recorder.claim(name)
    inputs: list[Any] = []
    template = to_template(distribution, recorder.leaf(inputs))
    spaces = tuple(recorder.space(r) for r in inputs)
    info = _describe(full, template, spaces)
    _check_constants(full, distribution, info.constraints)
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
    def __init__(self, d: Any, template: Any):
        self.batch_shape = tuple(d.batch_shape)
        self.event_shape = tuple(d.event_shape)
        self.discrete = bool(_is_discrete(d))
        self.dtype = "int64" if self.discrete else "float64"
        self.support = _support(d.support, self.discrete)
        self.proper = _is_proper(d)
        self.constraints = _argument_constraints(d)


@lru_cache(maxsize=4096)
def _abstract(template: Any, spaces: tuple[Space, ...]) -> _Info:
    import jax

    from ppcore import precision

    seen: list[_Info] = []

    def run(*values: Any) -> Any:
        d = build(from_template(template, values), lambda v: v)
        seen.append(_Info(d, template))
        return 0

    with precision.scope("float64"):
        jax.eval_shape(run, *[jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in spaces])
    return seen[0]


def _describe(name: str, template: Any, spaces: tuple[Space, ...]) -> _Info:
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


def _is_discrete(d: Any) -> bool:
    try:
        return bool(d.support.is_discrete)
    except NotImplementedError:
        return bool(d.is_discrete)


def _support(constraint: Any, discrete: bool) -> Support:
    base = constraint
    while hasattr(base, "base_constraint"):
        base = base.base_constraint
    name = type(base).__name__.strip("_")
    snake = "".join(("_" + c.lower()) if c.isupper() else c for c in name).strip("_")
    bounds = [getattr(base, "lower_bound", None), getattr(base, "upper_bound", None)]
    lower, upper = map(_constant, bounds)
    dependent = any(b is not None and _constant(b) is None for b in bounds)
    return Support(_TERMS.get(snake, snake), lower, upper, discrete, dependent)


_TERMS = {
    "greater_than": "positive",
    "integer_greater_than": "integer_above",
    "ordered_vector": "ordered",
    "positive_ordered_vector": "positive_ordered",
}


def _constant(bound: Any) -> float | None:
    if isinstance(bound, (int, float, np.integer, np.floating)):
        return float(bound)
    if isinstance(bound, np.ndarray) and bound.ndim == 0:
        return float(bound)
    return None


def _is_proper(d: Any) -> bool:
    if type(d).__name__ == "ImproperUniform":
        return False
    base = getattr(d, "base_dist", None)
    return base is None or _is_proper(base)


def _argument_constraints(d: Any) -> tuple[tuple[str, Any], ...]:
    """Constraints on parameters, by name, of a distribution and of those it wraps."""
    found: dict[str, Any] = {}
    while d is not None:
        for name, constraint in getattr(type(d), "arg_constraints", {}).items():
            found.setdefault(name, constraint)
        d = getattr(d, "base_dist", None)
    return tuple(found.items())


def _check_constants(
    site: str, distribution: Description, constraints: tuple[tuple[str, Any], ...]
) -> None:
    """Refuse constant parameters outside their support, when the model is declared."""
    known = dict(constraints)
    given = dict(distribution.arguments)
    for name, value in distribution.arguments:
        if isinstance(value, Description):
            if value.kind in ("dist", "method"):
                _check_constants(site, value, _constraints_of(value))
            continue
        if not (isinstance(value, (int, float)) or is_array(value)) or isinstance(value, Wire):
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            continue
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ModelError(f"{user_line()}: site {site!r}: parameter {name} holds NaN.")
        constraint = known.get(name)
        if constraint is None or getattr(constraint, "_is_dependent", False):
            continue
        if not _satisfied(constraint, array):
            shown = value if array.ndim == 0 else f"an array of shape {array.shape}"
            raise ModelError(
                f"{user_line()}: site {site!r}: {distribution.name}'s parameter {name} = {shown} "
                f"must be {_phrase(constraint)}. Change it, or transform it first (np.exp makes a "
                "positive number of any real one)."
            )
    low, high = given.get("low"), given.get("high")
    if _is_number(low) and _is_number(high) and not np.all(np.asarray(low) < np.asarray(high)):
        raise ModelError(
            f"{user_line()}: site {site!r}: {distribution.name} needs low < high, not "
            f"low = {low}, high = {high}."
        )


def _is_number(value: Any) -> bool:
    return value is not None and not isinstance(value, (Wire, Description))


def _constraints_of(description: Description) -> tuple[tuple[str, Any], ...]:
    """Constraints of a nested description, read from NumPyro's class where it is one."""
    from ppcore.dist import lookup

    if description.kind == "method":
        return ()
    found = lookup(description.kind, description.name)
    return tuple(getattr(found, "arg_constraints", {}).items())


def _satisfied(constraint: Any, value: np.ndarray) -> bool:
    from ppcore import precision

    try:
        with precision.scope("float64"):
            return bool(np.all(np.asarray(constraint(value))))
    except (NotImplementedError, AttributeError, TypeError, ValueError, IndexError):
        return True  # a constraint on the event's shape, which abstract evaluation has checked


def _phrase(constraint: Any) -> str:
    support = _support(constraint, False)
    return {"positive": f"greater than {support.lower or 0:g}"}.get(
        support.name, str(support).replace("_", " ")
    )


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
                "give the plate another axis=."
            )
        shape[at] = plate.size
    return tuple(shape)


@contextlib.contextmanager
def plate(name: str, size: int, axis: int | None = None) -> Iterator[np.ndarray]:
    """``size`` conditionally independent copies of the sites inside.

    Plates nest; each takes the last free axis, so the outermost plate is axis −1, the next −2, …
    (values of an outer plate then broadcast inside an inner one). ``axis`` (negative, counted in
    the batch shape) overrides this. Yields ``np.arange(size)``.

    Raises :class:`ModelError` for a size that is not a positive integer, an axis in use, or a
    plate inside itself.
    """
    recorder = require("plate")
    if isinstance(size, (bool, Wire)) or not isinstance(size, (int, np.integer)) or size < 1:
        raise ModelError(
            f"{user_line()}: plate {name!r} needs a positive integer size, not {size!r}."
        )
    used = {p.axis: p.name for p in recorder.plates}
    if any(p.name == name for p in recorder.plates):
        raise ModelError(f"{user_line()}: plate {name!r} is inside itself; give it another name.")
    if axis is None:
        axis = -1
        while axis in used:
            axis -= 1
    if axis >= 0 or axis in used:
        why = f"plate {used[axis]!r} has it" if axis in used else "axes are negative, as in axis=-2"
        raise ModelError(f"{user_line()}: plate {name!r} cannot take axis {axis}: {why}.")
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
