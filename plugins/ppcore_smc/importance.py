"""Importance sampling: draws from the reference, weighed by what they miss of the target."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Progress, Report
from ppcore.population import Population, require_alive
from ppcore.stages.reference import Correct, Prior


@dataclass(frozen=True)
class Importance:
    """x_i ~ γ_0 (the prior), w_i = γ(x_i)/γ_0(x_i); log Ẑ = log mean w.

    Properly weighted, E[Ẑ] = Z, for any number of particles; useful where the posterior is not
    much narrower than the prior, and as a baseline.

    Source: Kloek & van Dijk 1978, doi:10.2307/1913641.

    >>> Importance().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    default_chains = 4
    default_draws = 4096

    @property
    def stage(self) -> Any:
        return Correct()

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` without a proper prior, and
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        Prior().require(target)
        population = _weigh(key, target, n)
        require_alive(population, "importance", 1.0)
        report(Progress("sampling", n, n, unit="particles"))
        return Populated(population, n, _error(population))


@partial(jax.jit, static_argnames="n")
def _weigh(key: Any, target: Any, n: int) -> Population:
    return (Prior() >> Correct())(key, target, n)


def _error(population: Population) -> float:
    """Relative standard deviation of the mean weight, √((N/ESS − 1)/N)."""
    n = population.size
    return float(max(n / population.ess - 1.0, 0.0) / n) ** 0.5
