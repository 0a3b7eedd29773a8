"""Gaussians in a hundred dimensions: along the axes, and badly conditioned and rotated."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.targets.truth import Squares, of_gaussian
from ppcore.target import DensityTarget

DIM = 100


def _diagonal(x: Any, variances: Any) -> Any:
    return -0.5 * jnp.sum(x**2 / variances)


def _general(x: Any, precision: Any) -> Any:
    return -0.5 * x @ precision @ x


def _zeros(variances: np.ndarray) -> Squares:
    return of_gaussian(np.zeros_like(variances), variances)


def gaussian() -> tuple[DensityTarget, Squares]:
    """N(0, diag(v)), v log-spaced from 0.1 to 10: condition number 100."""
    variances = np.logspace(-1, 1, DIM)
    return DensityTarget(_diagonal, DIM, variances), _zeros(variances)


def ill_gaussian() -> tuple[DensityTarget, Squares]:
    """Eigenvalues log-spaced to a condition number of 10⁵, randomly rotated (PCG64, seed 0)."""
    basis = np.linalg.qr(np.random.Generator(np.random.PCG64(0)).normal(size=(DIM, DIM)))[0]
    values = np.logspace(-2.5, 2.5, DIM)
    covariance = (basis * values) @ basis.T
    precision = (basis / values) @ basis.T
    return DensityTarget(_general, DIM, precision), _zeros(np.diagonal(covariance).copy())
