"""The error of an evidence estimate, told from one run by who descends from whom."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

FEWEST = 4


def variance_estimate(root: Any, steps: int, weights: Any = None) -> float:
    """V with E[Ẑ² V] = Var(Ẑ) for N particles resampled multinomially at each of T steps.

    V = 1 − (N/(N − 1))^{T+1} (1 − Σ_r (Σ_{i: root_i = r} W_i)²): two particles without a common
    ancestor are as good as independent. Each multinomial step adds 1/N to the sum, which the
    factor takes away; systematic resampling and its like add next to nothing, so that T = 0 is
    the closer approximation for them (not an unbiased one).

    Parameters
    ----------
    root : int[N]
        The first ancestor of each particle.
    steps : int
        T.
    weights : float[N], optional
        W; equal by default.

    Source: Lee & Whiteley 2018, arXiv:1509.00394.

    >>> round(variance_estimate([0, 0, 2, 3], 1), 3)
    -0.111
    """
    root = np.asarray(root)
    n = len(root)
    w = np.full(n, 1.0 / n) if weights is None else np.asarray(weights, float)
    family = np.bincount(root, weights=w, minlength=n)
    growth = (steps + 1) * math.log(n / (n - 1))
    return 1.0 - math.exp(growth) * (1.0 - float(np.sum(family**2)))


def relative_variance(root: Any, steps: int, weights: Any = None) -> float | None:
    """Var(Ẑ)/Z² by :func:`variance_estimate`; None with too few families, or not above 0.

    >>> relative_variance([0, 0, 0, 0], 1) is None
    True
    """
    if len(np.unique(np.asarray(root))) < FEWEST:
        return None
    found = variance_estimate(root, steps, weights)
    return found if found > 0 else None
