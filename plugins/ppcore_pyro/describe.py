"""Pyro's distribution objects as descriptions of NumPyro's of the same law."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ppcore.dist import Description
from ppcore.errors import UnsupportedError

Leaf = Callable[[Any], Any]

# Torch's name -> (NumPyro's name, {NumPyro's parameter: the object's attribute}).
_KNOWN: dict[str, tuple[str, dict[str, str]]] = {
    "BetaBinomial": (
        "BetaBinomial",
        {
            "concentration1": "concentration1",
            "concentration0": "concentration0",
            "total_count": "total_count",
        },
    ),
    "GammaPoisson": ("GammaPoisson", {"concentration": "concentration", "rate": "rate"}),
    "DirichletMultinomial": (
        "DirichletMultinomial",
        {"concentration": "concentration", "total_count": "total_count"},
    ),
    "LKJCholesky": ("LKJCholesky", {"dimension": "dim", "concentration": "concentration"}),
    "MultivariateNormal": (
        "MultivariateNormal",
        {"loc": "loc", "scale_tril": "_unbroadcasted_scale_tril"},
    ),
    "LowRankMultivariateNormal": (
        "LowRankMultivariateNormal",
        {
            "loc": "loc",
            "cov_factor": "_unbroadcasted_cov_factor",
            "cov_diag": "_unbroadcasted_cov_diag",
        },
    ),
    "ZeroInflatedPoisson": ("ZeroInflatedPoisson", {"gate": "gate", "rate": "rate"}),
}
_KNOWN |= {
    name: (name, {p: p for p in parameters.split()})
    for name, parameters in {
        "Normal": "loc scale",
        "HalfNormal": "scale",
        "LogNormal": "loc scale",
        "Cauchy": "loc scale",
        "HalfCauchy": "scale",
        "StudentT": "df loc scale",
        "Laplace": "loc scale",
        "Gumbel": "loc scale",
        "Gamma": "concentration rate",
        "InverseGamma": "concentration rate",
        "Exponential": "rate",
        "Weibull": "scale concentration",
        "Pareto": "scale alpha",
        "Beta": "concentration1 concentration0",
        "Kumaraswamy": "concentration1 concentration0",
        "Uniform": "low high",
        "VonMises": "loc concentration",
        "Dirichlet": "concentration",
        "Poisson": "rate",
        "Chi2": "df",
        "AsymmetricLaplace": "loc scale asymmetry",
        "SoftLaplace": "loc scale",
        "Logistic": "loc scale",
    }.items()
}
_PROBS_OR_LOGITS = {
    "Bernoulli": ("Bernoulli", ()),
    "Categorical": ("Categorical", ()),
    "Geometric": ("Geometric", ()),
    "Binomial": ("Binomial", ("total_count",)),
    "Multinomial": ("Multinomial", ("total_count",)),
}
_TRANSFORMS: dict[str, tuple[str, dict[str, str]]] = {
    "ExpTransform": ("ExpTransform", {}),
    "SigmoidTransform": ("SigmoidTransform", {}),
    "SoftplusTransform": ("SoftplusTransform", {}),
    "AbsTransform": ("AbsTransform", {}),
    "AffineTransform": ("AffineTransform", {"loc": "loc", "scale": "scale"}),
    "PowerTransform": ("PowerTransform", {"exponent": "exponent"}),
    "OrderedTransform": ("OrderedTransform", {}),
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
    if kind == "NegativeBinomial":
        odds = torch.exp(-distribution.logits)
        parts = (("concentration", leaf(distribution.total_count)), ("rate", leaf(odds)))
        return Description("dist", "GammaPoisson", parts)
    if kind in _PROBS_OR_LOGITS:
        name, others = _PROBS_OR_LOGITS[kind]
        form = "probs" if _holds(distribution, "probs") else "logits"
        return Description("dist", name, tuple(_values(distribution, [form, *others], leaf)))
    if kind in _KNOWN:
        name, attributes = _KNOWN[kind]
        found = ((k, _value(getattr(distribution, a), leaf)) for k, a in attributes.items())
        return Description("dist", name, tuple(found))
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
        yield name, _value(getattr(distribution, name), leaf)


def _value(value: Any, leaf: Leaf) -> Any:
    return leaf(value) if isinstance(value, torch.Tensor) else value


def _transform(transform: Any, leaf: Leaf) -> Description:
    kind = type(transform).__name__
    if kind not in _TRANSFORMS:
        raise UnsupportedError(f"the transform {kind} has no description")
    name, attributes = _TRANSFORMS[kind]
    found = tuple((k, _value(getattr(transform, a), leaf)) for k, a in attributes.items())
    return Description("transforms", name, found)
