"""Targets with data: prior times likelihood, in unconstrained coordinates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import norm

from ppcore.target import DensityTarget

GRID = 40


def logistic_prior(w: Any, data: Any) -> Any:
    """w ~ N(0, I)."""
    return norm.logpdf(w).sum()


def logistic_draw(key: Any, data: Any) -> Any:
    return jax.random.normal(key, data["design"].shape[1:], data["design"].dtype)


def logistic(w: Any, data: Any) -> Any:
    """Logistic regression; ``sign`` is ±1."""
    return logistic_prior(w, data) + jax.nn.log_sigmoid(data["sign"] * (data["design"] @ w)).sum()


def regression(file: Path) -> DensityTarget:
    """Standardised columns and a bias; constant columns are zero."""
    rows = [line.split(",") for line in file.read_text().split()]
    x = np.array([[float(v) for v in row[:-1]] for row in rows])
    first = sorted({row[-1] for row in rows})[0]
    sign = np.array([1.0 if row[-1] == first else -1.0 for row in rows])
    sd = x.std(0)
    x = (x - x.mean(0)) / np.where(sd > 0, sd, 1.0)
    design = np.concatenate([x, np.ones((len(x), 1))], axis=1)
    data = {"design": design, "sign": sign}
    return DensityTarget(logistic, design.shape[1], data, logistic_prior, logistic_draw)


def brownian_prior(x: Any, data: Any) -> Any:
    """Two log scales ~ N(0, 2²), and a walk that starts at 0."""
    steps = jnp.diff(x[2:], prepend=0.0)
    return norm.logpdf(x[:2], 0.0, 2.0).sum() + norm.logpdf(steps, 0.0, jnp.exp(x[0])).sum()


def brownian_draw(key: Any, data: Any) -> Any:
    z = jax.random.normal(key, (32,), data["y"].dtype)
    scales = 2.0 * z[:2]
    return jnp.concatenate([scales, jnp.cumsum(jnp.exp(scales[0]) * z[2:])])


def brownian_joint(x: Any, data: Any) -> Any:
    """The walk seen with noise of the second scale, where ``seen``."""
    terms = norm.logpdf(data["y"], x[2:], jnp.exp(x[1]))
    return brownian_prior(x, data) + jnp.where(data["seen"], terms, 0.0).sum()


def brownian(file: Path) -> DensityTarget:
    y = np.loadtxt(file)
    data = {"y": np.nan_to_num(y), "seen": np.isfinite(y)}
    return DensityTarget(brownian_joint, 32, data, brownian_prior, brownian_draw)


def seeds_prior(x: Any, data: Any) -> Any:
    """log τ with τ ~ Γ(.01, .01), four coefficients ~ N(0, 10²), 21 z ~ N(0, 1)."""
    t, w, z = x[0], x[1:5], x[5:]
    a = 0.01
    log_tau = a * jnp.log(a) - gammaln(a) + a * t - a * jnp.exp(t)
    return log_tau + norm.logpdf(w, 0.0, 10.0).sum() + norm.logpdf(z).sum()


def seeds_draw(key: Any, data: Any) -> Any:
    k_tau, k_rest = jax.random.split(key)
    t = jax.random.loggamma(k_tau, 0.01, dtype=data["r"].dtype) - jnp.log(0.01)
    z = jax.random.normal(k_rest, (25,), data["r"].dtype)
    return jnp.concatenate([t[None], 10.0 * z[:4], z[4:]])


def seeds_joint(x: Any, data: Any) -> Any:
    """r ~ Binomial(n, p), logit p = design · w + b, with the effects b = z/√τ ~ N(0, 1/τ)."""
    r, n = data["r"], data["n"]
    eta = data["design"] @ x[1:5] + jnp.exp(-0.5 * x[0]) * x[5:]
    ways = gammaln(n + 1) - gammaln(r + 1) - gammaln(n - r + 1)
    log_p = r * jax.nn.log_sigmoid(eta) + (n - r) * jax.nn.log_sigmoid(-eta)
    return seeds_prior(x, data) + (ways + log_p).sum()


def seeds(file: Path) -> DensityTarget:
    r, n, x1, x2 = np.loadtxt(file, delimiter=",").T
    data = {"r": r, "n": n, "design": np.stack([np.ones(21), x1, x2, x1 * x2], 1)}
    return DensityTarget(seeds_joint, 26, data, seeds_prior, seeds_draw)


def field_prior(x: Any, data: Any) -> Any:
    """N(mean, K), with L⁻¹ for K = L Lᵀ; see :func:`lgcp`."""
    white = data["whitener"] @ (x - data["mean"])
    constant = -0.5 * x.shape[0] * jnp.log(2 * jnp.pi) - data["log_det"]
    return -0.5 * white @ white + constant


def field_draw(key: Any, data: Any) -> Any:
    z = jax.random.normal(key, (GRID**2,), data["factor"].dtype)
    return data["mean"] + data["factor"] @ z


def field_joint(x: Any, data: Any) -> Any:
    """Poisson counts of mean exp(x)/1600, without their factorials."""
    return field_prior(x, data) + (data["counts"] * x - jnp.exp(x) / GRID**2).sum()


def lgcp(file: Path) -> DensityTarget:
    """Variance 1.91, exponential kernel of length 40/33 cells, mean log 126 − 1.91/2."""
    points = np.loadtxt(file, delimiter=",")
    cells = np.minimum((points * GRID).astype(int), GRID - 1)
    counts = np.zeros((GRID, GRID))
    np.add.at(counts, (cells[:, 0], cells[:, 1]), 1.0)
    where = np.stack(np.meshgrid(np.arange(GRID), np.arange(GRID), indexing="ij"), -1)
    where = where.reshape(-1, 2)
    distance = np.sqrt(((where[:, None] - where[None]) ** 2).sum(-1))
    kernel = 1.91 * np.exp(-distance / (GRID / 33))
    factor = np.linalg.cholesky(kernel)
    data = {
        "counts": counts.ravel(),
        "mean": np.float64(np.log(126) - 1.91 / 2),
        "factor": factor,
        "whitener": np.linalg.inv(factor),
        "log_det": np.log(np.diag(factor)).sum(),
    }
    return DensityTarget(field_joint, GRID**2, data, field_prior, field_draw)
