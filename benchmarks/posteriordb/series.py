"""Time series: autoregression, moving average, changing variance."""

from __future__ import annotations

from typing import Any

import numpy as np

import ppcore as pp
from benchmarks.posteriordb import designs
from benchmarks.posteriordb.regression import flat, flat_positive
from ppcore import Model, dist

Data = dict[str, Any]


@pp.model
def autoregression(lags):
    """y_t ~ N(α + Σ_k β_k y_{t−k}, σ) given the first K values; lags[t, k] = y_{t−k}."""
    alpha = pp.sample("alpha", dist.Normal(0, 10))
    beta = pp.sample("beta", dist.Normal(0, 10).expand([lags.shape[1]]))
    sigma = pp.sample("sigma", dist.HalfCauchy(2.5))
    pp.sample("y", dist.Normal(alpha + lags @ beta, sigma))


def ar_k(data: Data) -> Model:
    lags, y = designs.autoregression(data)
    return autoregression(lags).observe(y=y)


@pp.model
def autoregressive_moving_average(length):
    """y_t ~ N(ν_t, σ), ν_t = μ + φ y_{t−1} + θ ε_{t−1}, ε_t = y_t − ν_t; ε₀ = 0 and y₀ = μ."""
    mu = pp.sample("mu", dist.Normal(0, 10))
    phi = pp.sample("phi", dist.Normal(0, 2))
    theta = pp.sample("theta", dist.Normal(0, 2))
    sigma = pp.sample("sigma", dist.HalfCauchy(2.5))

    def step(before, _):
        y, error = before
        nu = mu + phi * y + theta * error
        y = pp.sample("y", dist.Normal(nu, sigma))
        return (y, y - nu), None

    pp.scan(step, (mu, 0.0 * mu), length=length)


def arma11(data: Data) -> Model:
    return autoregressive_moving_average(len(data["y"])).observe(y=data["y"])


@pp.model
def changing_variance(length, sigma1):
    """y_t ~ N(μ, s_t), s_t² = α₀ + α₁ (y_{t−1} − μ)² + β₁ s²_{t−1}.

    (α₁, β₁) is uniform on the triangle α₁ + β₁ < 1: α₁ ~ Beta(1, 2), β₁ | α₁ ~ U(0, 1 − α₁).
    """
    mu = pp.sample("mu", flat())
    alpha0 = pp.sample("alpha0", flat_positive())
    alpha1 = pp.sample("alpha1", dist.Beta(1, 2))
    beta1 = pp.sample("beta1", dist.Uniform(0, 1 - alpha1))

    def step(variance, _):
        y = pp.sample("y", dist.Normal(mu, np.sqrt(variance)))
        return alpha0 + alpha1 * (y - mu) ** 2 + beta1 * variance, None

    pp.scan(step, np.asarray(sigma1**2, float), length=length)


def garch11(data: Data) -> Model:
    return changing_variance(len(data["y"]), float(data["sigma1"])).observe(y=data["y"])
