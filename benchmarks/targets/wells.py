"""Products of double wells: as many modes as there are combinations of wells."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

FIRST = 5
RIGHT_WELL = 0.84431
"""Mass of u > 0 under exp(−u⁴ + 6u² + u/2), by quadrature."""


def mw50(x: Any, data: Any) -> Any:
    """exp(−Σ_{i≤5} (x_i² − 2)² − ½ Σ_{i>5} x_i²)."""
    return -jnp.sum((x[:FIRST] ** 2 - 2.0) ** 2) - 0.5 * jnp.sum(x[FIRST:] ** 2)


def draw_wells(rng: np.random.Generator, shape: tuple[int, ...], log_density: Any) -> np.ndarray:
    """Draws of a density on (−6, 6), by its cumulative sums on a fine grid."""
    grid = np.linspace(-6.0, 6.0, 240_001)
    mass = np.cumsum(np.exp(log_density(grid) - log_density(grid).max()))
    return np.interp(rng.random(shape) * mass[-1], mass, grid)


def draw_many_well(rng: np.random.Generator, n: int) -> np.ndarray:
    """``n`` exact draws of 16 pairs (u, v), in turn: float[n, 32]."""
    u = draw_wells(rng, (n, 16), lambda t: -(t**4) + 6 * t**2 + 0.5 * t)
    return np.stack([u, rng.standard_normal((n, 16))], axis=-1).reshape(n, 32)


def draw_mw5(rng: np.random.Generator, n: int) -> np.ndarray:
    """``n`` exact draws of exp(−Σ (x² − 4)²): float[n, 5]."""
    return draw_wells(rng, (n, FIRST), lambda t: -((t**2 - 4) ** 2))


def draw_mw50(rng: np.random.Generator, n: int) -> np.ndarray:
    """``n`` exact draws of :func:`mw50`: float[n, 50]."""
    wells = draw_wells(rng, (n, FIRST), lambda t: -((t**2 - 2) ** 2))
    return np.concatenate([wells, rng.standard_normal((n, 50 - FIRST))], axis=1)
