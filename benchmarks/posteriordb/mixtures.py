"""A mixture and two hidden Markov models, discrete states summed out."""

from __future__ import annotations

from typing import Any

import numpy as np

import ppcore as pp
from ppcore import Model, dist
from ppcore.math import logsumexp

Data = dict[str, Any]


def ordered_normal(name, loc, scale, constraint):
    """A vector of ascending values, each N(loc_k, scale) apart from the order."""
    value = pp.sample(name, dist.ImproperUniform(constraint, (), (len(loc),)))
    pp.factor(f"{name}_prior", -0.5 * ((value - loc) / scale) ** 2)
    return value


@pp.model
def two_normals(size):
    """y_n ~ θ N(μ₁, σ₁) + (1 − θ) N(μ₂, σ₂) with μ₁ < μ₂."""
    zero, ordered = np.zeros(2), dist.constraints.ordered_vector
    mu = ordered_normal("mu", zero, 2.0, ordered)
    sigma = pp.sample("sigma", dist.HalfNormal(2).expand([2]))
    theta = pp.sample("theta", dist.Beta(5, 5))
    weights = dist.Categorical(probs=np.stack([theta, 1 - theta]))
    with pp.plate("n", size):
        pp.sample("y", dist.MixtureSameFamily(weights, dist.Normal(mu, sigma)))


def low_dim_gauss_mix(data: Data) -> Model:
    return two_normals(len(data["y"])).observe(y=data["y"])


def forward(emission, transition):
    """log Σ_z Π_t p(t | z_t) Π_{t≥2} T[z_{t−1}, z_t], from emission = log p(t | k): [N, K]."""
    log_transition = np.log(transition)

    def step(reached, log_p):
        return logsumexp(reached[:, np.newaxis] + log_transition, axis=0) + log_p, None

    reached, _ = pp.scan(step, emission[0], emission[1:])
    return logsumexp(reached)


@pp.model
def normal_states(y):
    """y_t ~ N(μ_z, 1), z a two-state Markov chain; 0 < μ₁ < μ₂."""
    theta1 = pp.sample("theta1", dist.Dirichlet(np.ones(2)))
    theta2 = pp.sample("theta2", dist.Dirichlet(np.ones(2)))
    ordered = dist.constraints.positive_ordered_vector
    mu = ordered_normal("mu", np.array([3.0, 10.0]), 1.0, ordered)
    emission = -0.5 * (y[:, np.newaxis] - mu) ** 2
    pp.factor("y", forward(emission, np.stack([theta1, theta2])))


def hmm_example(data: Data) -> Model:
    return normal_states(data["y"].astype(float))


@pp.model
def exponential_states(u, v, alpha):
    """u_t ~ Exp(φ_z), v_t ~ Exp(λ_z), z a two-state Markov chain with rows ~ Dirichlet(α_j)."""
    theta1 = pp.sample("theta1", dist.Dirichlet(alpha[0]))
    theta2 = pp.sample("theta2", dist.Dirichlet(alpha[1]))
    ordered, loc = dist.constraints.positive_ordered_vector, np.array([0.0, 3.0])
    phi = ordered_normal("phi", loc, 1.0, ordered)
    rate = ordered_normal("lambda", loc, 1.0, ordered)
    emission = np.log(phi) - phi * u[:, np.newaxis] + np.log(rate) - rate * v[:, np.newaxis]
    pp.factor("uv", forward(emission, np.stack([theta1, theta2])))


def hmm_drive(data: Data) -> Model:
    return exponential_states(*(data[n].astype(float) for n in ("u", "v", "alpha")))
