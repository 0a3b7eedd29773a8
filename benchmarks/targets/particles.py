"""Clusters of particles: double-well pairs in the plane, Lennard-Jones in space.

Their energies do not change when the whole cluster moves, so that exp(−E) has no finite mass. Here
√n times the centre of the n particles is N(0, I) and independent of the rest, whose law, and whose
mean energy, it leaves alone.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

WELLS, ATOMS = 4, 13
CLOSEST = 1e-3


def _pairs(x: Any, count: int, axes: int) -> Any:
    """Squared distances of all pairs, each once: float[count · (count − 1)/2]."""
    places = x.reshape(count, axes)
    a, b = np.triu_indices(count, 1)
    return jnp.sum((places[a] - places[b]) ** 2, axis=-1)


def _centre(x: Any, count: int, axes: int) -> Any:
    """−½ |√n x̄|²."""
    return -0.5 * count * jnp.sum(x.reshape(count, axes).mean(0) ** 2)


def dw4_energy(x: Any) -> Any:
    """Σ_{i<j} 0.9 (r − 4)⁴ − 4 (r − 4)² of four particles in the plane; x: float[8]."""
    # A little is added to r², whose root has no derivative where two particles meet.
    off = jnp.sqrt(_pairs(x, WELLS, 2) + 1e-12) - 4.0
    return jnp.sum(0.9 * off**4 - 4.0 * off**2)


def dw4(x: Any, data: Any) -> Any:
    """−E, and the centre; float[8] -> float[]."""
    return -dw4_energy(x) + _centre(x, WELLS, 2)


def lj13_energy(x: Any) -> Any:
    """Σ_{i≠j} (r⁻¹² − 2 r⁻⁶) + ½ Σ |x − x̄|² of thirteen particles in space; x: float[39]."""
    # Ordered pairs: each unordered one counts twice. Below r² = 10⁻³ nothing is told apart.
    inverse = 1.0 / jnp.maximum(_pairs(x, ATOMS, 3), CLOSEST) ** 3
    places = x.reshape(ATOMS, 3)
    return 2.0 * jnp.sum(inverse**2 - 2.0 * inverse) + 0.5 * jnp.sum((places - places.mean(0)) ** 2)


def lj13(x: Any, data: Any) -> Any:
    """−E, and the centre; float[39] -> float[]."""
    return -lj13_energy(x) + _centre(x, ATOMS, 3)
