"""Distributions and transforms that NumPyro and Pyro know by the same names."""

from __future__ import annotations

SAME: dict[str, tuple[str, ...]] = {
    name: tuple(parameters.split())
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
        "BetaBinomial": "concentration1 concentration0 total_count",
        "GammaPoisson": "concentration rate",
        "DirichletMultinomial": "concentration total_count",
        "ZeroInflatedPoisson": "gate rate",
        "OrderedLogistic": "predictor cutpoints",
        "MultivariateStudentT": "df loc scale_tril",
    }.items()
}
"""Name -> parameters, which are arguments here and there, and attributes of Pyro's objects."""

PROBS_OR_LOGITS: dict[str, tuple[str, ...]] = {
    "Bernoulli": (),
    "Categorical": (),
    "Geometric": (),
    "Binomial": ("total_count",),
    "Multinomial": ("total_count",),
}
"""Name -> the parameters beside ``probs`` or ``logits``."""

TRANSFORMS: dict[str, tuple[str, ...]] = {
    "ExpTransform": (),
    "SigmoidTransform": (),
    "SoftplusTransform": (),
    "AbsTransform": (),
    "AffineTransform": ("loc", "scale"),
    "PowerTransform": ("exponent",),
    "OrderedTransform": (),
    "StickBreakingTransform": (),
    "CorrCholeskyTransform": (),
}
"""Name -> parameters of a transform."""
