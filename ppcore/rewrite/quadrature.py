"""A density of at most three variables, integrated on a lattice that follows it.

In coordinates x = centre + L z that the curvature at the mode suggests, the trapezoidal rule
h^d |L| Σ γ(centre + L h k) converges faster than any power of h for smooth densities that fall off
on all sides. The lattice grows from the mode until the density is negligible, and is halved until
the integral no longer moves; that last change is the stated error. Source: Trefethen & Weideman,
"The exponentially convergent trapezoidal rule" (2014), doi:10.1137/130932132.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ppcore.errors import PPCoreError
from ppcore.rewrite.cells import SPREAD, code_of, encoded, find, unique

Evaluate = Callable[[np.ndarray], np.ndarray]
DEPTH = {1: 34.0, 2: 34.0, 3: 25.0}  # nats below the mode at which a point no longer counts
MOST = 600_000  # lattice points
ROUNDS = 500  # layers that the lattice grows by
WIDEST = 1e30  # scale at which a density counts as level
STEPS = 2.0 ** np.arange(-10, 9)  # of the search along each axis
AT_MOST = 3
WORST = 1e-3  # change of log ∫ γ at the last halving above which nothing is returned


class NoQuadrature(PPCoreError):
    """The density cannot be integrated this way; the message says why and what to do."""


@dataclass(frozen=True, eq=False)
class Lattice:
    """The density on the points x = centre + factor (h k), k integer.

    Attributes
    ----------
    centre, factor : float[d], float[d, d]
    spacing : float
        h.
    cells : int[m, d]
        k, sorted lexicographically.
    log_density : float[m]
    log_z : float
        log ∫ γ.
    error : float
        By how much halving the spacing moved log_z.
    evaluations : int
    """

    centre: np.ndarray
    factor: np.ndarray
    spacing: float
    cells: np.ndarray
    log_density: np.ndarray
    log_z: float
    error: float
    evaluations: int

    @property
    def points(self) -> np.ndarray:
        """float[m, d]."""
        return self.centre + (self.spacing * self.cells) @ self.factor.T

    @property
    def weights(self) -> np.ndarray:
        """Probabilities: float[m], summing to one."""
        w = np.exp(self.log_density - self.log_density.max())
        return w / w.sum()


def integrate(evaluate: Evaluate, dim: int, tolerance: float = 1e-6) -> Lattice:
    """The lattice of a density whose log is ``evaluate``: float[n, d] -> float[n].

    The spacing is halved until that moves log ∫ γ by ``tolerance`` at most; the last lattice is
    then usually right to far more digits.

    Raises :class:`NoQuadrature` if no finite value is found, the density does not fall off within
    the largest lattice, or its integral still moves by more than ``WORST`` there.

    >>> lattice = integrate(lambda x: -0.5 * (x**2).sum(-1), 1)
    >>> bool(abs(lattice.log_z - 0.5 * np.log(2 * np.pi)) < 1e-12)
    True
    """
    if not 1 <= dim <= AT_MOST:
        raise NoQuadrature(
            f"{dim} parameters remain; quadrature takes one to {AT_MOST}. Use a sampling engine."
        )
    counter = _Counter(evaluate)
    seeds, values = _scan(counter, dim)
    centre, factor = _settle(counter, seeds[np.argmax(values)])
    top = max(values.max(), counter(centre[None])[0])
    others = seeds[values > top - DEPTH[dim]]
    start = np.linalg.solve(factor, (others - centre).T).T
    start = start[np.abs(start).max(1) < SPREAD / 4]
    spacing = 1.0
    cells = np.unique(np.concatenate([np.zeros((1, dim), int), np.rint(start).astype(int)]), axis=0)
    log_density = counter(centre + (spacing * cells) @ factor.T)
    cells, log_density = _grow(counter, centre, factor, spacing, cells, log_density)
    volume = np.linalg.slogdet(factor)[1]
    log_z = float(_log_sum(log_density) + dim * np.log(spacing) + volume)
    error = np.inf
    while error > tolerance and len(cells) * 2**dim <= MOST:
        spacing /= 2
        kept = cells[log_density > log_density.max() - DEPTH[dim]]
        corners = np.array(list(itertools.product((-1, 0, 1), repeat=dim)))
        finer = unique(2 * kept[:, None] + corners)
        cells, log_density = _refined(counter, centre, factor, spacing, finer, cells, log_density)
        cells, log_density = _grow(counter, centre, factor, spacing, cells, log_density)
        before, log_z = log_z, float(_log_sum(log_density) + dim * np.log(spacing) + volume)
        error = abs(log_z - before)
    if error > WORST:
        raise NoQuadrature(
            f"With {len(cells)} points the integral still moves by {error:.1e}. The density is too "
            "long or too narrow for a lattice: use a sampling engine."
        )
    return Lattice(centre, factor, spacing, cells, log_density, log_z, error, counter.n)


class _Counter:
    """The log density, −∞ where it overflows, and how often it was evaluated."""

    def __init__(self, evaluate: Evaluate):
        self.evaluate, self.n = evaluate, 0

    def __call__(self, x: np.ndarray) -> np.ndarray:
        self.n += len(x)
        value = np.asarray(self.evaluate(x), float)
        return np.where(np.isnan(value) | (value == np.inf), -np.inf, value)


def _scan(counter: _Counter, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Points spread over the middle of the space, and their log densities."""
    side = {1: np.linspace(-16, 16, 129), 2: np.linspace(-12, 12, 17), 3: np.linspace(-9, 9, 9)}
    points = np.array(list(itertools.product(side[dim], repeat=dim)))
    values = counter(points)
    if not np.isfinite(values).any():
        raise NoQuadrature(
            "The log density is not finite at any point near the origin of the unconstrained "
            "space. Check that the data lie in the support of the likelihood."
        )
    return points, values


def _settle(counter: _Counter, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mode, and L with L Lᵀ near the inverse of the curvature there.

    Steps of all lengths along the axes of the last L, then Newton's step from second differences
    at a distance where the density has fallen by about half a nat.
    """
    dim = len(x)
    factor = np.eye(dim)
    value = float(counter(x[None])[0])
    for _ in range(60):
        steps = np.concatenate([STEPS, -STEPS])
        moves = (steps[:, None, None] * np.eye(dim)).reshape(-1, dim)
        tried = counter(x + moves @ factor.T)
        best = int(np.argmax(tried))
        gain = tried[best] - value
        if gain > 0.05:
            x, value = x + factor @ moves[best], float(tried[best])
            if np.abs(moves[best]).max() == STEPS[-1]:
                factor = 64.0 * factor
            continue
        fallen = (value - tried).reshape(len(steps), dim)
        half = np.abs(np.where(np.isfinite(fallen), fallen, 1e9) - 0.5)
        scale = np.abs(steps[np.argmin(half, axis=0)])
        x, turned, moved = _newton(counter, x, factor * scale)
        value = float(counter(x[None])[0])
        change = np.abs(np.linalg.solve(factor, turned) - np.eye(dim)).max()
        factor = turned
        if not np.abs(factor).max() < WIDEST:
            raise NoQuadrature(
                "The density is level along a line: the posterior is improper. Check for flat "
                "priors that the data do not settle."
            )
        if change < 0.3 and moved < 0.3:
            break
    return x, factor


def _newton(
    counter: _Counter, x: np.ndarray, factor: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """One Newton step in the coordinates of ``factor``: the point, the new factor, how far."""
    dim = len(x)
    unit = np.eye(dim)
    pairs = [(i, j) for i in range(dim) for j in range(i)]
    moves = [np.zeros(dim), *unit, *-unit]
    for i, j in pairs:
        moves += [unit[i] + unit[j], -unit[i] - unit[j], unit[i] - unit[j], unit[j] - unit[i]]
    f = counter(x + np.array(moves) @ factor.T)
    if not np.isfinite(f).all():
        return x, factor, 0.0
    gradient = 0.5 * (f[1 : dim + 1] - f[dim + 1 : 2 * dim + 1])
    hessian = np.diag(f[1 : dim + 1] + f[dim + 1 : 2 * dim + 1] - 2 * f[0])
    for k, (i, j) in enumerate(pairs):
        a, b, c, d = f[2 * dim + 1 + 4 * k : 2 * dim + 5 + 4 * k]
        hessian[i, j] = hessian[j, i] = 0.25 * (a + b - c - d)
    values, vectors = np.linalg.eigh(-hessian)
    values = np.clip(np.abs(values), 1e-3, 1e3)
    step = vectors @ ((vectors.T @ gradient) / values)
    step *= min(1.0, 3.0 / max(np.abs(step).max(), 1e-12))
    turned = factor @ (vectors / np.sqrt(values))
    turned = np.linalg.cholesky(turned @ turned.T)
    there = x + factor @ step
    if counter(there[None])[0] < f[0]:
        return x, turned, 0.0
    return there, turned, float(np.linalg.norm(np.linalg.solve(turned, there - x)))


def _grow(
    counter: _Counter,
    centre: np.ndarray,
    factor: np.ndarray,
    h: float,
    cells: np.ndarray,
    values: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """The connected region around ``cells`` where the density counts, and a layer around it."""
    dim = cells.shape[1]
    around = np.array([c for c in itertools.product((-1, 0, 1), repeat=dim) if any(c)])
    front, front_values = cells, values
    for _ in range(ROUNDS):
        top = values.max()
        alive = front[front_values > top - DEPTH[dim]]
        if not len(alive):
            return _sorted(cells, values)
        near = unique(alive[:, None] + around)
        keys, table = encoded(cells)
        new = near[find(keys, table, near) < 0]
        if len(cells) + len(new) > MOST:
            break
        if not len(new):
            return _sorted(cells, values)
        front, front_values = new, counter(centre + (h * new) @ factor.T)
        cells = np.concatenate([cells, front])
        values = np.concatenate([values, front_values])
    raise NoQuadrature(
        f"After {len(cells)} points the density has not fallen off: the posterior is improper or "
        "has very long tails. Check for flat priors that the data do not settle, or use a sampling "
        "engine."
    )


def _refined(
    counter: _Counter,
    centre: np.ndarray,
    factor: np.ndarray,
    h: float,
    finer: np.ndarray,
    cells: np.ndarray,
    log_density: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Values on a lattice of half the spacing; those on the old one are known."""
    keys, table = encoded(2 * cells)
    at = find(keys, table, finer)
    values = np.where(at >= 0, log_density[np.maximum(at, 0)], -np.inf)
    new = at < 0
    values[new] = counter(centre + (h * finer[new]) @ factor.T)
    return finer, values


def _sorted(cells: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.argsort(code_of(cells))
    return cells[order], values[order]


def _log_sum(values: np.ndarray) -> float:
    top = values.max()
    return float(top + np.log(np.sum(np.exp(values - top))))
