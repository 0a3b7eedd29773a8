"""Gaussian processes with a squared-exponential kernel."""

from __future__ import annotations

from typing import Any

import numpy as np

import ppcore as pp
from ppcore import Model, dist

Data = dict[str, Any]


def covariance(x, rho, alpha):
    """K_ij = α² exp(−(x_i − x_j)² / (2ρ²))."""
    return alpha**2 * np.exp(-0.5 * (np.subtract.outer(x, x) / rho) ** 2)


@pp.model
def regression(x):
    """y ~ N(0, K + σI); σ is a variance."""
    rho = pp.sample("rho", dist.Gamma(25, 4))
    alpha = pp.sample("alpha", dist.HalfNormal(2))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    matrix = covariance(x, rho, alpha) + sigma * np.eye(len(x))
    pp.sample("y", dist.MultivariateNormal(np.zeros(len(x)), covariance_matrix=matrix))


def gp_regr(data: Data) -> Model:
    return regression(data["x"].astype(float)).observe(y=data["y"])


@pp.model
def poisson(x):
    """k_i ~ Poisson(exp f_i), f = L z with L Lᵀ = K + 10⁻¹⁰ I and z_i ~ N(0, 1)."""
    rho = pp.sample("rho", dist.Gamma(25, 4))
    alpha = pp.sample("alpha", dist.HalfNormal(2))
    z = pp.sample("f_tilde", dist.Normal(0, 1).expand([len(x)]))
    factor = np.linalg.cholesky(covariance(x, rho, alpha) + 1e-10 * np.eye(len(x)))
    f = pp.deterministic("f", factor @ z)
    pp.sample("k", dist.Poisson(np.exp(f)))


def gp_pois_regr(data: Data) -> Model:
    return poisson(data["x"].astype(float)).observe(k=data["k"])
