"""Targets that are formulas: each an unnormalised density with a Gaussian to start from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
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
