"""Targets that are formulas: each an unnormalised density with a Gaussian to start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import norm

from ppcore.target import DensityTarget


def log_start(x: Any, data: Any) -> Any:
    """N(0, width² I)."""
    return norm.logpdf(x, 0.0, data["width"]).sum()


def draw_start(key: Any, data: Any) -> Any:
    """One draw of it; the shape is that of ``zero``."""
    return data["width"] * jax.random.normal(key, data["zero"].shape, data["zero"].dtype)


def from_gaussian(
    log_density: Callable[[Any, Any], Any], dim: int, width: float, **data: Any
) -> DensityTarget:
    """A target with the reference N(0, width² I)."""
    leaves = {"width": np.float64(width), "zero": np.zeros(dim), **data}
    return DensityTarget(log_density, dim, leaves, log_start, draw_start)


def log_scales(x: Any, data: Any) -> Any:
    """x₀ ~ N(0, 3²); the others N(0, s² I) for one s of ``scales``, all as likely."""
    rest, s = x[1:], data["scales"]
    log_p = norm.logpdf(rest[None], 0.0, s[:, None]).sum(1)
    return norm.logpdf(x[0], 0.0, 3.0) + jax.nn.logsumexp(log_p) - jnp.log(len(s))


def draw_scales(key: Any, data: Any) -> Any:
    k_scale, k_rest = jax.random.split(key)
    z = jax.random.normal(k_rest, data["zero"].shape, data["zero"].dtype)
    s = jax.random.choice(k_scale, data["scales"])
    return jnp.concatenate([3.0 * z[:1], s * z[1:]])


def funnel_from_scales() -> DensityTarget:
    """The funnel from a reference with mass in its neck and in its mouth: s = 2⁻⁷ … 2⁷."""
    leaves = {"scales": 2.0 ** np.arange(-7.0, 8.0), "zero": np.zeros(10)}
    return DensityTarget(funnel, 10, leaves, log_scales, draw_scales)


def log_student(x: Any, data: Any) -> Any:
    """Multivariate Cauchy of scale ``width``: Student-t with one degree of freedom."""
    d = x.shape[0]
    constant = gammaln(0.5 * (1 + d)) - 0.5 * (1 + d) * jnp.log(jnp.pi) - d * jnp.log(data["width"])
    return constant - 0.5 * (1 + d) * jnp.log1p(jnp.sum(x**2) / data["width"] ** 2)


def draw_student(key: Any, data: Any) -> Any:
    z = jax.random.normal(key, (1 + len(data["zero"]),), data["zero"].dtype)
    return data["width"] * z[1:] / jnp.abs(z[0])


def funnel_from_student() -> DensityTarget:
    """The funnel from heavy tails without a word about its neck."""
    leaves = {"width": np.float64(1.0), "zero": np.zeros(10)}
    return DensityTarget(funnel, 10, leaves, log_student, draw_student)


def funnel(x: Any, data: Any) -> Any:
    """x₀ ~ N(0, 3²), the others N(0, exp(x₀))."""
    return norm.logpdf(x[0], 0.0, 3.0) + norm.logpdf(x[1:], 0.0, jnp.exp(x[0] / 2)).sum()


def mixture(x: Any, data: Any) -> Any:
    """Equal Gaussians of standard deviation ``sd`` at ``centres``."""
    log_p = norm.logpdf(x, data["centres"], data["sd"]).sum(1)
    return jax.nn.logsumexp(log_p) - jnp.log(len(data["centres"]))


def many_well(x: Any, data: Any) -> Any:
    """16 pairs (u, v): exp(−u⁴ + 6u² + u/2 − v²/2)."""
    u, v = x[0::2], x[1::2]
    return jnp.sum(-(u**4) + 6 * u**2 + 0.5 * u - 0.5 * v**2)


def mw5(x: Any, data: Any) -> Any:
    """exp(−Σ (x² − 4)²)."""
    return -jnp.sum((x**2 - 4.0) ** 2)


def banana(x: Any, data: Any) -> Any:
    """x₀ ~ N(0, 10²), x₁ ~ N(.03 (x₀² − 100), 1)."""
    bend = 0.03 * (x[0] ** 2 - 100.0)
    return norm.logpdf(x[0], 0.0, 10.0) + norm.logpdf(x[1], bend, 1.0)


def grid9() -> np.ndarray:
    """The centres of gmm9."""
    side = np.array([-5.0, 0.0, 5.0])
    return np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)


def centres40() -> np.ndarray:
    """The centres of gmm40-2, by PCG64 with seed 0."""
    return np.random.Generator(np.random.PCG64(0)).uniform(-40, 40, (40, 2))
