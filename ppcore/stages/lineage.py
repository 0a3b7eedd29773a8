"""The error of an evidence estimate, told from one run by who descends from whom."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def relative_variance(root: Any, steps: int, weights: Any = None) -> float | None:
    """Estimate of Var(Ẑ)/Z² from the first ancestors of the particles.

    V = 1 − (N/(N − 1))^{T+1} (1 − Σ_r (Σ_{i: root_i = r} W_i)²), unbiased (after multiplying by
    Ẑ²) for multinomial resampling at each of T steps; resampling with less noise makes it larger
    than needed. None if so few first ancestors are left that it says nothing.

    Parameters
    ----------
    root : int[N]
        The first ancestor of each particle.
    steps : int
        T, how often the particles were resampled.
    weights : float[N], optional
        W; equal by default.

    Source: Lee & Whiteley 2018, arXiv:1509.00394.

    >>> relative_variance([0, 1, 2, 3], 0)
    0.0
    """
    root = np.asarray(root)
    n = len(root)
    w = np.full(n, 1.0 / n) if weights is None else np.asarray(weights, float)
    family = np.bincount(root, weights=w, minlength=n)
    if n < 2 or np.count_nonzero(family) < 4:
        return None
    growth = (steps + 1) * math.log(n / (n - 1))
    return max(0.0, 1.0 - math.exp(growth) * (1.0 - float(np.sum(family**2))))
