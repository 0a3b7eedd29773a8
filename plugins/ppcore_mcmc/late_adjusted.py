"""Unadjusted first, adjusted late: chains rush to the bulk without a test, then draw with one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from ppcore.contract import Invariant
from ppcore.engine import Report, Warm
from ppcore.settings import check_between, check_count, check_metric
from ppcore.tuning.metric import RANK
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.lockstep import Chains, Lockstep
from ppcore_mcmc.mams import Bounce, warmed

CALM = 3.0
ROUNDS = 2


class Late(Chains):
    """The chains of a warm-up that take every finite proposal until their level has settled.

    The level is log γ averaged over a round. It has settled when its mean over chains differs by
    less than ``CALM`` standard errors from the round before, ``ROUNDS`` times in a row.
    """

    adjusted = False
    calm = 0
    level: np.ndarray | None = None

    def tuning(self, precondition: Preconditioner, step: float, length: float) -> Any:
        tuned = super().tuning(precondition, step, length)
        return replace(tuned, adjusted=np.bool_(self.adjusted))

    def advance(
        self, precondition: Preconditioner, step: float, length: float, n: int
    ) -> dict[str, np.ndarray]:
        rows = super().advance(precondition, step, length, n)
        level, before = rows["log_density"].mean(0), self.level
        if before is not None and not self.adjusted:
            spread = np.sqrt((level.var() + before.var()) / max(1, self.chains - 1))
            still = abs(level.mean() - before.mean()) <= CALM * spread
            self.calm = self.calm + 1 if still else 0
            self.adjusted = self.calm >= ROUNDS
        self.level = level
        return rows


@dataclass(frozen=True)
class LateAdjusted(Lockstep):
    """Microcanonical chains that warm up without a Metropolis test and draw with it.

    Far from the bulk, tests reject and hold chains back; there the trajectories of ``mams`` are
    always accepted, with the step size that their energy errors call for. The test is switched on
    once log γ, averaged over chains, has stopped rising, and stays on for the rest of warm-up and
    for all draws: what is drawn is reversible with respect to γ, exactly as with ``mams``. Meant
    for very many chains and few draws of each.

    Parameters
    ----------
    warmup_draws : int
        Draws per chain to adapt with, from scattered starts; half as many from a Laplace start.
    max_warmup_draws : int
        Adaptation goes on until the chains have settled, up to here.
    target_accept : float
        Mean acceptance probability to tune ε for, in (0, 1).
    length, learn_length, metric, rank
        As for ``mams``.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Robnik & Seljak 2026, arXiv:2601.16696 (the schedule; there the unadjusted phase picks
    its step size from an estimate of the bias).

    >>> LateAdjusted().default_chains
    256
    """

    warmup_draws: int = 128
    max_warmup_draws: int = 1280
    target_accept: float = 0.9
    length: float = 1.5707963
    learn_length: bool = True
    metric: str = "auto"
    rank: int = RANK
    contract: Invariant = field(default=Invariant(reversible=True), init=False)
    method: ClassVar[Bounce] = Bounce()
    default_chains: int = field(default=256, init=False)
    default_draws: int = field(default=100, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 16)
        check_count("max_warmup_draws", self.max_warmup_draws, self.warmup_draws)
        check_between("target_accept", self.target_accept, 0, 1)
        check_between("length", self.length, 0, 1000)
        check_metric(self.metric, self.rank)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts, step size, length and preconditioner for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        return warmed(self, Late, key, target, chains, report)
