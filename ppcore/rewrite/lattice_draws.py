"""Independent draws from a density that is known on a lattice."""

from __future__ import annotations

import itertools
import weakref
from dataclasses import dataclass

import numpy as np

from ppcore.rewrite.cells import encoded, find, look_up, unique
from ppcore.rewrite.quadrature import Evaluate, Lattice

AUDITED = 256  # proposals of each round whose density is evaluated whatever the bounds say
TRIED = 1.001, 1.2  # between which the largest ratio is put until a larger one is met
RARE = 1e-5  # mass of the cubes whose larger ratios are left to be met


def draw(evaluate: Evaluate, lattice: Lattice, rng: np.random.Generator, n: int) -> np.ndarray:
    """``n`` independent draws: float[n, d].

    Proposals come from the multilinear interpolant q of the density on the lattice and are
    accepted with probability γ(x) / (M q(x)). Bounds floor ≤ γ / q ≤ M are taken from what halving
    the spacing did (:class:`_Bounds`), so that γ is evaluated only where the uniform number lies
    between floor and M (Marsaglia's squeeze), and at ``AUDITED`` proposals anyway: whenever a value
    breaks a bound, all starts again with a higher M, or without a floor. The draws are exact as far
    as the bounds hold, which rests on the lattice being fine enough and not on a proof.

    Parameters
    ----------
    evaluate : callable
        log γ: float[m, d] -> float[m].
    lattice : Lattice
        Of :func:`~ppcore.rewrite.quadrature.integrate`.
    rng : numpy.random.Generator
    n : int

    Source: Devroye, "Non-Uniform Random Variate Generation" (1986), section II.3.4.
    """
    dim = lattice.cells.shape[1]
    top = lattice.log_density.max()
    weights, density = lattice.weights, np.exp(lattice.log_density - top)
    keys, table = encoded(lattice.cells)
    corners = np.array(list(itertools.product((0, 1), repeat=dim)))
    bounds, kept = _bounds(lattice), np.zeros((0, dim))
    floors, bound = np.exp(bounds.floor), bounds.bound
    while len(kept) < n:
        size = int(1.05 * (n - len(kept)) * bound) + 32
        node = rng.choice(len(weights), size, p=weights)
        z = lattice.cells[node] + rng.uniform(size=(size, dim)) - rng.uniform(size=(size, dim))
        low = np.floor(z).astype(int)
        near = low[:, None] + corners
        share = np.where(corners == 1, (z - low)[:, None], 1 - (z - low)[:, None]).prod(-1)
        q = (share * look_up(keys, table, density, near)).sum(-1)
        x = lattice.centre + (lattice.spacing * z) @ lattice.factor.T
        floor = look_up(bounds.codes, bounds.order, floors, low // 2)
        height = rng.uniform(size=size) * bound
        accepted = height <= floor
        asked = ~accepted
        asked[:AUDITED] = True
        ratio = np.exp(evaluate(x[asked]) - top) / np.maximum(q[asked], 1e-300)
        if ratio.max(initial=0.0) > bound:
            bound, kept = 1.05 * float(ratio.max()), np.zeros((0, dim))
            continue
        if (ratio < floor[asked]).any():
            floors, kept = np.zeros_like(floors), np.zeros((0, dim))
            continue
        accepted[asked] = height[asked] < ratio
        kept = np.concatenate([kept, x[accepted]])
    return kept[:n]


@dataclass(frozen=True, eq=False)
class _Bounds:
    """Of γ / q, where q interpolates γ between the points of a lattice with spacing h.

    The interpolant on every other point errs by log r at the points between, which are known. Its
    error falls with the square of the spacing: to a quarter of log r on the lattice itself, of
    which half of log r is allowed.

    Attributes
    ----------
    codes, order : int[cubes]
        The cubes of edge 2h, as :func:`~ppcore.rewrite.cells.encoded` has them, in the order of
        ``floor``.
    floor : float[cubes]
        log of the least γ / q in each; −∞ where a point of it is missing.
    bound : float
        The largest γ / q but for cubes of mass ``RARE``.
    """

    codes: np.ndarray
    order: np.ndarray
    floor: np.ndarray
    bound: float


_known: weakref.WeakKeyDictionary[Lattice, _Bounds] = weakref.WeakKeyDictionary()


def _bounds(lattice: Lattice) -> _Bounds:
    if lattice not in _known:
        _known[lattice] = _bounds_of(lattice)
    return _known[lattice]


def _bounds_of(lattice: Lattice) -> _Bounds:
    cells, dim = lattice.cells, lattice.cells.shape[1]
    codes, order = encoded(cells)
    density = np.exp(lattice.log_density - lattice.log_density.max())
    cubes = unique(cells // 2)
    ends = np.array(list(itertools.product((0, 2), repeat=dim)))
    found = find(codes, order, 2 * cubes[:, None] + ends)
    corner = np.where(found >= 0, density[np.maximum(found, 0)], 0.0)
    low, high, whole = np.zeros(len(cubes)), np.zeros(len(cubes)), (found >= 0).all(1)
    for point in itertools.product((0, 1, 2), repeat=dim):
        at = find(codes, order, 2 * cubes + np.array(point))
        weight = np.where(ends == 2, np.array(point) / 2, 1 - np.array(point) / 2).prod(-1)
        whole &= at >= 0
        with np.errstate(divide="ignore", invalid="ignore"):
            r = np.log(density[np.maximum(at, 0)] / (corner @ weight))
        r = np.where(whole & np.isfinite(r), r, 0.0)
        low, high = np.minimum(low, r), np.maximum(high, r)
    mass = corner.sum(1)
    falling = np.argsort(-high)
    rare = np.cumsum(mass[falling]) < RARE * mass.sum()
    bound = float(np.exp(0.5 * high[falling][~rare].max(initial=0.0)))
    codes, order = encoded(cubes)
    return _Bounds(codes, order, np.where(whole, 0.5 * low, -np.inf), np.clip(bound, *TRIED))
