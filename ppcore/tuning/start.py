"""Where chains begin: draws from a Laplace approximation where it holds, scattered points else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.errors import StartError
from ppcore.tuning.laplace import Laplace, newton
from ppcore.tuning.lbfgs import Evaluate, Paths, climb, dense_inverse_hessian

RADIUS = 2.0
CLIMB = (5, 5, 5, 5, 10, 10) + 6 * (20,)
ALWAYS = 7
NEWTON_UP_TO = 128


@dataclass(frozen=True)
class Start:
    """Start positions.

    Attributes
    ----------
    x : float[chains, d]
    factor : float[d, d] or None
        F of the Laplace approximation that ``x`` was drawn from.
    scale : float[d]
        Standard deviations that the climb suggests, used without a Laplace approximation.
    note : str
        Why an approximation was abandoned, or "".
    """

    x: np.ndarray
    scale: np.ndarray
    factor: np.ndarray | None = None
    note: str = ""

    def root(self) -> np.ndarray:
        """The first F to precondition with: float[d, d]."""
        return np.diag(self.scale) if self.factor is None else self.factor


@dataclass(frozen=True)
class Stage:
    """A moment of the climb: draws around it, their scales, and a bound on the evidence."""

    bound: float
    x: np.ndarray
    scale: np.ndarray


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
        gradient = np.zeros_like(x) if gradient is None else gradient
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
    """Start positions for ``chains`` chains, and the scales or the factor that suit them.

    All chains climb from scattered points. A Laplace approximation at the best mode (up to
    ``NEWTON_UP_TO`` coordinates) is kept if the log weights log γ(x) − log N(x; mode, F Fᵀ) of
    draws from it vary less than half as much as its own log density does. On a funnel, whose mode
    says nothing about its mass, they vary far more; then the stage of the climb whose diagonal
    Gaussians have the highest evidence bound, and so have not yet left the mass, is used.
    """
    shape = (chains, target.dim)
    paths = Paths(*scattered(evaluate, rng, key, target, shape))
    stages = [Stage(-np.inf, paths.x, np.ones(target.dim))]
    for calls in CLIMB:
        settled = climb(evaluate, paths, calls) < calls
        stages.append(_stage(evaluate, rng, paths))
        best_bound = max(stage.bound for stage in stages[:-1])
        falling = stages[-1].bound < best_bound
        if settled or (falling and (target.dim > NEWTON_UP_TO or len(stages) > ALWAYS)):
            break
    stage = max(stages, key=lambda stage: stage.bound)
    note = ""
    if target.dim <= NEWTON_UP_TO:
        best = int(np.argmax(paths.log_density))
        guess = dense_inverse_hessian(paths.steps[best], paths.changes[best])
        approximation = newton(evaluate, paths.x[best], guess)
        limit = 1 + 0.5 * target.dim**0.5
        if approximation.converged:
            draws, spread = _draws(evaluate, rng, approximation, chains)
            if spread < limit:
                return Start(draws, stage.scale, approximation.factor)
            note = (
                f"A Laplace start was abandoned: its log weights vary by {spread:.1f} nats "
                f"(more than {limit:.1f}), so the mode does not describe the mass around it."
            )
        else:
            note = "A Laplace start was abandoned: no mode with a definite Hessian was found."
    return Start(stage.x, stage.scale, note=note)


def _stage(evaluate: Evaluate, rng: np.random.Generator, paths: Paths) -> Stage:
    """Draws x + s z around where the climb stands, with s from the curvature along it.

    s_i⁴ = Σ (Δx_i)² / Σ (Δ∇_i)² over the last steps of all paths, each weighted by 1/(Δx·Δ∇);
    the bound is the median over paths of log γ(x + s z), plus Σ log s.
    """
    sy = np.einsum("cmd,cmd->cm", paths.steps, paths.changes)
    weight = np.divide(1.0, sy, out=np.zeros_like(sy), where=sy > 0)
    moved = np.einsum("cm,cmd->d", weight, paths.steps**2)
    turned = np.einsum("cm,cmd->d", weight, paths.changes**2)
    if not (moved > 0).all() or not (turned > 0).all():
        return Stage(-np.inf, paths.x, np.ones(paths.x.shape[1]))
    scale = (moved / turned) ** 0.25
    x = paths.x + scale * rng.standard_normal(paths.x.shape)
    log_density, gradient = evaluate(x)
    good = np.isfinite(log_density) & np.isfinite(gradient).all(-1)
    level = np.where(good, log_density, -np.inf)
    bound = float(np.median(level) + np.log(scale).sum())
    return Stage(bound, np.where(good[:, None], x, paths.x), scale)


def _draws(
    evaluate: Evaluate, rng: np.random.Generator, approximation: Laplace, chains: int
) -> tuple[np.ndarray, float]:
    z = rng.standard_normal((max(chains, 32), len(approximation.mode)))
    x = approximation.mode + z @ approximation.factor.T
    log_density, _ = evaluate(x)
    weights = log_density - approximation.log_density + 0.5 * np.sum(z**2, axis=-1)
    return x[:chains], float(np.std(weights)) if np.isfinite(weights).all() else np.inf
