"""NumPyro's distribution objects as descriptions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ppcore.dist import Description, lookup
from ppcore.errors import PPCoreError, UnsupportedError

# Classes that NumPyro's functions choose between, under the function's name.
_CHOICES = {
    f"{name}{kind.capitalize()}": (name, kind)
    for name in ("Bernoulli", "Binomial", "Categorical", "Geometric", "Multinomial")
    for kind in ("probs", "logits")
}
# Where a constructor takes one of several forms of a parameter, the one the object holds.
_HELD = {
    "MultivariateNormal": ("loc", "scale_tril"),
    "MultivariateStudentT": ("df", "loc", "scale_tril"),
    "Wishart": ("concentration", "scale_matrix"),
}

# Where an object keeps a parameter under another name than the constructor's.
_HELD_AS = {"base_distribution": "base_dist"}


def describe(distribution: Any, leaf: Callable[[Any], Any]) -> Description:
    """The description that builds ``distribution``, with ``leaf(value)`` for array parameters.

    Raises :class:`~ppcore.errors.UnsupportedError` naming what has no description.
    """
    kind = type(distribution).__name__
    if kind == "ExpandedDistribution":
        base = describe(distribution.base_dist, leaf)
        return base.expand(distribution.batch_shape)
    if kind == "Independent":
        base = describe(distribution.base_dist, leaf)
        return base.to_event(distribution.reinterpreted_batch_ndims)
    if kind == "MaskedDistribution":
        return describe(distribution.base_dist, leaf).mask(leaf(distribution._mask))
    if kind in _CHOICES:
        name, form = _CHOICES[kind]
        counts = {"total_count"} & set(_parameters(type(distribution)))
        return Description("dist", name, tuple(_values(distribution, [form, *counts], leaf)))
    try:
        lookup("dist", kind)
    except PPCoreError:
        raise UnsupportedError(f"the distribution {kind} has no description") from None
    names = _HELD.get(kind) or _parameters(type(distribution))
    return Description("dist", kind, tuple(_values(distribution, names, leaf)))


def _parameters(cls: type) -> list[str]:
    signature = inspect.signature(cls)
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    known = [p.name for p in signature.parameters.values() if p.kind in by_name]
    return [name for name in known if name != "validate_args"]


def _values(distribution: Any, names: Any, leaf: Callable[[Any], Any]) -> Any:
    for name in names:
        value = getattr(distribution, _HELD_AS.get(name, name), None)
        if value is not None and not isinstance(value, str):  # a sampling method: no parameter
            yield name, _value(value, leaf)


def _value(value: Any, leaf: Callable[[Any], Any]) -> Any:
    from numpyro.distributions import Distribution
    from numpyro.distributions.transforms import Transform

    if isinstance(value, Distribution):
        return describe(value, leaf)
    if isinstance(value, Transform):
        names = [n for n in _parameters(type(value)) if n != "domain"]
        return Description("transforms", type(value).__name__, tuple(_values(value, names, leaf)))
    if isinstance(value, (list, tuple)):
        return [_value(v, leaf) for v in value]
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, np.ndarray) or hasattr(value, "dtype"):
        return leaf(value)
    raise UnsupportedError(f"a parameter of type {type(value).__name__} has no description")
