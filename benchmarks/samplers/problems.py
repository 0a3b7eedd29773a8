"""The targets of the table, each with what to start from and what is true of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.scipy.stats import norm

from benchmarks.evidence import synthetic, with_data
from benchmarks.targets import brownian, curved, gaussian, lattice, mixtures, particles, wells
from ppcore.target import DensityTarget

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Modes:
    """A partition of the space into modes, or several partitions side by side.

    Attributes
    ----------
    member : callable
        float[N, d] -> bool[N, K]: to which modes a point belongs, one of each partition.
    share : float[K]
        The mass of each.
    """

    member: Callable[[np.ndarray], np.ndarray]
    share: np.ndarray


@dataclass(frozen=True)
class Also:
    """Another expectation with a known value: E f(x) = ``value``."""

    name: str
    f: Callable[[np.ndarray], np.ndarray]
    value: float


@dataclass(frozen=True)
class Problem:
    """One target.

    Attributes
    ----------
    make : callable
        The target, from its data file if it has one.
    start : str
        The reference that the target comes with, in words.
    log_z, known_to : float or None, float
        The truth, and the standard error of what is called the truth: 0 where it is exact.
    goal : float or None
        Largest error of the mean of log Ẑ that is asked for.
    draw : callable, optional
        Exact draws.
    modes : Modes, optional
    also : Also, optional
    file : str
    """

    make: Callable[..., DensityTarget]
    start: str
    log_z: float | None
    goal: float | None = None
    known_to: float = 0.0
    draw: Draw | None = None
    modes: Modes | None = None
    also: Also | None = None
    file: str = ""

    def target(self, folder: Path | None) -> DensityTarget | None:
        """The target, or None if its data are not there."""
        if not self.file:
            return self.make()
        if folder is None or not (folder / self.file).exists():
            return None
        return self.make(folder / self.file)


@dataclass(frozen=True)
class _Inner:
    """A log density whose data are one leaf among others."""

    log_density: Callable[[Any, Any], Any]

    def __call__(self, x: Any, data: Any) -> Any:
        return self.log_density(x, data["inner"])


def started(target: DensityTarget, width: float) -> DensityTarget:
    """``target`` with the reference N(0, width² I)."""
    return synthetic.from_gaussian(
        _Inner(target.log_density_fn), target.dim, width, inner=target.data
    )


def _log_cluster(x: Any, data: Any) -> Any:
    return norm.logpdf(x, data["mean"], data["width"]).sum()


def _draw_cluster(key: Any, data: Any) -> Any:
    z = jax.random.normal(key, data["mean"].shape, data["mean"].dtype)
    return data["mean"] + data["width"] * z


def cluster() -> DensityTarget:
    """lj13 from N(0, I/4) around an icosahedron with its middle, so that no two particles touch."""
    golden = (1 + 5**0.5) / 2
    signs = [(a, b) for a in (1.0, -1.0) for b in (golden, -golden)]
    corners = [np.roll([0.0, a, b], k) for k in range(3) for a, b in signs]
    places = np.concatenate([np.zeros((1, 3)), np.array(corners) / (1 + golden**2) ** 0.5])
    data = {"mean": places.ravel(), "width": np.float64(0.1)}
    return DensityTarget(particles.lj13, 39, data, _log_cluster, _draw_cluster)


def _nearest(components: Callable[..., np.ndarray], centres: np.ndarray) -> Modes:
    """Each point belongs to the component that most likely made it."""

    def member(x: np.ndarray) -> np.ndarray:
        return np.eye(len(centres), dtype=bool)[components(x, centres).argmax(1)]

    return Modes(member, np.full(len(centres), 1.0 / len(centres)))


def _signs(columns: slice) -> Modes:
    """All combinations of the signs of five columns, equal in mass."""

    def member(x: np.ndarray) -> np.ndarray:
        code = (x[:, columns] > 0) @ (2 ** np.arange(wells.FIRST))
        return np.eye(2**wells.FIRST, dtype=bool)[code]

    return Modes(member, np.full(2**wells.FIRST, 2.0**-wells.FIRST))


def _sides(x: np.ndarray) -> np.ndarray:
    """Right or left well, of each of the 16 pairs of many_well."""
    right = x[:, 0::2] > 0
    return np.concatenate([right, ~right], axis=1)


def _sign_of_sum(x: np.ndarray) -> np.ndarray:
    up = x.sum(1) > 0
    return np.stack([up, ~up], axis=1)


def _gaussians(count: int, dim: int, half: float, goal: float | None = None) -> Problem:
    centres = mixtures.uniform_centres(count, dim, half)
    return Problem(
        partial(synthetic.from_gaussian, synthetic.mixture, dim, 25.0, centres=centres, sd=1.0),
        "N(0, 25² I)",
        0.0,
        goal,
        draw=partial(mixtures.draw_gaussians, centres=centres, sd=1.0),
        modes=_nearest(mixtures.gaussian_components(1.0), centres),
    )


def _funnel(rng: np.random.Generator, n: int) -> np.ndarray:
    first = 3.0 * rng.standard_normal((n, 1))
    return np.concatenate([first, np.exp(first / 2) * rng.standard_normal((n, 9))], axis=1)


def _banana(rng: np.random.Generator, n: int) -> np.ndarray:
    first = 10.0 * rng.standard_normal(n)
    second = 0.03 * (first**2 - 100) + rng.standard_normal(n)
    return np.stack([first, second], axis=1)


def _rosenbrock(rng: np.random.Generator, n: int) -> np.ndarray:
    first = 1.0 + rng.standard_normal((n, curved.PAIRS))
    second = first**2 + curved.WIDTH**0.5 * rng.standard_normal(first.shape)
    return np.concatenate([first, second], axis=1)


def _ill_gaussian(rng: np.random.Generator, n: int) -> np.ndarray:
    target, _ = gaussian.ill_gaussian()
    factor = np.linalg.cholesky(np.linalg.inv(np.asarray(target.data)))
    return rng.standard_normal((n, gaussian.DIM)) @ factor.T


GRID = synthetic.grid9()
STUDENTS = mixtures.uniform_centres(10, 50, 10.0)
LOG_2PI = float(np.log(2 * np.pi))
SMALL = 0.5477

PROBLEMS = {
    "funnel": Problem(
        partial(synthetic.from_gaussian, synthetic.funnel, 10, 3.0),
        "N(0, 3² I)",
        0.0,
        0.02,
        draw=_funnel,
        also=Also("P(x₀ < −4)", lambda x: x[:, 0] < -4, 0.0912),
    ),
    "gmm9": Problem(
        partial(synthetic.from_gaussian, synthetic.mixture, 2, 5.0, centres=GRID, sd=SMALL),
        "N(0, 5² I)",
        0.0,
        0.02,
        draw=partial(mixtures.draw_gaussians, centres=GRID, sd=SMALL),
        modes=_nearest(mixtures.gaussian_components(SMALL), GRID),
    ),
    "gmm40-2": _gaussians(40, 2, 40.0),
    "gmm40-50": _gaussians(40, 50, 40.0, 0.5),
    "mos": Problem(
        partial(synthetic.from_gaussian, mixtures.student_mixture, 50, 6.0, centres=STUDENTS),
        "N(0, 6² I)",
        0.0,
        0.5,
        draw=partial(mixtures.draw_students, centres=STUDENTS),
        modes=_nearest(mixtures.student_components_of, STUDENTS),
    ),
    "many_well": Problem(
        partial(synthetic.from_gaussian, synthetic.many_well, 32, 2.0),
        "N(0, 2² I)",
        164.69568,
        0.03,
        draw=wells.draw_many_well,
        modes=Modes(_sides, np.repeat([wells.RIGHT_WELL, 1 - wells.RIGHT_WELL], 16)),
    ),
    "mw5": Problem(
        partial(synthetic.from_gaussian, synthetic.mw5, 5, 2.0),
        "N(0, 2² I)",
        -0.54106,
        draw=wells.draw_mw5,
        modes=_signs(slice(0, 5)),
    ),
    "mw50": Problem(
        partial(synthetic.from_gaussian, wells.mw50, 50, 2.0),
        "N(0, 2² I)",
        42.81724,
        draw=wells.draw_mw50,
        modes=_signs(slice(0, 5)),
    ),
    "dw4": Problem(
        partial(synthetic.from_gaussian, particles.dw4, 8, 3.0),
        "N(0, 3² I)",
        None,
        also=Also("mean energy", jax.vmap(particles.dw4_energy), -22.45),
    ),
    "lj13": Problem(
        cluster,
        "N(icosahedron, 0.1² I), one of many equal arrangements, so that log Ẑ says little",
        None,
        also=Also("mean energy", jax.vmap(particles.lj13_energy), -43.13),
    ),
    "phi4": Problem(
        partial(synthetic.from_gaussian, lattice.phi4, 64, 2.0, hopping=np.float64(0.3)),
        "N(0, 2² I)",
        None,
        modes=Modes(_sign_of_sum, np.full(2, 0.5)),
        also=Also("mean |φ|", lattice.magnetisation, 2.0870),
    ),
    "banana": Problem(
        partial(synthetic.from_gaussian, synthetic.banana, 2, 10.0),
        "N(0, 10² I)",
        0.0,
        draw=_banana,
        also=Also("E x₁²", lambda x: x[:, 1] ** 2, 19.0),
    ),
    "rosenbrock36": Problem(
        lambda: started(curved.rosenbrock36()[0], 4.0),
        "N(0, 4² I)",
        curved.PAIRS * (LOG_2PI + 0.5 * float(np.log(curved.WIDTH))),
        draw=_rosenbrock,
        also=Also("E b²", lambda x: (x[:, curved.PAIRS :] ** 2).mean(1), 10.1),
    ),
    "ill_gaussian": Problem(
        lambda: started(gaussian.ill_gaussian()[0], 10.0),
        "N(0, 10² I)",
        0.5 * gaussian.DIM * LOG_2PI,
        draw=_ill_gaussian,
    ),
    "brownian": Problem(brownian.brownian, "prior", brownian.LOG_EVIDENCE, 0.05),
    "sonar": Problem(with_data.regression, "prior", -108.39, 0.05, 0.01, file="sonar.csv"),
    "ionosphere": Problem(
        with_data.regression, "prior", -111.61, 0.05, 0.02, file="ionosphere.csv"
    ),
    "seeds": Problem(with_data.seeds, "prior, b = z/√τ", -73.41, None, 0.01, file="seeds.csv"),
    "lgcp": Problem(with_data.lgcp, "prior", 501.6, None, 0.1, file="finpines.csv"),
}
"""Name -> problem, in the order of the table."""

PROBLEMS["funnel-scales"] = replace(
    PROBLEMS["funnel"],
    make=synthetic.funnel_from_scales,
    start="x₀ ~ N(0, 3²), rest N(0, s² I), s = 2^U{−7…7}",
)
