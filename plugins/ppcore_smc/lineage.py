"""The error of a particle filter's evidence, from the families within one run."""

from __future__ import annotations

from typing import Any

import numpy as np


def lineage_variance(root: Any, log_weight: Any, resamplings: Any) -> float:
    """Relative variance of Ẑ, estimated from which particles share a first ancestor.

    V = 1 − (N/(N−1))^{n+1} Σ_{i,j: E_i ≠ E_j} W_i W_j, with E the first ancestors and n the number
    of resamplings; Ẑ² V is unbiased for Var Ẑ when every resampling is multinomial. Once all
    particles descend from one, V = 1 and says nothing more.

    Parameters
    ----------
    root : int[N]
        First ancestor of each particle.
    log_weight : float[N]
        log W, normalised.
    resamplings : int
        n.

    >>> lineage_variance(np.array([0, 1]), np.log([0.5, 0.5]), 0)
    0.0

    Source: Lee & Whiteley (2018), arXiv:1509.00394, building on Chan & Lai (2013).
    """
    n = len(root)
    family = np.bincount(root, np.exp(log_weight), n)
    grow = (n / (n - 1)) ** (resamplings + 1.0)
    return float(max(1.0 - grow * (1.0 - np.sum(family**2)), 0.0))
