"""The entropic plan between two Gaussians, in closed form."""

from __future__ import annotations

import numpy as np

from ppcore.settings import check_between


def gaussian_plan(
    source: np.ndarray, target: np.ndarray, epsilon: float
) -> tuple[np.ndarray, np.ndarray]:
    """S and V with y | x ~ N(m_1 + S(x − m_0), V) under the plan of N(m_0, Σ_0) and N(m_1, Σ_1).

    S = ½ Σ_0^{−½} (D − εI) Σ_0^{−½},   D = (4 Σ_0^½ Σ_1 Σ_0^½ + ε² I)^½,   V = εS

    for the cost ½|x − y|² and entropy ε; as ε → 0, S is the optimal map between them.

    Parameters
    ----------
    source, target : float[d, d]
        Σ_0, Σ_1, positive definite.
    epsilon : float

    Raises
    ------
    ppcore.errors.SettingsError
        If ε is not positive.

    Source: Janati, Muzellec, Peyré & Cuturi 2020, arXiv:2006.02572; Mallasto, Gerolin & Minh 2022,
    arXiv:2006.03416.

    >>> slope, _ = gaussian_plan(np.eye(1), 4.0 * np.eye(1), 1e-9)
    >>> round(slope.item(), 6)
    2.0
    """
    epsilon = float(epsilon)
    check_between("epsilon", epsilon, 0, np.inf)
    values, vectors = np.linalg.eigh(source)
    root = (vectors * np.sqrt(values)) @ vectors.T
    back = (vectors / np.sqrt(values)) @ vectors.T
    inner, axes = np.linalg.eigh(root @ target @ root)
    # √(4λ + ε²) − ε without the cancellation that a large ε brings.
    gap = 4.0 * inner / (np.sqrt(4.0 * inner + epsilon**2) + epsilon)
    slope = 0.5 * back @ ((axes * gap) @ axes.T) @ back
    slope = 0.5 * (slope + slope.T)
    return slope, epsilon * slope
