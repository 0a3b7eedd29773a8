"""Curved targets with closed forms: a banana in the plane, and Rosenbrock's valley 18 times."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.targets.truth import Squares
from ppcore.target import DensityTarget

PAIRS = 18
WIDTH = 0.1


def _banana(x: Any, bend: Any) -> Any:
    return -0.5 * (x[0] / 10) ** 2 - 0.5 * (x[1] - bend * (x[0] ** 2 - 100)) ** 2


def _rosenbrock(x: Any, width: Any) -> Any:
    a, b = x[:PAIRS], x[PAIRS:]
    return -0.5 * jnp.sum((a - 1) ** 2 + (a**2 - b) ** 2 / width)


def banana() -> tuple[DensityTarget, Squares]:
    """x₀ ~ N(0, 10²), x₁ ~ N(0.03 (x₀² − 100), 1)."""
    # With w = 3(z² − 1): E w² = 18 and E w⁴ = 81·60.
    truth = Squares(np.array([100.0, 19.0]), np.array([2e4, 81 * 60 + 6 * 18 + 3 - 19.0**2]))
    return DensityTarget(_banana, 2, np.float64(0.03)), truth


def rosenbrock36() -> tuple[DensityTarget, Squares]:
    """18 pairs: a ~ N(1, 1), b ~ N(a², 0.1); all a first."""
    # E a² = 2, E a⁴ = 10, E a⁸ = 764.
    square_b = 10 + WIDTH
    fourth_b = 764 + 6 * WIDTH * 10 + 3 * WIDTH**2
    mean = np.repeat([2.0, square_b], PAIRS)
    variance = np.repeat([10 - 2.0**2, fourth_b - square_b**2], PAIRS)
    return DensityTarget(_rosenbrock, 2 * PAIRS, np.float64(WIDTH)), Squares(mean, variance)
