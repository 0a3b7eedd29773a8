"""Numbers of a weighted population: evidence, effective size, k-hat; and how it is stored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore.fit.tree import encode

if TYPE_CHECKING:
    import xarray as xr

    from ppcore.population import Population


@dataclass(frozen=True)
class LogEvidence:
    """log Z and its standard error.

    Attributes
    ----------
    value : float
        log Z, the log of the mean of the runs' estimates.
    error : float or None
        Standard error: the larger of what the spread between independent runs and what the
        lineages within them say; 0 where exact, None where neither is known.

    >>> print(LogEvidence(-12.3456, 0.0321))
    -12.346 ± 0.032
    """

    value: float
    error: float | None

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        if self.error is None or not math.isfinite(self.error):
            return f"{self.value:.3f} (error unknown)"
        digits = 3 if self.error == 0 else max(0, 1 - math.floor(math.log10(self.error)))
        return f"{self.value:.{min(digits, 6)}f} ± {self.error:.{min(digits, 6)}f}"


def weights(population: Population) -> np.ndarray:
    """W = softmax(log_weight) on the host: float[N]."""
    w = np.exp(population.log_weight - np.max(population.log_weight))
    return np.asarray(w / w.sum())


def effective_size(population: Population) -> float:
    """1 / Σ W²: how many equally weighted particles the weights are worth."""
    return float(1.0 / np.sum(weights(population) ** 2))


def k_hat(population: Population) -> float | None:
    """Shape k̂ of a Pareto tail fitted to the largest weights; None if the weights are equal.

    Above 0.7 a few particles carry every estimate, whatever their number.

    Source: Vehtari, Simpson, Gelman, Yao & Gabry 2024, arXiv:1507.02646.
    """
    log_weight = np.asarray(population.log_weight, float)
    if len(log_weight) < 25 or np.ptp(log_weight) < 1e-9:
        return None
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):
        # ArviZ takes log likelihoods, whose negatives are the log weights of leave-one-out.
        k = float(array_stats.psislw(-log_weight)[1])
    return k if math.isfinite(k) else None


def stored(population: Population, attrs: Mapping[str, Any]) -> xr.Dataset:
    """The population as a Dataset: x[particle, coordinate], log_weight[particle], log_z."""
    import xarray as xr

    variables = {
        "x": (("particle", "coordinate"), np.asarray(population.x)),
        "log_weight": (("particle",), np.asarray(population.log_weight)),
        "log_z": ((), np.asarray(population.log_z)),
    }
    return xr.Dataset(variables, attrs=encode(attrs))


def restored(data: xr.Dataset) -> Population:
    """The inverse of :func:`stored`."""
    from ppcore.population import Population

    return Population(*(data[name].values for name in ("x", "log_weight", "log_z")))
