"""Mixtures with all components known: Gaussians, and products of Student-t(2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DEGREES = 2.0


def uniform_centres(count: int, dim: int, half: float) -> np.ndarray:
    """``count`` points, uniform on (−half, half)^dim: PCG64 with seed 0."""
    return np.random.Generator(np.random.PCG64(0)).uniform(-half, half, (count, dim))


def student_mixture(x: Any, data: Any) -> Any:
    """Equal components at ``centres``, each a product of Student-t(2) of scale 1; normalised."""
    return jax.nn.logsumexp(student_components(x, data["centres"])) - jnp.log(len(data["centres"]))


def student_components(x: Any, centres: Any) -> Any:
    """Log density of every component at x: float[K]."""
    # t(2) has the density (2 + t²)^(−3/2).
    return -1.5 * jnp.sum(jnp.log(DEGREES + (x - centres) ** 2), axis=-1)


def gaussian_components(sd: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Log densities of all components at all points, up to a constant: float[N, K]."""

    def components(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
        squares = (x**2).sum(1)[:, None] + (centres**2).sum(1) - 2 * x @ centres.T
        return -0.5 * squares / sd**2

    return components


def student_components_of(x: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """As :func:`student_components`, for many points on the host: float[N, K]."""
    log_p = [-1.5 * np.log(DEGREES + (x - centre) ** 2).sum(1) for centre in centres]
    return np.stack(log_p, axis=1)


def draw_gaussians(rng: np.random.Generator, n: int, centres: np.ndarray, sd: float) -> np.ndarray:
    """``n`` exact draws of the Gaussian mixture: float[n, d]."""
    which = rng.integers(len(centres), size=n)
    return centres[which] + sd * rng.standard_normal((n, centres.shape[1]))


def draw_students(rng: np.random.Generator, n: int, centres: np.ndarray) -> np.ndarray:
    """``n`` exact draws of the mixture of Student-t(2): float[n, d]."""
    which = rng.integers(len(centres), size=n)
    return centres[which] + rng.standard_t(DEGREES, (n, centres.shape[1]))
