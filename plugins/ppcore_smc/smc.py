"""Tempered sequential Monte Carlo: from the prior, or a Laplace approximation, to the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Report
from ppcore.errors import SettingsError
from ppcore.kernel import check_target
from ppcore.paths import Tempering
from ppcore.stages.adaptive import AdaptiveAnneal, Chosen, Front
from ppcore.stages.anneal import Anneal
from ppcore.stages.base import Stage
from ppcore.stages.lineage import relative_variance
from ppcore.stages.resampling import Resample
from ppcore.tuning.noise import spawned
from ppcore_smc.choices import CHECKED, check_reference, grounded, kernel_of, unit_parameters
from ppcore_smc.temper import Level, See, retrace, temper


@dataclass(frozen=True)
class SMC:
    """Reweight, resample and move N particles through γ_b = γ_0^{1−b} γ^b, b from 0 to 1.

    log Ẑ = Σ_k log Σ_i W_i γ_{b_k}(x_i)/γ_{b_{k−1}}(x_i). Temperatures keep a share ``ess`` of the
    effective sample size; moves are preconditioned by the population's covariance, and their step
    and number are tuned at each temperature. Because of this adaptation the evidence has a bias of
    O(1/N); with a ``pilot`` it has none.

    Parameters
    ----------
    move : str or Kernel
        "hmc", "random_walk", "autoregressive" (independence, relaxed), or any kernel with
        ``parameters``.
    ess : float
        Share of the effective sample size that each temperature keeps.
    reference : "prior", "laplace" or "auto"
        γ_0: the prior; or a Gaussian at the mode, from which the way is short where the posterior
        is near to Gaussian, and whose covariance then preconditions the moves. "auto" is the
        prior where it is proper.
    by : "temperature" or "data"
        Temper the likelihood, or take in the data one by one.
    waste_free : int
        Above 1: chains of that many states, all of which are kept.
    scheme : str
        "systematic", "stratified", "residual", "multinomial" or "ssp".
    least, most : int
        Bounds on the transitions at each temperature.
    enough : float
        Jump of the slowest coordinate (1 for independent draws) that ends the moves.
    length : float
        Length of HMC's trajectories in whitened time.
    metric : "auto", "dense" or "diagonal"
    pilot : bool
        Run twice, the first time to find temperatures, scales, steps and numbers of moves. The
        second run, of fresh particles, changes none of them, so that E[Ẑ] = Z for any N; only it
        is returned. Twice the gradients; the same compiled program.

    Source: Del Moral, Doucet & Jasra 2006, doi:10.1111/j.1467-9868.2006.00553.x; Buchholz, Chopin
    & Jacob 2021, arXiv:1808.07730; Dau & Chopin 2022, arXiv:2011.02328 (waste-free).

    >>> SMC().contract
    ProperlyWeighted(unbiased_evidence=False)
    """

    move: Any = "hmc"
    ess: float = 0.5
    reference: str = "auto"
    by: str = "temperature"
    waste_free: int = 1
    scheme: str = "systematic"
    least: int = 1
    most: int = 20
    enough: float = 0.7
    length: float = 1.5707963
    metric: str = "auto"
    pilot: bool = False
    default_chains = 4
    default_draws = 1024

    def __post_init__(self) -> None:
        check_reference(self.reference)
        if self.by == "data" and self.reference == "laplace":
            raise SettingsError("by='data' starts from the prior: leave reference='auto'.")
        self._stage()

    def _stage(self) -> AdaptiveAnneal:
        return AdaptiveAnneal(
            kernel_of(self.move),
            self.ess,
            self.scheme,
            self.least,
            self.most,
            self.enough,
            self.waste_free,
            self.length,
            self.metric,
            self.by,
        )

    @property
    def stage(self) -> Stage:
        """What a finite target can be enumerated with: with a pilot, a schedule that is fixed."""
        stage = self._stage()
        if not self.pilot:
            return stage
        kernel, rule = stage.move, Resample(self.scheme)
        return Anneal(CHECKED, kernel, unit_parameters(kernel), resample=rule, by=self.by)

    @property
    def contract(self) -> Contract:
        """Unbiased evidence only with a pilot."""
        return ProperlyWeighted() if self.pilot else self._stage().contract

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` particles for the target; see :class:`ppcore.engine.PopulationEngine`.

        Raises
        ------
        PopulationError
            If all weights vanish, one is NaN, or the temperature stops rising.
        UnsupportedError
            If a reference is needed and there is none.
        """
        stage = self._stage()
        check_target(stage.move, target)
        k_reference, k_run, k_again = spawned(key, 3)
        ground = grounded(self.reference, k_reference, target)
        path, given = stage.path(Tempering(ground.target)), ground.preconditioner
        levels: list[Level] = []
        front, rows = temper(stage, k_run, path, n, given, report, _keep(stage, levels))
        gradients = ground.gradients + int(front.gradients)
        if self.pilot:
            front, rows = retrace(stage, k_again, path, n, given, levels, report)
            gradients += int(front.gradients)
        noisy = int(front.count) if self.scheme == "multinomial" else 0
        variance = None
        if self.waste_free == 1:
            variance = relative_variance(front.root, noisy)
        stats = {name: np.array([row[name] for row in rows]) for name in rows[0]}
        return Populated(
            front.population,
            gradients,
            None if variance is None else variance**0.5,
            stats,
            (*ground.notes, f"{len(rows)} temperatures.", *_undefined(rows)),
        )


def _keep(stage: AdaptiveAnneal, levels: list[Level]) -> See:
    """Note down what another run needs to do the same."""

    def see(front: Front, chosen: Chosen) -> None:
        # Waste-free chains have their length; only the moves that find the step are counted.
        moves = int(front.moves) if stage.waste_free == 1 else int(stage.bounds.most)
        levels.append(Level(front.beta, chosen.about, front.log_step, moves))

    return see


def _undefined(rows: list[dict[str, float]]) -> list[str]:
    worst = int(max(row["undefined"] for row in rows))
    if not worst:
        return []
    return [
        f"The log likelihood is NaN at up to {worst} particles at once; they count as impossible. "
        "Where that is not meant, bound the priors of what the likelihood is undefined for."
    ]
