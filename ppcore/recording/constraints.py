"""Supports of distributions, and constant parameters checked against their constraints."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcore.dist import Description, optional
from ppcore.errors import ModelError
from ppcore.recording.recorder import user_line
from ppcore.recording.template import is_array
from ppcore.recording.wire import Wire
from ppcore.space import Support
from ppcore.supports import outside, phrase, remedy

# Where a distribution stands among the arguments of those around it: () for the outermost.
Path = tuple[Any, ...]
Constraints = dict[Path, dict[str, Any]]

_TERMS = {
    "greater_than": "positive",
    "integer_greater_than": "integer_above",
    "ordered_vector": "ordered",
    "positive_ordered_vector": "positive_ordered",
}


def support_of(constraint: Any, discrete: bool) -> Support:
    """NumPyro's constraint as a support; bounds that are not constants become None."""
    base = constraint
    while hasattr(base, "base_constraint"):
        base = base.base_constraint
    name = type(base).__name__.strip("_")
    snake = "".join(("_" + c.lower()) if c.isupper() else c for c in name).strip("_")
    bounds = [getattr(base, "lower_bound", None), getattr(base, "upper_bound", None)]
    lower, upper = map(_constant, bounds)
    dependent = any(b is not None and _constant(b) is None for b in bounds)
    return Support(_TERMS.get(snake, snake), lower, upper, discrete, dependent)


def _constant(bound: Any) -> float | None:
    if isinstance(bound, (int, float, np.integer, np.floating)):
        return float(bound)
    if isinstance(bound, np.ndarray) and bound.ndim == 0:
        return float(bound)
    return None


def is_discrete(d: Any) -> bool:
    """Whether a distribution's values are integers."""
    try:
        return bool(d.support.is_discrete)
    except NotImplementedError:
        return bool(d.is_discrete)


def is_proper(d: Any) -> bool:
    """Whether a distribution has total mass one."""
    if type(d).__name__ == "ImproperUniform":
        return False
    base = getattr(d, "base_dist", None)
    return base is None or is_proper(base)


def argument_constraints(d: Any) -> dict[str, Any]:
    """Constraints on parameters, by name, of a distribution and of those it wraps."""
    found: dict[str, Any] = {}
    while d is not None:
        for name, constraint in getattr(type(d), "arg_constraints", {}).items():
            # What a constraint of other arguments asks is known when they are: when it is built.
            if not getattr(constraint, "_is_dependent", False):
                found.setdefault(name, constraint)
        d = getattr(d, "base_dist", None)
    return found


def check_kinds(site: str, distribution: Description) -> None:
    """Refuse strings and None where a number belongs, before anything is built from them."""
    for name, value in distribution.arguments:
        parts = value if isinstance(value, (list, tuple)) else (value,)
        for part in parts:
            if isinstance(part, Description):
                check_kinds(site, part)
        if isinstance(value, str) or (value is None and not optional(distribution, name)):
            raise ModelError(
                f"{user_line()}: site {site!r}: {distribution.name}'s parameter {name} must be a "
                f"number, an array or a random value, not {value!r}."
            )


def check_constants(
    site: str, distribution: Description, constraints: Constraints, at: Path = ()
) -> None:
    """Refuse constant parameters outside their support, when the model is declared.

    ``constraints`` holds those of the distribution at ``()`` and of the nested ones.
    """
    known = constraints.get(at, {})
    for key, (name, value) in enumerate(distribution.arguments):
        if isinstance(value, Description):
            check_constants(site, value, constraints, (*at, key))
        elif isinstance(value, (list, tuple)):
            for j, item in enumerate(value):
                if isinstance(item, Description):
                    check_constants(site, item, constraints, (*at, key, j))
        elif not isinstance(value, Wire) and (isinstance(value, (int, float)) or is_array(value)):
            _check(site, distribution.name, name, np.asarray(value), known.get(name))
    given = dict(distribution.arguments)
    low, high = given.get("low"), given.get("high")
    if _is_number(low) and _is_number(high) and not np.all(np.asarray(low) < np.asarray(high)):
        raise ModelError(
            f"{user_line()}: site {site!r}: {distribution.name} needs low < high, not "
            f"low = {low}, high = {high}."
        )


def _check(site: str, kind: str, name: str, array: np.ndarray, constraint: Any) -> None:
    if array.dtype.kind not in "biuf":
        return
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise ModelError(f"{user_line()}: site {site!r}: {kind}'s parameter {name} holds NaN.")
    if constraint is None or _satisfied(constraint, array):
        return
    support = support_of(constraint, False)
    found = outside(array, support)
    held = f" = {array}" if array.ndim == 0 else f" holds {found}, but" if found else ""
    raise ModelError(
        f"{user_line()}: site {site!r}: {kind}'s parameter {name}{held} must be "
        f"{phrase(support)}. {remedy(support)}"
    )


def _is_number(value: Any) -> bool:
    return value is not None and not isinstance(value, (Wire, Description))


def _satisfied(constraint: Any, value: np.ndarray) -> bool:
    from ppcore import precision

    try:
        with precision.scope("float64"):
            return bool(np.all(np.asarray(constraint(value))))
    except (NotImplementedError, AttributeError, TypeError, ValueError, IndexError):
        return True  # a constraint on the event's shape, which abstract evaluation has checked
