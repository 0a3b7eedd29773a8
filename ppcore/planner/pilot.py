"""A pilot: climbs from scattered starts, and a Gaussian at every mode that they find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.tuning.laplace import newton
from ppcore.tuning.lbfgs import Evaluate, Paths, climb, dense_inverse_hessian
from ppcore.tuning.start import scattered

CALLS = 60
APART = 4.0
WORTH = 12.0
MOST_MODES = 4
VALLEY, NOTABLE = 6.0, 4.6


@dataclass(frozen=True, eq=False)
class Bump:
    """A Gaussian N(mean, F Fᵀ) with a share of the mass.

    Attributes
    ----------
    mean : float[d]
    factor : float[d, d]
        F, any square root of the covariance.
    log_mass : float
        log of the mass that the Laplace approximation gives it.
    """

    mean: np.ndarray
    factor: np.ndarray
    log_mass: float


@dataclass(frozen=True, eq=False)
class Pilot:
    """What the climbs found.

    Attributes
    ----------
    bumps : tuple of Bump
        One for every mode that carries mass, the heaviest first; none where no climb arrived.
    arrived : float
        The share of climbs that ended at one of them.
    """

    bumps: tuple[Bump, ...]
    arrived: float


def explore(
    evaluate: Evaluate, rng: np.random.Generator, key: Any, target: Any, chains: int
) -> Pilot:
    """Climb ``chains`` paths from scattered starts and approximate γ at the modes they reach.

    Two ends are one mode if they lie within ``APART`` standard deviations of one of them. A mode
    whose Laplace mass is ``WORTH`` nats below the best carries nothing.

    Raises :class:`ppcore.errors.StartError` if no start has a finite log density.
    """
    paths = Paths(*scattered(evaluate, rng, key, target, (chains, target.dim)))
    with np.errstate(all="ignore"):
        climb(evaluate, paths, CALLS)
    left = np.isfinite(paths.log_density) & (paths.decrement < 1.0)
    total, arrived = max(len(left), 1), 0
    bumps: list[Bump] = []
    while left.any() and len(bumps) < MOST_MODES:
        best = int(np.argmax(np.where(left, paths.log_density, -np.inf)))
        guess = dense_inverse_hessian(paths.steps[best], paths.changes[best])
        with np.errstate(all="ignore"):
            found = newton(evaluate, paths.x[best], guess)
        z = np.linalg.lstsq(found.factor, (paths.x - found.mode).T, rcond=None)[0]
        near = left & (np.sqrt(np.mean(z**2, axis=0)) < APART)
        near[best] = True
        left = left & ~near
        if not found.converged or any(_same(found.mode, b) for b in bumps):
            continue
        log_mass = found.log_density + float(np.linalg.slogdet(found.factor)[1])
        bumps.append(Bump(found.mode, found.factor, log_mass))
        arrived += int(near.sum())
    if not bumps:
        return Pilot((), 0.0)
    top = max(b.log_mass for b in bumps)
    kept = sorted((b for b in bumps if b.log_mass > top - WORTH), key=lambda b: -b.log_mass)
    return Pilot(tuple(kept), arrived / total)


def _same(mode: np.ndarray, bump: Bump) -> bool:
    z = np.linalg.lstsq(bump.factor, mode - bump.mean, rcond=None)[0]
    return bool(np.abs(z).max() < 0.5)


def separated(evaluate: Evaluate, bumps: tuple[Bump, ...]) -> bool:
    """Whether a valley lies between the heaviest mode and one that carries a hundredth of it.

    A valley is a point on the straight line between them ``VALLEY`` nats below the lower of the
    two; on a curved ridge there may be one all the same, so this is a suspicion, not a proof.
    """
    steps = np.linspace(0.0, 1.0, 17)[:, None]
    for other in bumps[1:]:
        if other.log_mass < bumps[0].log_mass - NOTABLE:
            continue
        line = (1 - steps) * bumps[0].mean + steps * other.mean
        with np.errstate(all="ignore"):
            level = np.nan_to_num(evaluate(line)[0], nan=-np.inf)
        if level.min() < min(level[0], level[-1]) - VALLEY:
            return True
    return False
