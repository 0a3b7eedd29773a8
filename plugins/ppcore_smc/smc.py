"""Tempered sequential Monte Carlo: from the prior, or a Laplace approximation, to the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from ppcore.contract import Contract
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import PopulationError, SettingsError, did_you_mean
from ppcore.kernel import check_target
from ppcore.paths import Tempering
from ppcore.population import require_alive
from ppcore.stages.adaptive import MOST_STEPS, AdaptiveAnneal, Front
from ppcore.stages.lineage import relative_variance
from ppcore.stages.reference import Prior
from ppcore.tuning.noise import spawned
from ppcore_smc.autoregressive import Autoregressive
from ppcore_smc.hmc import HMC
from ppcore_smc.laplace import approach
from ppcore_smc.random_walk import RandomWalk

MOVES = {"hmc": HMC, "random_walk": RandomWalk, "autoregressive": Autoregressive}
REFERENCES = ("auto", "laplace", "prior")


@dataclass(frozen=True)
class SMC:
    """Reweight, resample and move N particles through γ_b = γ_0^{1−b} γ^b, b from 0 to 1.

    log Ẑ = Σ_k log Σ_i W_i γ_{b_k}(x_i)/γ_{b_{k−1}}(x_i). Temperatures keep a share ``ess`` of the
    effective sample size; moves are preconditioned by the population's covariance, and their step
    and number are tuned at each temperature. Because of this adaptation the evidence has a bias of
    O(1/N), which is not promised away.

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
    default_chains = 4
    default_draws = 1024

    def __post_init__(self) -> None:
        if isinstance(self.move, str) and self.move not in MOVES:
            raise SettingsError(
                f"move={self.move!r} is not known. {did_you_mean(self.move, MOVES)}"
            )
        if self.reference not in REFERENCES:
            hint = did_you_mean(str(self.reference), REFERENCES)
            raise SettingsError(f"reference={self.reference!r} is not known. {hint}")
        if self.by == "data" and self.reference == "laplace":
            raise SettingsError("by='data' starts from the prior: leave reference='auto'.")
        self._stage()

    def _stage(self) -> AdaptiveAnneal:
        kernel = MOVES[self.move]() if isinstance(self.move, str) else self.move
        return AdaptiveAnneal(
            kernel,
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
    def stage(self) -> AdaptiveAnneal:
        return self._stage()

    @property
    def contract(self) -> Contract:
        return self._stage().contract

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` particles for the target; see :class:`ppcore.engine.PopulationEngine`.

        Raises
        ------
        PopulationError
            If all weights vanish, one is NaN, or the temperature stops rising.
        UnsupportedError
            If a reference is needed and there is none.
        """
        stage, spent, notes, given = self._stage(), 0, (), None
        check_target(stage.move, target)
        k_reference, k_begin, k_run = spawned(key, 3)
        if self.reference == "laplace" or (self.reference == "auto" and not target.has_reference):
            found = approach(k_reference, target)
            target, spent, notes, given = found.target, found.gradients, found.notes, found.factor
        Prior().require(target)
        path = stage.path(Tempering(target))
        front, before = _begin(stage, k_begin, path, n), None
        rows: list[dict[str, float]] = []
        while float(front.beta) < 1.0:
            chosen = _choose(stage, k_run, path.gauge, front)
            before, front = front, _move(stage, k_run, path, front, chosen, given)
            rows.append(_row(front))
            _check(front, before)
            report(_progress(front))
        variance = None
        if self.waste_free == 1:
            variance = relative_variance(front.root, int(front.count))
        stats = {name: np.array([row[name] for row in rows]) for name in rows[0]} if rows else {}
        return Populated(
            front.population,
            spent + int(front.gradients),
            None if variance is None else variance**0.5,
            stats,
            (*notes, f"{len(rows)} temperatures."),
        )


@partial(jax.jit, static_argnames=("stage", "n"))
def _begin(stage: AdaptiveAnneal, key: Any, path: Any, n: int) -> Front:
    return stage.begin(path, Prior().draw(key, path.target, n))


@partial(jax.jit, static_argnames=("stage",))
def _choose(stage: AdaptiveAnneal, key: Any, gauge: Any, front: Front) -> Any:
    # A program of its own, without the model, so that JAX's disk cache serves it to all models.
    return stage.choose(key, gauge, front)


@partial(jax.jit, static_argnames=("stage",))
def _move(
    stage: AdaptiveAnneal, key: Any, path: Any, front: Front, chosen: Any, given: Any
) -> Front:
    return stage.move_all(key, path, front, chosen, given)


def _row(front: Front) -> dict[str, float]:
    return {
        "temperature": float(front.beta),
        "ess": float(front.ess),
        "log_z": float(front.population.log_z),
        "acceptance_rate": float(front.acceptance),
        "step_size": float(np.exp(front.log_step)),
        "jump": float(front.jump),
        "moves": float(front.moves),
    }


def _progress(front: Front) -> Progress:
    fields = {
        "temperature": float(front.beta),
        "log_z": float(front.population.log_z),
        "acceptance": float(front.acceptance),
    }
    return Progress("tempering", round(100 * float(front.beta)), 100, fields, unit="% of the way")


def _check(front: Front, before: Front) -> None:
    """Raise if the population died in the last step, with the one before it."""
    try:
        require_alive(front.population, "tempering", float(front.beta))
    except PopulationError as error:
        raise PopulationError(
            str(error), before.population, error.stage, error.temperature
        ) from None
    if int(front.count) >= MOST_STEPS:
        raise PopulationError(
            f"After {MOST_STEPS} temperatures the inverse temperature is {float(front.beta):.3g}: "
            "each step kills most particles. Use more particles (draws=...), a smaller ess, or a "
            "prior that is less vague.",
            front.population,
            "tempering",
            float(front.beta),
        )
