"""Tempered SMC from a mixture at every mode that many climbs find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ppcore.contract import Contract
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import UnsupportedError
from ppcore.kernel import check_target
from ppcore.paths import Between, Tempering
from ppcore.settings import check_between, check_count
from ppcore.stages.adaptive import AdaptiveAnneal
from ppcore.stages.base import Stage
from ppcore.stages.lineage import relative_variance
from ppcore.tuning.noise import spawned
from ppcore_smc.choices import kernel_of
from ppcore_smc.modes import DEGREES, Modes, mixture, search, with_tails
from ppcore_smc.temper import temper

PROBES = 512


@dataclass(frozen=True)
class ModeSMC:
    """SMC from q = Σ_k a_k q_k at the modes to γ, along q^{1−b} γ^b.

    For modes that lie so far apart, in so many dimensions, that no path from the prior keeps all of
    them alive. Climbs from a wide box go on until every mode has been reached four times; each gets
    a law with its curvature and the tails that suit the target, and SMC corrects what they miss.
    Where Good's estimate of the share of starts that lead to unknown modes stays above ``unseen``,
    the run is refused: such a mixture would leave them out, and no weight would tell. Bias of
    O(1/N), as for ``smc``.

    Parameters
    ----------
    climbs : int
        Most climbs, in rounds of 128.
    unseen : float
        Largest share of starts that may lead to modes not found.
    most_modes : int
        The best by Laplace evidence are kept.
    move, ess, most, enough
        See :class:`ppcore_smc.smc.SMC`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is unknown or out of range.

    Source: Good 1953, doi:10.1093/biomet/40.3-4.237; Del Moral, Doucet & Jasra 2006,
    doi:10.1111/j.1467-9868.2006.00553.x.

    >>> ModeSMC().contract
    ProperlyWeighted(unbiased_evidence=False)
    """

    climbs: int = 2048
    unseen: float = 0.02
    most_modes: int = 256
    move: Any = "hmc"
    ess: float = 0.5
    most: int = 20
    enough: float = 0.7
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        check_count("climbs", self.climbs, 1)
        check_count("most_modes", self.most_modes, 1)
        check_between("unseen", self.unseen, 0, 1)
        _ = self._stage

    @property
    def _stage(self) -> AdaptiveAnneal:
        kernel = kernel_of(self.move)
        return AdaptiveAnneal(kernel, ess=self.ess, most=self.most, enough=self.enough)

    @property
    def stage(self) -> Stage:
        """The same from any reference."""
        return self._stage

    @property
    def contract(self) -> Contract:
        return self._stage.contract

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` particles for the target; see :class:`ppcore.engine.PopulationEngine`.

        Raises
        ------
        UnsupportedError
            Without a gradient, without a mode, or where too many modes remain unseen.
        StartError
            If the log density is finite at no start.
        PopulationError
            If all weights vanish, one is NaN, or the temperature stops rising.
        """
        stage = self._stage
        if not getattr(target, "has_gradient", True):
            raise UnsupportedError(
                f"mode_smc climbs along the gradient of the log density, and "
                f"{type(target).__name__} has none. Use 'smc' with move='random_walk'."
            )
        check_target(stage.move, target)
        k_search, k_tails, k_run = spawned(key, 3)
        found = search(k_search, target, self.climbs)
        report(Progress("climbing", found.climbs, found.climbs, unit="climbs"))
        self._require_known(found)
        law, spreads = with_tails(k_tails, mixture(found, target, self.most_modes), PROBES)
        path = Tempering(Between(law, target))
        front, rows = temper(stage, k_run, path, n, None, report)
        variance = relative_variance(front.root, 0)
        stats = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        spent = found.gradients + PROBES * len(DEGREES) + int(front.gradients)
        notes = (
            f"{found.climbs} climbs found {len(found.modes)} modes, {int((found.seen == 1).sum())} "
            f"of them once; log weights at them vary by {np.nanmin(spreads):.2g} nats with "
            f"{float(law.degrees):g} degrees of freedom.",
            f"{len(rows)} temperatures.",
        )
        error = None if variance is None else variance**0.5
        return Populated(front.population, spent, error, stats, notes)

    def _require_known(self, found: Modes) -> None:
        if found.unseen > self.unseen:
            raise UnsupportedError(
                f"{found.climbs} climbs found {len(found.modes)} modes, "
                f"{int((found.seen == 1).sum())} of them only once: about {found.unseen:.0%} of "
                f"further climbs would find new ones, more than unseen={self.unseen:g} allows, and "
                f"a mixture at these would miss them. Use more climbs (climbs={4 * self.climbs}), "
                "or 'smc', which needs no list of modes."
            )
