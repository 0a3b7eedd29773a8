"""The modes that many climbs find, with a Gaussian at each."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.target import value_and_gradient
from ppcore.tuning.laplace import Laplace, newton
from ppcore.tuning.lbfgs import Evaluate, Paths, climb, dense_inverse_hessian
from ppcore.tuning.noise import spawned
from ppcore.tuning.start import NEWTON_UP_TO, find, scattered

CLIMBERS, PAD, CALLS = 32, 64, 60
FAR = 20.0
MOST_MODES = 16
PROBES = 32
NEGLIGIBLE = 20.0


@dataclass(frozen=True)
class Modes:
    """Gaussians N(mean_k, F_k F_kᵀ) where the target seems to have its mass.

    Attributes
    ----------
    log_weights : float[K]
        Log evidences of Laplace approximations, up to a constant; 0 without a mode.
    means : float[K, d]
    factors : float[K, d, d]
    modes : bool
        Whether they are modes (else one Gaussian from a climb that was stopped in time).
    gradients : int
    notes : tuple of str
    """

    log_weights: np.ndarray
    means: np.ndarray
    factors: np.ndarray
    modes: bool
    gradients: int
    notes: tuple[str, ...]

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the mixture: float[d], float[d, d]."""
        share = np.exp(self.log_weights - self.log_weights.max())
        share = share / share.sum()
        # A mode of little weight is widened over as well, or the map would have to reach for it.
        share = 0.5 * share + 0.5 / len(share)
        mean = share @ self.means
        off = self.means - mean
        inner = np.einsum("k,kij,klj->il", share, self.factors, self.factors)
        return mean, inner + np.einsum("k,ki,kj->ij", share, off, off)


def explore(key: Any, target: Any) -> Modes:
    """Climb from scattered points and reference draws; a Gaussian at every mode that holds up.

    Half of the climbs start uniformly on (−2, 2)^d; the others from reference draws, or, where the
    target has no reference, uniformly on (−20, 20)^d. Newton steps sharpen each end that no mode
    found before explains. A mode is kept if the log weights of draws from its Gaussian vary little;
    a mode 20 nats below the best in Laplace evidence is left out. Where no mode is kept (a funnel),
    the Gaussian is the one of :func:`ppcore.tuning.start.find`, around the stage of a climb with
    the highest bound.

    Raises :class:`ppcore.errors.StartError` if no start with a finite log density is found.
    """
    k_start, k_rng, k_rest = spawned(key, 3)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(k_rng)).ravel())
    evaluate = Counted(target)
    paths = starts(evaluate, rng, k_start, target, CLIMBERS)
    origin = paths.x
    climb(evaluate, paths, CALLS)
    kept = _modes(evaluate, rng, paths) if target.dim <= NEWTON_UP_TO else []
    if kept:
        level = np.array([m.log_density + np.linalg.slogdet(m.factor)[1] for m in kept])
        near = np.flatnonzero(level > level.max() - NEGLIGIBLE)
        count = f"{len(near)} mode{'s' * (len(near) > 1)}"
        note = f"Began from {count} found by {CLIMBERS} climbs."
        means, factors = (np.stack([getattr(kept[i], n) for i in near]) for n in ("mode", "factor"))
        return Modes(level[near], means, factors, True, evaluate.spent, (note,))
    start = find(evaluate, rng, k_rest, target, CLIMBERS)
    if start.factor is None:
        factor = np.diag(np.maximum(start.scale, start.x.std(0)))
    else:
        factor = start.factor
    note = "Began from one Gaussian: no mode describes the mass around it."
    centre = start.x.mean(0)
    if not np.isfinite(factor).all() or not np.isfinite(centre).all():
        centre, factor = origin.mean(0), np.eye(target.dim)
    return Modes(np.zeros(1), centre[None], factor[None], False, evaluate.spent, (note,))


class Counted:
    """log γ and its gradient for any number of points by one compiled shape, and how many."""

    def __init__(self, target: Any) -> None:
        self.target, self.spent = target, 0

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        self.spent += len(x)
        values, gradients = [], []
        dtype = jnp.result_type(float)
        for first in range(0, len(x), PAD):
            rows = x[first : first + PAD]
            padded = np.concatenate([rows, np.repeat(rows[-1:], PAD - len(rows), axis=0)])
            value, gradient = _score(self.target, padded.astype(dtype))
            values.append(np.asarray(value, float)[: len(rows)])
            gradients.append(np.asarray(gradient, float)[: len(rows)])
        return np.concatenate(values), np.concatenate(gradients)


_score = jax.jit(value_and_gradient)


@partial(jax.jit, static_argnames="n")
def reference_draws(key: Any, target: Any, n: int) -> Any:
    """``n`` draws from the target's reference: float[n, d]."""
    return target.sample_reference(key, n)


def starts(
    evaluate: Evaluate, rng: np.random.Generator, key: Any, target: Any, count: int
) -> Paths:
    """``count`` points to climb from, half of them reference draws or far out."""
    x, value, gradient = scattered(evaluate, rng, key, target, (count, target.dim))
    half = count // 2
    if half == 0:
        return Paths(x, value, gradient)
    if target.has_reference:
        others = np.asarray(reference_draws(key, target, half), float)
    else:
        # Without a prior nothing says how wide to look.
        others = rng.uniform(-FAR, FAR, (half, target.dim))
    known, slope = evaluate(others)
    good = np.isfinite(known) & np.isfinite(slope).all(-1)
    rows = np.flatnonzero(good)
    x[rows], value[rows], gradient[rows] = others[good], known[good], slope[good]
    return Paths(x, value, gradient)


def _modes(evaluate: Evaluate, rng: np.random.Generator, paths: Paths) -> list[Laplace]:
    kept: list[Laplace] = []
    order = np.argsort(-np.where(np.isfinite(paths.log_density), paths.log_density, -np.inf))
    tried = 0
    for i in order:
        if tried == MOST_MODES or not np.isfinite(paths.log_density[i]):
            break
        if any(_explains(mode, paths.x[i]) for mode in kept):
            continue
        tried += 1
        guess = dense_inverse_hessian(paths.steps[i], paths.changes[i])
        mode = newton(evaluate, paths.x[i], guess)
        if not mode.converged or any(_explains(other, mode.mode) for other in kept):
            continue
        if _spread(evaluate, rng, mode) < 1 + 0.5 * len(mode.mode) ** 0.5:
            kept.append(mode)
    return kept


def _explains(mode: Laplace, x: np.ndarray) -> bool:
    """Whether a climb that ended at ``x`` ended at this mode, within half a deviation."""
    off = np.linalg.solve(mode.factor, x - mode.mode)
    return bool(np.linalg.norm(off) < 0.5)


def _spread(evaluate: Evaluate, rng: np.random.Generator, mode: Laplace) -> float:
    z = rng.standard_normal((PROBES, len(mode.mode)))
    log_density, _ = evaluate(mode.mode + z @ mode.factor.T)
    weights = log_density - mode.log_density + 0.5 * np.sum(z**2, axis=-1)
    return float(np.std(weights)) if np.isfinite(weights).all() else np.inf
