"""Pyro's distribution objects as descriptions of NumPyro's of the same law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ppcore.dist import Description
from ppcore.errors import UnsupportedError
from ppcore_pyro.names import PROBS_OR_LOGITS, SAME, TRANSFORMS
from ppcore_pyro.own import Own

Leaf = Callable[[Any], Any]

# Torch's name -> {NumPyro's parameter: the object's attribute}, where they differ.
_KNOWN: dict[str, dict[str, str]] = {
    "LKJCholesky": {"dimension": "dim", "concentration": "concentration"},
    "MultivariateNormal": {"loc": "loc", "scale_tril": "_unbroadcasted_scale_tril"},
    "LowRankMultivariateNormal": {
        "loc": "loc",
        "cov_factor": "_unbroadcasted_cov_factor",
        "cov_diag": "_unbroadcasted_cov_diag",
    },
    "Wishart": {"concentration": "df", "scale_tril": "_unbroadcasted_scale_tril"},
    **{name: {p: p for p in parameters} for name, parameters in SAME.items()},
}


def describe(distribution: Any, leaf: Leaf) -> Description:
    """The description of the law of ``distribution``, with ``leaf(tensor)`` for parameters.

    Raises :class:`~ppcore.errors.UnsupportedError` naming what has no description.
    """
    kind = type(distribution).__name__
    if kind in ("Independent", "ReshapedDistribution"):
        base = describe(distribution.base_dist, leaf)
        count = distribution.reinterpreted_batch_ndims
        return base.to_event(count) if count else base
    if kind == "ExpandedDistribution":
        return describe(distribution.base_dist, leaf).expand(distribution.batch_shape)
    if kind == "MaskedDistribution":
        return describe(distribution.base_dist, leaf).mask(_value(distribution._mask, leaf))
    if kind == "MixtureSameFamily":
        parts = (
            ("mixing_distribution", describe(distribution.mixture_distribution, leaf)),
            ("component_distribution", describe(distribution.component_distribution, leaf)),
        )
        return Description("dist", kind, parts)
    if kind == "LKJ":
        return Description("dist", kind, describe(distribution.base_dist, leaf).arguments)
    if kind == "NegativeBinomial":
        odds = torch.exp(-distribution.logits)
        parts = (("concentration", leaf(distribution.total_count)), ("rate", leaf(odds)))
        return Description("dist", "GammaPoisson", parts)
    if kind in PROBS_OR_LOGITS:
        form = "probs" if _holds(distribution, "probs") else "logits"
        names = [form, *PROBS_OR_LOGITS[kind]]
        return Description("dist", kind, tuple(_values(distribution, names, leaf)))
    if isinstance(distribution, Own):
        found = ((k, _part(v, leaf)) for k, v in distribution.parameters.items())
        return Description("dist", kind, tuple(found))
    if kind in _KNOWN:
        found = ((k, _value(getattr(distribution, a), leaf)) for k, a in _KNOWN[kind].items())
        return Description("dist", kind, tuple(found))
    if kind == "TransformedDistribution":
        base = describe(distribution.base_dist, leaf)
        steps = [_transform(t, leaf) for t in distribution.transforms]
        return Description("dist", kind, (("base_distribution", base), ("transforms", steps)))
    raise UnsupportedError(f"the distribution {kind} has no description")


def _holds(distribution: Any, form: str) -> bool:
    """Whether an object was made with ``probs``; torch works the other form out when asked."""
    inner = getattr(distribution, "_categorical", distribution)
    return form in vars(inner)


def _values(distribution: Any, names: list[str], leaf: Leaf) -> Any:
    for name in names:
        value = getattr(distribution, name)
        if name == "total_count" and isinstance(value, torch.Tensor) and value.is_floating_point():
            value = value.long()  # Torch takes a number of trials as a float, NumPyro does not.
        yield name, _value(value, leaf)


def _part(value: Any, leaf: Leaf) -> Any:
    """A parameter of a distribution of our own: a tensor, a distribution, or several of them."""
    if isinstance(value, list):
        return [_part(v, leaf) for v in value]
    if isinstance(value, torch.distributions.Distribution):
        return describe(value, leaf)
    return _value(value, leaf)


def _value(value: Any, leaf: Leaf) -> Any:
    return leaf(value) if isinstance(value, torch.Tensor) else value


def _transform(transform: Any, leaf: Leaf) -> Description:
    kind = type(transform).__name__
    if kind not in TRANSFORMS:
        raise UnsupportedError(f"the transform {kind} has no description")
    found = tuple((k, _value(getattr(transform, k), leaf)) for k in TRANSFORMS[kind])
    return Description("transforms", kind, found)
