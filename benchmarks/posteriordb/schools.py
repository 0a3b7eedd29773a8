"""Hierarchical models: eight schools, radon by county, item response."""

from __future__ import annotations

from typing import Any

import numpy as np

import ppcore as pp
from ppcore import Model, dist

Data = dict[str, Any]


@pp.model
def centered(sigma):
    """μ ~ N(0, 5); τ ~ half-Cauchy(5); θ_j ~ N(μ, τ); y_j ~ N(θ_j, σ_j)."""
    mu = pp.sample("mu", dist.Normal(0, 5))
    tau = pp.sample("tau", dist.HalfCauchy(5))
    with pp.plate("school", len(sigma)):
        theta = pp.sample("theta", dist.Normal(mu, tau))
        pp.sample("y", dist.Normal(theta, sigma))


@pp.model
def noncentered(sigma):
    """The same distribution of θ, with θ_j = μ + τ z_j and z_j ~ N(0, 1)."""
    mu = pp.sample("mu", dist.Normal(0, 5))
    tau = pp.sample("tau", dist.HalfCauchy(5))
    with pp.plate("school", len(sigma)):
        z = pp.sample("theta_trans", dist.Normal(0, 1))
        theta = pp.deterministic("theta", mu + tau * z)
        pp.sample("y", dist.Normal(theta, sigma))


def eight_schools_centered(data: Data) -> Model:
    return centered(data["sigma"].astype(float)).observe(y=data["y"])


def eight_schools_noncentered(data: Data) -> Model:
    return noncentered(data["sigma"].astype(float)).observe(y=data["y"])


@pp.model
def intercepts(county, floor, counties):
    """log_radon_n ~ N(α[county_n] + β floor_n, σ_y), α_j = μ_α + σ_α z_j."""
    mu_alpha = pp.sample("mu_alpha", dist.Normal(0, 10))
    sigma_alpha = pp.sample("sigma_alpha", dist.HalfNormal(1))
    sigma_y = pp.sample("sigma_y", dist.HalfNormal(1))
    beta = pp.sample("beta", dist.Normal(0, 10))
    with pp.plate("county", counties):
        raw = pp.sample("alpha_raw", dist.Normal(0, 1))
    alpha = pp.deterministic("alpha", mu_alpha + sigma_alpha * raw)
    with pp.plate("home", len(floor)):
        pp.sample("log_radon", dist.Normal(alpha[county] + beta * floor, sigma_y))


def radon_intercepts(data: Data) -> Model:
    county, floor = data["county_idx"] - 1, data["floor_measure"].astype(float)
    return intercepts(county, floor, int(data["J"])).observe(log_radon=data["log_radon"])


@pp.model
def two_parameter_logistic(items, people):
    """P(y_ij = 1) = logit⁻¹(a_i (θ_j − b_i)) for item i and person j."""
    sigma_theta = pp.sample("sigma_theta", dist.HalfCauchy(2))
    sigma_a = pp.sample("sigma_a", dist.HalfCauchy(2))
    sigma_b = pp.sample("sigma_b", dist.HalfCauchy(2))
    mu_b = pp.sample("mu_b", dist.Normal(0, 5))
    with pp.plate("person", people, axis=-1):
        theta = pp.sample("theta", dist.Normal(0, sigma_theta))
    with pp.plate("item", items, axis=-1):
        a = pp.sample("a", dist.LogNormal(0, sigma_a))
        b = pp.sample("b", dist.Normal(mu_b, sigma_b))
    with pp.plate("item", items, axis=-2), pp.plate("person", people, axis=-1):
        logits = a[:, np.newaxis] * (theta - b[:, np.newaxis])
        pp.sample("y", dist.Bernoulli(logits=logits))


def item_response(data: Data) -> Model:
    return two_parameter_logistic(int(data["I"]), int(data["J"])).observe(y=data["y"])
