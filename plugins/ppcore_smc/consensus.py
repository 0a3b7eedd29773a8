"""Consensus Monte Carlo: draws of the shards, averaged with the precisions of their laws.

    x_i = (Σ_c P_c)⁻¹ Σ_c P_c x_i^c,    P_c = Cov(f_c)⁻¹.

Exact if every f_c is Gaussian, and in the limit of many data in every shard; otherwise it has a
bias that no setting removes. The baseline that :mod:`ppcore_smc.fusion` corrects.

Source: Scott, Blocker, Bonassi, Chipman, George & McCulloch (2016),
doi:10.1080/17509881.2016.1142191.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ppcore.contract import Biased, Contract
from ppcore.engine import Populated, Report
from ppcore.population import Population
from ppcore.settings import check_count
from ppcore_smc.shards import draw_shards, shards_of


@dataclass(frozen=True)
class Consensus:
    """Equally weighted averages of draws of ``shards`` sub-posteriors.

    The evidence is that of Gaussians with the shards' moments, Ẑ = Π_c Z_c ∫ Π_c N(x; m_c, S_c) dx,
    and has no error of its own.

    Parameters
    ----------
    shards : int
        C.
    """

    shards: int = 4
    contract: ClassVar[Contract] = Biased(order=0, in_="shards")
    stage: ClassVar[None] = None
    default_chains = 4
    default_draws = 1024

    def __post_init__(self) -> None:
        check_count("shards", self.shards, 1)

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` if the data cannot be split.
        """
        found = draw_shards(key, shards_of(target, self.shards), self.shards, n, report)
        mean, cov = moments(found.x)
        x, log_c = averaged(found.x, mean, cov)
        log_z = jnp.asarray(found.log_z.sum() + log_c, found.x.dtype)
        population = Population(jnp.asarray(x), jnp.zeros(n, found.x.dtype), log_z)
        note = f"Averages of draws of {self.shards} shards; exact for Gaussian shards only."
        return Populated(population, found.gradients, None, {}, (note,))


def moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means float[C, d] and covariances float[C, d, d] of draws float[C, N, d]."""
    mean = x.mean(axis=1)
    off = x - mean[:, None]
    cov = np.einsum("cni,cnj->cij", off, off) / (x.shape[1] - 1)
    ridge = 1e-9 * np.einsum("cii->ci", cov)[:, :, None] * np.eye(x.shape[2])
    return mean, cov + ridge


def averaged(x: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> tuple[np.ndarray, float]:
    """``(consensus draws float[N, d], log ∫ Π_c N(x; m_c, S_c) dx)``.

    >>> x = np.random.default_rng(0).normal(size=(2, 4000, 1))
    >>> bool(abs(averaged(x, *moments(x))[0].var() - 0.5) < 0.05)
    True
    """
    precision = np.linalg.inv(cov)
    total = precision.sum(axis=0)
    drawn = np.linalg.solve(total, np.einsum("cij,cnj->in", precision, x)).T
    weighted = np.einsum("cij,cj->ci", precision, mean)
    joint = np.linalg.solve(total, weighted.sum(axis=0))
    count, d = mean.shape
    log_c = -0.5 * (count - 1) * d * np.log(2 * np.pi)
    log_c += 0.5 * np.linalg.slogdet(precision)[1].sum() - 0.5 * np.linalg.slogdet(total)[1]
    log_c += 0.5 * joint @ weighted.sum(axis=0) - 0.5 * np.einsum("ci,ci->", mean, weighted)
    return drawn, float(log_c)
