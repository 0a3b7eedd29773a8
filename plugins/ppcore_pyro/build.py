"""Descriptions of distributions as Pyro's objects of the same law: the way back of ``describe``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from pyro import distributions as pd
from pyro.distributions import constraints as pyro_constraints

from ppcore.dist import Description, lookup
from ppcore.errors import UnsupportedError
from ppcore_pyro import own, own_vectors
from ppcore_pyro.elementwise import real
from ppcore_pyro.names import PROBS_OR_LOGITS, SAME, TRANSFORMS

_STATIC = ("batch_shape", "event_shape", "ndims", "dimension", "num_steps", "event_dim")
Parameters = dict[str, Any]


def build(description: Description) -> Any:
    """Pyro's object for a description whose parameters are tensors, arrays or numbers.

    Raises :class:`~ppcore.errors.UnsupportedError` naming what has no torch form.

    >>> build(Description("dist", "Normal", (("loc", 0.0), ("scale", 2.0))))
    Normal(loc: 0.0, scale: 2.0)
    """
    given = [(k, _value(k, v)) for k, v in description.arguments]
    if description.kind == "method":
        (_, base), (_, argument) = given
        return getattr(base, description.name)(argument)
    named = {**_defaults(description.kind, description.name), **dict(given)}
    named = {k: v for k, v in named.items() if v is not None}
    if description.kind == "constraints":
        return _constraint(description.name, named)
    if description.kind == "transforms":
        return _transform(description.name, named)
    return _distribution(description.name, named)


def _value(name: str, value: Any) -> Any:
    if isinstance(value, Description):
        return build(value)
    if isinstance(value, list | tuple) and any(isinstance(v, Description) for v in value):
        return [build(v) for v in value]
    if value is None or isinstance(value, bool | str) or name in _STATIC:
        return value
    found = real(value) if name != "mask" else torch.as_tensor(value)
    return found.to(torch.bool) if name == "mask" else found


@cache
def _defaults(kind: str, name: str) -> Parameters:
    """NumPyro's values for parameters that are left out."""
    parameters = inspect.signature(lookup(kind, name)).parameters.values()
    numbers = {p.name: p.default for p in parameters if isinstance(p.default, int | float)}
    return {k: _value(k, v) for k, v in numbers.items() if not isinstance(v, bool)}


def _distribution(name: str, given: Parameters) -> Any:
    maker = _MAKERS.get(name)
    if maker is not None:
        return maker(given)
    for family, others in PROBS_OR_LOGITS.items():
        if name in (family, f"{family}Probs", f"{family}Logits"):
            return _probs_or_logits(family, others, given)
    if name in SAME:
        parameters = {p: given[p] for p in SAME[name]}
        return getattr(pd, name)(**parameters, validate_args=False)
    raise UnsupportedError(
        f"the distribution {name} has no torch form here. target.torch() hands the density that "
        "JAX computes to torch."
    )


def _probs_or_logits(family: str, others: tuple[str, ...], given: Parameters) -> Any:
    form = "logits" if "logits" in given else "probs"
    parameters = {form: given[form], **{p: given[p] for p in others}}
    if family == "Multinomial":
        parameters["total_count"] = _one_count(given["total_count"])
    return getattr(pd, family)(**parameters, validate_args=False)


def _one_count(total: torch.Tensor) -> int:
    counts = torch.unique(total)
    if len(counts) != 1:
        raise UnsupportedError(
            "torch's Multinomial has one total_count for all rows. Give rows with other counts a "
            "site of their own."
        )
    return int(counts[0])


def _mixture(given: Parameters) -> Any:
    return pd.MixtureSameFamily(
        given["mixing_distribution"], given["component_distribution"], validate_args=False
    )


def _gamma_poisson(concentration: torch.Tensor, rate: torch.Tensor) -> Any:
    return pd.GammaPoisson(concentration, rate, validate_args=False)


def _negative_binomial(given: Parameters) -> Any:
    if "logits" in given:
        return _gamma_poisson(given["total_count"], torch.exp(-given["logits"]))
    return _gamma_poisson(given["total_count"], 1 / given["probs"] - 1)


def _negative_binomial2(given: Parameters) -> Any:
    return _gamma_poisson(given["concentration"], given["concentration"] / given["mean"])


def _zero_inflated(base: Any, given: Parameters) -> Any:
    gate = {k: given[k] for k in ("gate", "gate_logits") if k in given}
    return own_vectors.ZeroInflatedDistribution(base, **gate)


def _multivariate_normal(given: Parameters) -> Any:
    form = next(k for k in ("scale_tril", "covariance_matrix", "precision_matrix") if k in given)
    loc, matrix = given["loc"], given[form]
    loc = loc.expand(matrix.shape[-1:]) if loc.ndim == 0 else loc
    return pd.MultivariateNormal(loc, **{form: matrix}, validate_args=False)


def _student(given: Parameters) -> Any:
    loc, matrix = given["loc"], given["scale_tril"]
    loc = loc.expand(matrix.shape[-1:]) if loc.ndim == 0 else loc
    return pd.MultivariateStudentT(given["df"], loc, matrix, validate_args=False)


def _low_rank(given: Parameters) -> Any:
    loc, factor, diagonal = given["loc"], given["cov_factor"], given["cov_diag"]
    return pd.LowRankMultivariateNormal(loc, factor, diagonal, validate_args=False)


def _wishart(given: Parameters) -> Any:
    forms = {
        "scale_matrix": "covariance_matrix",
        "rate_matrix": "precision_matrix",
        "scale_tril": "scale_tril",
    }
    (form,) = (k for k in forms if k in given)
    return own.Wishart(given["concentration"], **{forms[form]: given[form]}, validate_args=False)


def _transformed(given: Parameters) -> Any:
    steps = given["transforms"]
    steps = steps if isinstance(steps, list) else [steps]
    return pd.TransformedDistribution(given["base_distribution"], steps, validate_args=False)


def _truncated(given: Parameters) -> Any:
    base = given["base_dist"]
    if type(base).__name__ == "StudentT":
        raise UnsupportedError("the truncated StudentT has no torch form: torch lacks its cdf.")
    bounds = {k: given[k] for k in ("low", "high") if k in given}
    return own.TruncatedDistribution(base, **bounds) if bounds else base


def _truncated_family(name: str) -> Callable[[Parameters], Any]:
    def make(given: Parameters) -> Any:
        base = getattr(pd, name)(given["loc"], given["scale"], validate_args=False)
        return _truncated({**given, "base_dist": base})

    return make


def _beta_proportion(given: Parameters) -> Any:
    m, k = given["mean"], given["concentration"]
    return pd.Beta(m * k, (1 - m) * k, validate_args=False)


def _transform(name: str, given: Parameters) -> Any:
    if name == "IdentityTransform":
        return torch.distributions.identity_transform
    if name == "ComposeTransform":
        return torch.distributions.ComposeTransform(given["parts"])
    if name not in TRANSFORMS or "domain" in given:
        raise UnsupportedError(f"the transform {name} has no torch form here.")
    return getattr(pd.transforms, name)(**{p: given[p] for p in TRANSFORMS[name]})


def _constraint(name: str, given: Parameters) -> Any:
    found = getattr(pyro_constraints, name, None)
    if found is None:
        raise UnsupportedError(f"the support {name} has no torch form here.")
    return found(**given) if given else found


_MAKERS: dict[str, Callable[[Parameters], Any]] = {
    "VonMises": lambda g: own.VonMises(g["loc"], g["concentration"], validate_args=False),
    "NegativeBinomial": _negative_binomial,
    "NegativeBinomialProbs": _negative_binomial,
    "NegativeBinomialLogits": _negative_binomial,
    "NegativeBinomial2": _negative_binomial2,
    "ZeroInflatedPoisson": lambda g: _zero_inflated(pd.Poisson(g["rate"], validate_args=False), g),
    "ZeroInflatedDistribution": lambda g: _zero_inflated(g["base_dist"], g),
    "ZeroInflatedNegativeBinomial2": lambda g: _zero_inflated(_negative_binomial2(g), g),
    "BetaProportion": _beta_proportion,
    "MixtureSameFamily": _mixture,
    "MixtureGeneral": lambda g: own_vectors.MixtureGeneral(
        g["mixing_distribution"], g["component_distributions"]
    ),
    "MultivariateNormal": _multivariate_normal,
    "LowRankMultivariateNormal": _low_rank,
    "MultivariateStudentT": _student,
    "Wishart": _wishart,
    "InverseWishartCholesky": lambda g: own_vectors.InverseWishartCholesky(**g),
    "LKJ": lambda g: pd.LKJ(g["dimension"], g["concentration"], validate_args=False),
    "LKJCholesky": lambda g: pd.LKJCholesky(
        g["dimension"], g["concentration"], validate_args=False
    ),
    "TransformedDistribution": _transformed,
    "ImproperUniform": lambda g: own.ImproperUniform(
        g["support"], torch.Size(g["batch_shape"]), torch.Size(g["event_shape"])
    ),
    "TruncatedDistribution": _truncated,
    "LeftTruncatedDistribution": _truncated,
    "RightTruncatedDistribution": _truncated,
    "TwoSidedTruncatedDistribution": _truncated,
    "TruncatedNormal": _truncated_family("Normal"),
    "TruncatedCauchy": _truncated_family("Cauchy"),
    "Levy": lambda g: own.Levy(g["loc"], g["scale"]),
    "Gompertz": lambda g: own.Gompertz(g["concentration"], g["rate"]),
    "LogUniform": lambda g: own.LogUniform(g["low"], g["high"]),
    "DiscreteUniform": lambda g: own.DiscreteUniform(g["low"], g["high"]),
    "GaussianRandomWalk": lambda g: own_vectors.GaussianRandomWalk(g["scale"], g["num_steps"]),
    "ZeroSumNormal": lambda g: own_vectors.ZeroSumNormal(g["scale"], g["event_shape"]),
    "CAR": lambda g: own_vectors.CAR(
        g["loc"], g["correlation"], g["conditional_precision"], g["adj_matrix"]
    ),
    "FoldedDistribution": lambda g: pd.FoldedDistribution(g["base_dist"], validate_args=False),
    "Delta": lambda g: pd.Delta(
        g["v"], g.get("log_density", 0.0), int(g.get("event_dim", 0)), validate_args=False
    ),
}
