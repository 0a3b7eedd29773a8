"""What is known of a target, and how."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Squares:
    """E[x²] and Var[x²] of every coordinate.

    Attributes
    ----------
    mean, variance : float[d]
    how : str
        "exact", "quadrature", or the run that they come from.
    """

    mean: np.ndarray
    variance: np.ndarray
    how: str = "exact"


def of_gaussian(mean: np.ndarray, variance: np.ndarray) -> Squares:
    """Squares of independent or dependent normal coordinates: m² + v and 2v² + 4m²v."""
    return Squares(mean**2 + variance, 2 * variance**2 + 4 * mean**2 * variance)
