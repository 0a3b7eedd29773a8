"""A Brownian motion with unknown scales, its middle unobserved; truths by quadrature."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.targets.truth import Squares
from ppcore.target import DensityTarget

STEPS = 30
DIM = STEPS + 2
SD = 2.0
# The observed places of steps 1-10 and 21-30 of the Inference Gym's problem
# BrownianMotionUnknownScalesMissingMiddleObservations.
FIRST = (
    *(0.21592641, 0.118771404, -0.07945447, 0.037677474, -0.27885845),
    *(-0.1484156, -0.3250906, -0.22957903, -0.44110894, -0.09830782),
)
LAST = (
    *(-0.8786016, -0.83736074, -0.7384849, -0.8939254, -0.7774566),
    *(-0.70238715, -0.87771565, -0.51853573, -0.6948214, -0.6202789),
)
SEEN = np.r_[0:10, 20:30]
LOG_EVIDENCE = 1.18775


def _normal(value: Any, log_scale: Any) -> Any:
    return -0.5 * (value * jnp.exp(-log_scale)) ** 2 - log_scale - 0.5 * jnp.log(2 * jnp.pi)


def _log_prior(x: Any, data: Any) -> Any:
    walk = jnp.concatenate([x[2:3], jnp.diff(x[2:])])
    return jnp.sum(_normal(x[:2], jnp.log(SD))) + jnp.sum(_normal(walk, x[0]))


def _log_density(x: Any, data: Any) -> Any:
    return _log_prior(x, data) + jnp.sum(_normal(x[2:][SEEN] - data, x[1]))


def _draw(key: Any, data: Any) -> Any:
    z = jax.random.normal(key, (DIM,), data.dtype)
    return jnp.concatenate([SD * z[:2], jnp.cumsum(jnp.exp(SD * z[0]) * z[2:])])


def brownian() -> DensityTarget:
    """x = (log of the walk's scale, log of the noise's, the walk); both N(0, 2²)."""
    data = np.array(FIRST + LAST)
    return DensityTarget(_log_density, DIM, data, _log_prior, _draw)


def squares() -> Squares:
    """E[x²] and Var[x²], by integrating the walk out exactly on a grid of both scales."""
    mean, variance, _ = _integrate()
    return Squares(mean, variance, "quadrature")


def log_evidence() -> float:
    """log Z by the same grid; ``LOG_EVIDENCE`` to its digits."""
    return _integrate()[2]


def _integrate(size: int = 96) -> tuple[np.ndarray, np.ndarray, float]:
    """Second moments of all coordinates, the variances of their squares, and log Z."""
    y, seen = np.array(FIRST + LAST), SEEN
    walk, noise = np.linspace(-4, 1.5, size), np.linspace(-12, 0.5, size)
    order = np.arange(STEPS)
    prior = 1.0 + np.minimum(order[:, None], order[None, :])
    a, b = (v.ravel() for v in np.meshgrid(walk, noise, indexing="ij"))
    joint = np.exp(2 * a)[:, None, None] * prior
    marginal = joint[:, seen][:, :, seen] + np.exp(2 * b)[:, None, None] * np.eye(len(seen))
    cross = joint[:, :, seen]
    solved = np.linalg.solve(marginal, np.swapaxes(cross, 1, 2))
    mean = y @ solved
    spread = np.diagonal(joint - cross @ solved, axis1=1, axis2=2)
    fit = np.einsum("n,knm,m->k", y, np.linalg.inv(marginal), y)
    log_like = -0.5 * (fit + np.linalg.slogdet(2 * np.pi * marginal)[1])
    log_prior = -0.5 * (a**2 + b**2) / SD**2 - np.log(2 * np.pi * SD**2)
    cell = np.log((walk[1] - walk[0]) * (noise[1] - noise[0]))
    weight = log_like + log_prior + cell
    top = weight.max()
    log_z = float(top + np.log(np.exp(weight - top).sum()))
    w = np.exp(weight - log_z)
    second = np.concatenate([w @ np.stack([a**2, b**2], 1), w @ (mean**2 + spread)])
    fourth = np.concatenate(
        [
            w @ np.stack([a**4, b**4], 1),
            w @ (mean**4 + 6 * mean**2 * spread + 3 * spread**2),
        ]
    )
    return second, fourth - second**2, log_z
