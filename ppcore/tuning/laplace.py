"""A Gaussian at a mode, by Newton steps in coordinates that whiten the last Hessian."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ppcore.tuning.lbfgs import Evaluate

PROBE = 0.05
ROUNDS = 12


@dataclass(frozen=True)
class Laplace:
    """N(mode, F Fᵀ).

    Attributes
    ----------
    mode : float[d]
    factor : float[d, d]
        F.
    log_density : float
        log γ at the mode.
    converged : bool
        The Hessian is negative definite and the mode is within 10⁻³ nats.
    """

    mode: np.ndarray
    factor: np.ndarray
    log_density: float
    converged: bool


def newton(evaluate: Evaluate, x: np.ndarray, inverse_hessian: np.ndarray) -> Laplace:
    """Climb from ``x`` (float[d]) to a mode; ``inverse_hessian`` is a first guess, float[d, d].

    Each round differences gradients along the columns of F to get A = −Fᵀ∇²log γ F, replaces F by
    F V |Λ|^−½ (A = V Λ Vᵀ), and tries steps a·F Fᵀ∇log γ for many a in one batch. Central
    differences with a step of ``PROBE`` whitened units do not depend on how the target is scaled.
    """
    values, vectors = np.linalg.eigh(inverse_hessian)
    factor = vectors * np.sqrt(np.maximum(values, 1e-12 * values[-1]))
    log_density, gradient = (v[0] for v in evaluate(x[None]))
    scales = 2.0 ** np.arange(2, -30, -1.0)
    converged = False
    for _ in range(ROUNDS):
        curvature = _whitened_hessian(evaluate, x, factor)
        if curvature is None:
            factor = 0.1 * factor
            continue
        values, vectors = np.linalg.eigh(curvature)
        stretch = np.clip(np.abs(values), 1e-6, 1e12) ** -0.5
        factor = (factor @ vectors) * stretch
        force = gradient @ factor
        settled = bool(values[0] > 0.5 and values[-1] < 2.0)
        if settled and force @ force < 2e-3:
            converged = True
            break
        trial = x + scales[:, None] * (factor @ force)
        found, gradients = evaluate(trial)
        usable = np.isfinite(found) & np.isfinite(gradients).all(-1)
        best = int(np.argmax(np.where(usable, found, -np.inf)))
        if usable[best] and found[best] > log_density:
            x, log_density, gradient = trial[best], found[best], gradients[best]
    return Laplace(x, factor, float(log_density), converged)


def _whitened_hessian(evaluate: Evaluate, x: np.ndarray, factor: np.ndarray) -> np.ndarray | None:
    probes = PROBE * factor.T
    _, gradient = evaluate(np.concatenate([x + probes, x - probes]))
    if not np.isfinite(gradient).all():
        return None
    plus, minus = np.split(gradient @ factor, 2)
    curvature = (minus - plus) / (2 * PROBE)
    return 0.5 * (curvature + curvature.T)
