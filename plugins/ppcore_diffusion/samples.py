"""Sets of weighted draws that a transport or a bridge is learned from, wherever they come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.errors import SettingsError, UnsupportedError

LEAST = 8
FLAT = 1e-12


@dataclass(frozen=True)
class Samples:
    """Points with weights that sum to one, on the host.

    Attributes
    ----------
    x : float[n, d]
    weights : float[n]
    """

    x: np.ndarray
    weights: np.ndarray

    @property
    def dim(self) -> int:
        return int(self.x.shape[1])

    @property
    def ess(self) -> float:
        """1 / Σ W²: how many equally weighted points they are worth."""
        return float(1.0 / np.sum(self.weights**2))

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Weighted mean and lower Cholesky factor of the covariance: float[d], float[d, d].

        With fewer than 4d effective points correlations are shrunk, so that the factor exists.
        """
        mean = self.weights @ self.x
        centred = self.x - mean
        sd = np.sqrt(self.weights @ centred**2)
        unit = centred / sd
        share = np.clip(self.dim / self.ess - 0.25, 1e-9, 1.0)
        correlation = (1 - share) * (unit.T * self.weights) @ unit + share * np.eye(self.dim)
        return mean, sd[:, None] * np.linalg.cholesky(correlation)

    def drawn(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """``n`` points with replacement, each with its weight as probability; float[n, d]."""
        edges = np.cumsum(self.weights)
        index = np.searchsorted(edges, rng.random(n) * edges[-1], side="right")
        return self.x[np.minimum(index, len(self.x) - 1)]


def samples_of(draws: Any, what: str = "draws", dim: int | None = None) -> Samples:
    """``draws`` as :class:`Samples`.

    Parameters
    ----------
    draws : Fit, Population, Samples or float[n, d]
        Of a fit the unconstrained draws, or its weighted population.
    what : str
        What to call them in errors.
    dim : int, optional
        d that they must have.

    Raises
    ------
    ppcore.errors.SettingsError
        For another dimension, values that are not finite, weights that are not weights, fewer than
        8 effective points, or a coordinate that does not vary.
    ppcore.errors.UnsupportedError
        For a fit that was loaded from disk without its unconstrained draws.

    >>> samples_of(np.random.default_rng(0).normal(size=(100, 2))).ess
    100.0
    """
    if isinstance(draws, Samples):
        x, weights = draws.x, draws.weights
    else:
        x, weights = _parts(draws, what)
    if x.ndim != 2 or x.shape[1] < 1:
        raise SettingsError(
            f"{what} must be points of R^d, an array of shape [n, d]; this one has shape {x.shape}."
        )
    if dim is not None and x.shape[1] != dim:
        raise SettingsError(
            f"{what} have {x.shape[1]} coordinates, but the target has {dim} unconstrained ones. "
            "Pass a fit of the same model, its population, or an array [n, d] in unconstrained "
            "coordinates."
        )
    if not np.isfinite(x).all():
        raise SettingsError(
            f"{int((~np.isfinite(x)).sum())} values of {what} are NaN or infinite. Leave those "
            "draws out."
        )
    if weights.shape != (len(x),) or not np.isfinite(weights).all() or (weights < 0).any():
        raise SettingsError(f"{what} need one finite, nonnegative weight for each point.")
    if weights.sum() <= 0:
        raise SettingsError(f"All weights of {what} are zero.")
    found = Samples(x, weights / weights.sum())
    if found.ess < LEAST:
        raise SettingsError(
            f"{what} are worth {found.ess:.1f} independent points; at least {LEAST} are needed to "
            "learn from. Use more draws, or draws with more even weights."
        )
    mean = found.weights @ x
    sd = np.sqrt(found.weights @ (x - mean) ** 2)
    flat = np.flatnonzero(sd <= FLAT * (1 + np.abs(mean)))
    if flat.size:
        raise SettingsError(
            f"Coordinate {int(flat[0])} of {what} is the same in all draws: nothing can be learned "
            "about how it varies. Use draws from chains that move."
        )
    return found


def _parts(draws: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    population = getattr(draws, "population", None)
    result = getattr(draws, "result", None)
    if hasattr(draws, "log_weight"):
        population = draws
    if population is not None:
        log_weight = np.asarray(population.log_weight, float)
        top = log_weight.max() if log_weight.size else 0.0
        top = top if np.isfinite(top) else 0.0
        return np.asarray(population.x, float), np.exp(log_weight - top)
    if result is not None:
        x = np.asarray(result.x, float)
        x = x.reshape(-1, x.shape[-1])
    elif hasattr(draws, "posterior"):
        raise UnsupportedError(
            f"{what} are a fit without unconstrained draws (it was loaded, or solved exactly). "
            "Pass the fit that infer() returned, or an array [n, d] in unconstrained coordinates."
        )
    else:
        try:
            x = np.asarray(draws, float)
        except (TypeError, ValueError) as error:
            raise SettingsError(
                f"{what}={type(draws).__name__} is neither a fit, nor a population, nor an array "
                "of numbers of shape [n, d]."
            ) from error
    return x, np.ones(x.shape[:1])
