"""Where chains begin: draws from a Laplace approximation where it holds, scattered points else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.errors import StartError
from ppcore_mcmc.laplace import Laplace, newton
from ppcore_mcmc.lbfgs import Evaluate, Paths, climb, dense_inverse_hessian

RADIUS = 2.0
CLIMB = 60
NEWTON_UP_TO = 128


@dataclass(frozen=True)
class Start:
    """Start positions.

    Attributes
    ----------
    x : float[chains, d]
    factor : float[d, d] or None
        F of the Laplace approximation that ``x`` was drawn from.
    note : str
        Why an approximation was abandoned, or "".
    """

    x: np.ndarray
    factor: np.ndarray | None = None
    note: str = ""


def scattered(
    evaluate: Evaluate, rng: np.random.Generator, key: Any, target: Any, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points with finite log density and gradient: ``(x, log_density, gradient)``.

    Uniform on (−2, 2)^d in unconstrained coordinates, then nearer to 0, then prior draws where the
    target has a reference (another compiled program, so only if the first two fail).

    Raises :class:`ppcore.errors.StartError` when no point is usable.
    """
    for radius in (RADIUS, RADIUS, 0.5, 0.1, 0.0, None):
        if radius is not None:
            x = rng.uniform(-radius, radius, shape)
        elif target.has_reference:
            x = np.asarray(target.sample_reference(key, shape[0]), float)
        else:
            break
        log_density, gradient = evaluate(x)
        good = np.isfinite(log_density) & np.isfinite(gradient).all(-1)
        if good.any():
            pick = np.where(good, np.arange(len(x)), rng.choice(np.flatnonzero(good), len(x)))
            return x[pick], log_density[pick], gradient[pick]
    raise StartError(
        "The log density is not finite, or has no finite gradient, at any of "
        f"{5 * shape[0]} start positions (uniform on (-2, 2) and nearer to 0 in unconstrained "
        "coordinates, and prior draws where the model has a proper prior). Check that the "
        "observed data lie in the support of the likelihood for every parameter value."
    )


def find(evaluate: Evaluate, rng: np.random.Generator, key: Any, target: Any, chains: int) -> Start:
    """Start positions for ``chains`` chains: Laplace draws up to ``NEWTON_UP_TO`` coordinates.

    A Laplace approximation is kept if the log weights log γ(x) − log N(x; mode, F Fᵀ) of draws
    from it vary less than half as much as its own log density does; on a funnel, whose mode says
    nothing about its mass, they vary far more, and the scattered points are used instead.
    """
    shape = (chains, target.dim)
    x, log_density, gradient = scattered(evaluate, rng, key, target, shape)
    if target.dim > NEWTON_UP_TO:
        return Start(x)
    paths = Paths(x, log_density, gradient)
    climb(evaluate, paths, CLIMB)
    best = int(np.argmax(paths.log_density))
    guess = dense_inverse_hessian(paths.steps[best], paths.changes[best])
    approximation = newton(evaluate, paths.x[best], guess)
    if not approximation.converged:
        return Start(x, note="No Laplace start: no mode with a definite Hessian was found.")
    draws, spread = _draws(evaluate, rng, approximation, chains)
    limit = 1 + 0.5 * target.dim**0.5
    if not spread < limit:
        return Start(
            x,
            note=f"A Laplace start was abandoned: its log weights vary by {spread:.1f} nats "
            f"(more than {limit:.1f}), so the mode does not describe the mass around it.",
        )
    return Start(draws, approximation.factor)


def _draws(
    evaluate: Evaluate, rng: np.random.Generator, approximation: Laplace, chains: int
) -> tuple[np.ndarray, float]:
    z = rng.standard_normal((max(chains, 32), len(approximation.mode)))
    x = approximation.mode + z @ approximation.factor.T
    log_density, _ = evaluate(x)
    weights = log_density - approximation.log_density + 0.5 * np.sum(z**2, axis=-1)
    return x[:chains], float(np.std(weights)) if np.isfinite(weights).all() else np.inf
