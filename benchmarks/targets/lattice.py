"""A scalar field on a periodic square lattice, in its phase of two signs."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

SIDE = 8
QUARTIC = 0.022


def phi4(x: Any, data: Any) -> Any:
    """−Σ [−2κ φ (φ_{+e1} + φ_{+e2}) + (1 − 2λ) φ² + λ φ⁴], λ = .022; x: float[64]."""
    field = x.reshape(SIDE, SIDE)
    ahead = jnp.roll(field, -1, 0) + jnp.roll(field, -1, 1)
    action = -2.0 * data["hopping"] * field * ahead
    return -jnp.sum(action + (1 - 2 * QUARTIC) * field**2 + QUARTIC * field**4)


def magnetisation(x: np.ndarray) -> np.ndarray:
    """|Σ φ| over the number of sites, of each row: float[N]."""
    return np.abs(x.mean(1))
