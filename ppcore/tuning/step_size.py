"""Tune a step size from acceptance rates, between blocks, on the host."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

_NORMAL = NormalDist()


@dataclass(frozen=True)
class StepSize:
    """Log step size with the average that is kept in the end.

    Attributes
    ----------
    log_step : float
        log ε to use next.
    log_mean : float
        Average of log ε over rounds since the last :meth:`restart`, weighted toward late rounds.
    rounds : int
        Rounds since then.
    order : float
        p, where errors in log γ grow like ε^p: 2 for leapfrog, 1 for a random walk, 3 for the
        Langevin proposal (ε its standard deviation).
    """

    log_step: float
    log_mean: float = 0.0
    rounds: int = 0
    order: float = 2.0

    @property
    def now(self) -> float:
        return math.exp(self.log_step)

    @property
    def final(self) -> float:
        return math.exp(self.log_mean if self.rounds else self.log_step)

    def restart(self) -> StepSize:
        """Forget the average, because the metric has changed."""
        return replace(self, log_mean=self.log_step, rounds=0)

    def update(self, acceptance: float, target: float) -> StepSize:
        """The step size after a round with mean ``acceptance``.

        At stationarity the log acceptance ratio is about N(−½v, v) with √v ∝ ε^p and the
        acceptance is 2Φ(−½√v); inverting it gives the ε that reaches ``target`` at once:
        ε^p ← ε^p Φ⁻¹(target/2) / Φ⁻¹(acceptance/2). Steps are damped as rounds accumulate.

        Source: Beskos et al. 2013, arXiv:1001.4460; Roberts & Rosenthal 2001,
        doi:10.1214/ss/1015346320.
        """
        reached = min(max(acceptance, 1e-3), 0.999)
        ratio = _NORMAL.inv_cdf(target / 2) / _NORMAL.inv_cdf(reached / 2)
        gain = 1.0 / (1 + self.rounds) ** 0.5
        move = min(max(math.log(ratio) / self.order, -1.5), 1.0) * max(gain, 0.2)
        log_step = self.log_step + move
        weight = 1.0 / (1 + self.rounds) ** 0.6
        log_mean = (1 - weight) * self.log_mean + weight * log_step
        return replace(self, log_step=log_step, log_mean=log_mean, rounds=self.rounds + 1)


@dataclass(frozen=True)
class Steps:
    """Several step sizes, of the parts of a composed kernel, tuned side by side."""

    parts: tuple[StepSize, ...]

    @property
    def now(self) -> np.ndarray:
        return np.array([part.now for part in self.parts])

    @property
    def final(self) -> np.ndarray:
        return np.array([part.final for part in self.parts])

    def restart(self) -> Steps:
        """Forget the averages, because the metric has changed."""
        return Steps(tuple(part.restart() for part in self.parts))

    def update(self, acceptances: np.ndarray, targets: tuple[float | None, ...]) -> Steps:
        """The step sizes after a round; one with target None, or acceptance NaN, stays."""
        return Steps(
            tuple(
                part if target is None or np.isnan(reached) else part.update(reached, target)
                for part, reached, target in zip(self.parts, acceptances, targets, strict=True)
            )
        )
