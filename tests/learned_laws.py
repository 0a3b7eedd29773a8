"""Laws, draws and an untrained map for the tests of what is learned from draws."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ppcore_diffusion.discrete_flow import Affine, discrete_flow, identity, most_lipschitz
from ppcore_diffusion.matching import Matching
from ppcore_diffusion.noising import Noise
from ppcore_diffusion.vector_field import vector_field
from scipy.stats import norm

from ppcore.target import DensityTarget

SHORT = Matching(steps=300, batch=128, width=24, grid=12, group=32)
# Where walks along a law under noise end.
END = 0.02


def silent(_: Any) -> None:
    """Takes reports."""


def two_modes(x: Any, data: Any) -> Any:
    """exp(1.5) (0.7 N((2, 2), ¼ I) + 0.3 N((−2, −2), I))."""
    a = -0.5 * jnp.sum((x - 2.0) ** 2) / 0.25 - jnp.log(0.25)
    b = -0.5 * jnp.sum((x + 2.0) ** 2)
    return jnp.logaddexp(jnp.log(0.7) + a, jnp.log(0.3) + b) - jnp.log(2 * jnp.pi) + 1.5


TARGET = DensityTarget(two_modes, 2)


def draws_of_two_modes(n: int = 3000) -> np.ndarray:
    rng = np.random.default_rng(0)
    first = rng.random((n, 1)) < 0.7
    z = rng.standard_normal((n, 2))
    return np.where(first, 2 + 0.5 * z, -2 + z)


def some_flow(dim: int = 2, count: int = 10) -> Any:
    """A flow as it might be in the middle of training: steep, between two affine maps."""
    rng = np.random.default_rng(dim)
    field = vector_field(rng, dim, 16, float)
    last = jnp.asarray(rng.standard_normal((dim, 16)))
    clocks = (*field.clocks[:2], jnp.asarray(0.3 * rng.standard_normal((dim, 8))))
    field = replace(field, weights=(*field.weights[:2], last), clocks=clocks)
    lower = np.tril(0.3 * rng.standard_normal((dim, dim)), -1) + np.diag(1 + rng.random(dim))
    ends = Affine(jnp.arange(dim) * 0.5, jnp.asarray(lower)), identity(dim, float)
    return discrete_flow(field.capped(most_lipschitz(count)), count, *ends)


def grid(low: float, high: float, n: int, dim: int = 2) -> tuple[np.ndarray, float]:
    points = np.linspace(low, high, n)
    rows = np.stack(np.meshgrid(*[points] * dim, indexing="ij"), -1).reshape(-1, dim)
    return rows, float(points[1] - points[0]) ** dim


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Line:
    """0.3 N(−1.5, 0.3) + 0.7 N(1, 0.5) on the line, under noise, in few operations."""

    noise: Noise = Noise()
    shares = np.array([0.3, 0.7])
    means = np.array([-1.5, 1.0])
    variances = np.array([0.3, 0.5])
    dim = 1

    def parts(self, t: Any) -> tuple[Any, Any]:
        alpha = self.noise.alpha(t)
        return alpha * self.means, alpha**2 * self.variances + 1.0 - alpha**2

    def log_density(self, x: Any, t: Any) -> Any:
        mean, variance = self.parts(t)
        logs = jnp.log(self.shares) - 0.5 * (x - mean) ** 2 / variance - 0.5 * jnp.log(variance)
        return jax.nn.logsumexp(logs) - 0.5 * jnp.log(2 * jnp.pi)

    def score(self, x: Any, t: Any) -> Any:
        mean, variance = self.parts(t)
        logs = jnp.log(self.shares) - 0.5 * (x - mean) ** 2 / variance - 0.5 * jnp.log(variance)
        return jnp.sum(jax.nn.softmax(logs) * (mean - x) / variance, keepdims=True)

    def cdf(self, x: np.ndarray, t: float) -> np.ndarray:
        mean, variance = (np.asarray(part) for part in self.parts(t))
        return norm.cdf((x - mean) / np.sqrt(variance)) @ self.shares
