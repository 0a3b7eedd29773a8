"""What every estimator returns, and the Monte Carlo error of a mean of correlated draws."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppcore.report.diagnostics import mean_ess


@dataclass(frozen=True)
class Estimate:
    """An expectation with its Monte Carlo standard error.

    Attributes
    ----------
    value, mcse : float[*shape]
        For every component of the integrand.
    method : str
    variance_reduction : float[*shape]
        (error of the plain mean of the same draws / mcse)²; 1 for the plain mean.
    about : dict
        What the method knows besides: ``k_hat``, ``features``, ``family``.
    """

    value: np.ndarray
    mcse: np.ndarray
    method: str
    variance_reduction: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)

    def __float__(self) -> float:
        return float(self.value)

    def __str__(self) -> str:
        if np.ndim(self.value):
            ratio = float(np.median(self.variance_reduction))
            return (
                f"{np.size(self.value)} expectations by {self.method}, mcse ≤ "
                f"{float(np.max(self.mcse)):.2g}, median variance ratio {ratio:.3g}"
            )
        return (
            f"{float(self.value):.6g} ± {float(self.mcse):.2g} ({self.method}, variance ratio "
            f"{float(self.variance_reduction):.3g})"
        )


def effective_draws(values: np.ndarray) -> np.ndarray:
    """Draws that the mean of values: float[chains, draws, m] is worth; N where nothing varies.

    Source: Vehtari, Gelman, Simpson, Carpenter & Bürkner (2021), arXiv:1903.08008, unranked.
    """
    chains, draws, _ = values.shape
    if draws < 4:
        return np.full(values.shape[2], float(chains * draws))
    size = mean_ess(values)
    return np.where(np.isnan(size), float(chains * draws), size)


def standard_error(values: np.ndarray) -> np.ndarray:
    """sd / √ESS of the mean of values: float[chains, draws, m]; float[m]."""
    flat = values.reshape(-1, values.shape[-1])
    spread = flat.std(axis=0, ddof=1) if len(flat) > 1 else np.full(flat.shape[1], np.inf)
    return np.asarray(spread / np.sqrt(effective_draws(values)))


def ratio_of(plain: np.ndarray, better: np.ndarray) -> np.ndarray:
    """(plain / better)², 1 where both vanish."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.square(plain / better)
    return np.where((plain == 0) & (better == 0), 1.0, found)
