"""A chain of Gaussians along a bent ridge: conditional Laplace approximations, one behind another.

In coordinates z that whiten weighted draws, the axis j is chosen that the others follow in a
curve: the largest Σ_{k≠j} E[z_j² z_k]². At points t of that axis the log density is maximised over
the rest; with H(t) the curvature there, γ̂(t) = γ(ẑ(t)) |2π H(t)⁻¹|^{1/2} is the approximate
marginal of t, and N(ẑ(t), H(t)⁻¹) thickened along the ridge by the spacing is one component of a
proposal, with a share in proportion to γ̂(t). Both ends are followed until γ̂ is negligible, so that
a long thin tail has its components before any draw has found it.

Source: Tierney & Kadane 1986, doi:10.1080/01621459.1986.10478240 (the marginal).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.planner.pilot import Bump
from ppcore.tuning.lbfgs import Evaluate

SPACING = 0.75
"""Of the components, in standard deviations of the draws."""

DEPTH, MOST = 16.0, 32
"""Nats below the largest marginal at which an end is reached; components on each side of it."""

NEWTON, DELTA, FLOOR = 6, 1e-4, 1e-3
"""Steps at each point at most, of finite differences, and the least curvature."""

SHRINK = 2.0 ** -np.arange(0, 9, 2)
SMALL = 0.02
"""Decrement in nats below which a point has arrived."""


@dataclass(frozen=True, eq=False)
class Point:
    """A maximum of the log density at one place of the axis, and the curvature of the rest."""

    z: np.ndarray
    curvature: np.ndarray
    log_mass: float


def along(evaluate: Evaluate, x: np.ndarray, weights: np.ndarray) -> tuple[Bump, ...]:
    """Components along the ridge of draws x: float[n, d] with weights float[n] that sum to one.

    ``log_mass`` of each is the logarithm of its share, up to a constant. Empty where the draws are
    too few to show an axis, or the density has no maximum beside it.
    """
    dim = x.shape[1]
    if dim < 2 or 1 / np.sum(weights**2) < 4 * dim:
        return ()
    centre = weights @ x
    centred = x - centre
    values, vectors = np.linalg.eigh((weights[:, None] * centred).T @ centred)
    if values.min() <= 0:
        return ()
    root = vectors * np.sqrt(values)
    z = np.linalg.solve(root, centred.T).T
    follows = np.einsum("n,nj,nk->jk", weights, z**2, z)
    np.fill_diagonal(follows, 0.0)
    axis = int(np.argmax((follows**2).sum(1)))
    order = [axis, *(k for k in range(dim) if k != axis)]
    line = _Line(evaluate, centre, root[:, order])
    z = z[:, order]
    points = _points(line, z, weights)
    if len(points) < 3:
        return ()
    return tuple(_bumps(line, points))


@dataclass(frozen=True, eq=False)
class _Line:
    """The log density in z, where x = centre + root z and z[0] is the place on the axis."""

    evaluate: Evaluate
    centre: np.ndarray
    root: np.ndarray

    def __call__(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with np.errstate(all="ignore"):
            level, gradient = self.evaluate(self.centre + z @ self.root.T)
        level = np.where(np.isfinite(level), level, -np.inf)
        return level, np.asarray(gradient) @ self.root


def _points(line: _Line, z: np.ndarray, weights: np.ndarray) -> list[Point]:
    """Maxima at places in order, from one end to the other."""
    near = weights * np.exp(-0.5 * (z[:, 0] / SPACING) ** 2)
    first = _maximum(line, np.concatenate([[0.0], (near @ z / near.sum())[1:]]))
    if first is None:
        return []
    sides: list[list[Point]] = []
    top = first.log_mass
    for sign in (-1.0, 1.0):
        made = [first]
        while len(made) <= MOST and made[-1].log_mass > top - DEPTH:
            # Where the ridge would go if it went on straight.
            last = made[-1].z
            step = last - made[-2].z if len(made) > 1 else np.zeros_like(last)
            guess = last + step
            guess[0] = last[0] + sign * SPACING
            found = _maximum(line, guess)
            if found is None:
                break
            made.append(found)
            top = max(top, found.log_mass)
        sides.append(made[1:])
    return [*reversed(sides[0]), first, *sides[1]]


def _maximum(line: _Line, z: np.ndarray) -> Point | None:
    """Newton's method over all of z but z[0]; None where it finds no maximum."""
    dim = len(z)
    rest = np.eye(dim)[1:]
    for _ in range(NEWTON):
        level, gradient = line(np.concatenate([z[None], z + DELTA * rest, z - DELTA * rest]))
        if not np.isfinite(level).all() or not np.isfinite(gradient).all():
            return None
        slopes = (gradient[1:dim] - gradient[dim:])[:, 1:] / (2 * DELTA)
        values, vectors = np.linalg.eigh(-0.5 * (slopes + slopes.T))
        definite = bool(values.min() > FLOOR)
        values = np.maximum(np.abs(values), FLOOR)
        step = vectors @ ((vectors.T @ gradient[0, 1:]) / values)
        decrement = 0.5 * float(gradient[0, 1:] @ step)
        if decrement < SMALL and definite:
            log_mass = float(level[0]) - 0.5 * float(np.log(values).sum())
            return Point(z, (vectors * values) @ vectors.T, log_mass)
        tried = z + SHRINK[:, None] * np.concatenate([[0.0], step])
        found = line(tried)[0]
        if not found.max() > level[0]:
            return None
        z = tried[int(np.argmax(found))]
    return None


def _bumps(line: _Line, points: list[Point]) -> list[Bump]:
    """A Gaussian at each point: its conditional one, and the spacing along the ridge."""
    found: list[Bump] = []
    z = np.array([p.z for p in points])
    tangents: Any = np.gradient(z, axis=0)
    for point, tangent in zip(points, tangents, strict=True):
        dim = len(tangent)
        factor = np.zeros((dim, dim))
        factor[:, 0] = tangent
        factor[1:, 1:] = np.linalg.cholesky(np.linalg.inv(point.curvature))
        found.append(Bump(line.centre + line.root @ point.z, line.root @ factor, point.log_mass))
    return found
