"""Limited-memory BFGS from many points at once, on the host; one batched gradient a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""float[N, d] -> (log γ: float[N], ∇ log γ: float[N, d])."""

MEMORY = 12


@dataclass
class Paths:
    """Where each of C searches stands, and what it knows of the curvature there.

    Attributes
    ----------
    x, gradient : float[C, d]; log_density : float[C]
    steps, changes : float[C, MEMORY, d]
        Last differences of x and of −gradient, newest last; zero rows are unused.
    decrement : float[C]
        gᵀ H g, twice the height to the mode that the quadratic model predicts; affine invariant.
    """

    x: np.ndarray
    log_density: np.ndarray
    gradient: np.ndarray
    steps: np.ndarray = field(init=False)
    changes: np.ndarray = field(init=False)
    decrement: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        chains, dim = self.x.shape
        self.steps = np.zeros((chains, MEMORY, dim))
        self.changes = np.zeros((chains, MEMORY, dim))
        self.decrement = np.full(chains, np.inf)


def inverse_hessian_times(steps: np.ndarray, changes: np.ndarray, v: np.ndarray) -> np.ndarray:
    """H v by the two-loop recursion, for each leading index; H = I/|v| without any pair.

    Source: Nocedal 1980, doi:10.1090/S0025-5718-1980-0572855-7.
    """
    sy = np.einsum("cmd,cmd->cm", steps, changes)
    rho = np.divide(1.0, sy, out=np.zeros_like(sy), where=sy > 0)
    q, alpha = v.copy(), np.zeros_like(sy)
    for i in reversed(range(steps.shape[1])):
        alpha[:, i] = rho[:, i] * np.einsum("cd,cd->c", steps[:, i], q)
        q -= alpha[:, i, None] * changes[:, i]
    yy = np.einsum("cd,cd->c", changes[:, -1], changes[:, -1])
    length = np.maximum(np.linalg.norm(v, axis=-1), 1e-300)
    gamma = np.where(sy[:, -1] > 0, sy[:, -1] / np.maximum(yy, 1e-300), 1.0 / length)
    r = gamma[:, None] * q
    for i in range(steps.shape[1]):
        beta = rho[:, i] * np.einsum("cd,cd->c", changes[:, i], r)
        r += (alpha[:, i] - beta)[:, None] * steps[:, i]
    return r


def dense_inverse_hessian(steps: np.ndarray, changes: np.ndarray) -> np.ndarray:
    """H of one path as float[d, d], symmetrised."""
    dim = steps.shape[-1]
    many = (
        np.broadcast_to(steps, (dim, *steps.shape)),
        np.broadcast_to(changes, (dim, *changes.shape)),
    )
    h = inverse_hessian_times(many[0], many[1], np.eye(dim))
    return 0.5 * (h + h.T)


def climb(evaluate: Evaluate, paths: Paths, evaluations: int, tolerance: float = 1e-2) -> int:
    """Move every path uphill until three in four have ``decrement`` < tolerance; calls spent.

    Backtracks until log γ rises enough (Armijo), per path; a path that cannot rise forgets its
    curvature and goes on along the gradient.
    """
    shrink = np.ones(len(paths.x))
    direction = _direction(paths)
    for call in range(evaluations):
        done = paths.decrement < tolerance
        if done.mean() >= 0.75:
            return call
        trial = paths.x + np.where(done, 0.0, shrink)[:, None] * direction
        log_density, gradient = evaluate(trial)
        slope = np.einsum("cd,cd->c", paths.gradient, direction)
        with np.errstate(invalid="ignore", over="ignore"):
            rise = log_density - paths.log_density
            good = (rise >= 1e-4 * shrink * slope) & np.isfinite(gradient).all(-1) & ~done
        _accept(paths, good, trial, log_density, gradient)
        lost = ~good & (shrink < 1e-8) & ~done
        paths.steps[lost] = paths.changes[lost] = 0.0
        renewed = good | lost
        if renewed.any():
            direction = np.where(renewed[:, None], _direction(paths, renewed), direction)
        shrink = np.where(renewed, 1.0, 0.25 * shrink)
    return evaluations


def _accept(
    paths: Paths, good: np.ndarray, x: np.ndarray, log_density: np.ndarray, gradient: np.ndarray
) -> None:
    s, y = x - paths.x, paths.gradient - gradient
    sy = np.einsum("cd,cd->c", s, y)
    curved = good & (sy > 1e-10 * np.einsum("cd,cd->c", y, y) ** 0.5 * np.linalg.norm(s, axis=-1))
    for history, new in ((paths.steps, s), (paths.changes, y)):
        history[curved] = np.concatenate([history[curved, 1:], new[curved, None]], axis=1)
    paths.x = np.where(good[:, None], x, paths.x)
    paths.gradient = np.where(good[:, None], gradient, paths.gradient)
    paths.log_density = np.where(good, log_density, paths.log_density)


def _direction(paths: Paths, renewed: np.ndarray | None = None) -> np.ndarray:
    direction = inverse_hessian_times(paths.steps, paths.changes, paths.gradient)
    decrement = np.einsum("cd,cd->c", paths.gradient, direction)
    known = (paths.steps[:, -1] != 0).any(-1)
    fresh = known if renewed is None else known & renewed
    paths.decrement = np.where(fresh, decrement, paths.decrement)
    return direction
