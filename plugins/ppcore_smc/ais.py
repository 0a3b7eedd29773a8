"""Annealed importance sampling, on a schedule that a pilot run found and that is then frozen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError
from ppcore.kernel import check_target, step_rules
from ppcore.paths import Reversal, Tempering, follow
from ppcore.population import Population, require_alive
from ppcore.settings import check_count
from ppcore.stages.adaptive import AdaptiveAnneal, Chosen, Front
from ppcore.stages.anneal import Anneal
from ppcore.stages.reference import Prior
from ppcore.stages.resampling import Resample
from ppcore.tuning.noise import spawned
from ppcore_smc.choices import CHECKED, check_reference, grounded, kernel_of, unit_parameters
from ppcore_smc.temper import temper

PILOT_ESS = 0.5


@dataclass(frozen=True)
class AIS:
    """log w = Σ_k log γ_{b_k}(x_{k−1})/γ_{b_{k−1}}(x_{k−1}), x_k moved from x_{k−1} for γ_{b_k}.

    A pilot population, thrown away, finds the schedule, the scales and the steps; the run itself
    changes none of them, so that E[Ẑ] = Z for any number of particles and E[w f] = ∫ f γ.

    Parameters
    ----------
    temperatures : int
        K; the variance of log w falls like 1/K.
    move : str or Kernel
        "hmc", "random_walk", "autoregressive", or a kernel with ``parameters``.
    steps : int
        Transitions at each temperature.
    resample : str or None
        A scheme, to resample where the effective size falls below half: SMC on a fixed schedule.
    schedule : tuple of float, optional
        b_1 < … < b_K = 1, in place of the pilot's; the pilot then finds scales and steps only.
    reference : "prior", "laplace" or "auto"
    pilot : int
        Particles of the pilot.

    Source: Neal 2001, arXiv:physics/9803008; Jarzynski 1997, doi:10.1103/PhysRevLett.78.2690.

    >>> AIS().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    temperatures: int = 128
    move: Any = "hmc"
    steps: int = 1
    resample: str | None = None
    schedule: tuple[float, ...] | None = None
    reference: str = "auto"
    pilot: int = 256
    default_chains = 4
    default_draws = 1024

    def __post_init__(self) -> None:
        check_count("temperatures", self.temperatures, 1)
        check_count("steps", self.steps, 1)
        check_count("pilot", self.pilot, 16)
        check_reference(self.reference)
        if self.schedule is not None and (not self.schedule or self.schedule[-1] != 1.0):
            raise SettingsError(f"schedule={self.schedule!r} must end at 1, the posterior.")
        Anneal(self.schedule or (1.0,), self._kernel(), resample=self._rule())

    def _kernel(self) -> Any:
        return kernel_of(self.move)

    def _rule(self) -> Resample | None:
        return None if self.resample is None else Resample(self.resample, 0.5)

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    @property
    def stage(self) -> Anneal:
        """The frozen part, on a fixed schedule with fixed steps."""
        kernel = self._kernel()
        return Anneal(CHECKED, kernel, unit_parameters(kernel), self.steps, self._rule())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted particles; see :class:`ppcore.engine.PopulationEngine`.

        Raises
        ------
        PopulationError
            If all weights vanish or one is NaN, in the pilot or in the run.
        UnsupportedError
            If a reference is needed and there is none.
        """
        kernel = self._kernel()
        check_target(kernel, target)
        k_reference, k_pilot, k_run = spawned(key, 3)
        ground = grounded(self.reference, k_reference, target)
        path = Tempering(ground.target)
        pilot = AdaptiveAnneal(kernel, PILOT_ESS)
        seen: list[tuple[Front, Chosen]] = []
        front, _ = temper(
            pilot,
            k_pilot,
            path,
            self.pilot,
            ground.preconditioner,
            report,
            lambda front, chosen: seen.append((front, chosen)),
        )
        betas, params = self._frozen(kernel, seen, ground.preconditioner, pilot.length)
        population, spent = _anneal(kernel, self.steps, self._rule(), k_run, path, betas, params, n)
        require_alive(population, "annealing", 1.0)
        report(Progress("annealing", 100, 100, unit="% of the way"))
        size = float(population.ess)
        gradients = ground.gradients + int(front.gradients) + int(spent)
        error = (max(n / size - 1.0, 0.0) / n) ** 0.5 if self.resample is None else None
        note = f"{len(betas) - 1} temperatures, frozen after a pilot of {self.pilot} particles."
        return Populated(
            population, gradients, error, {"temperature": betas[1:]}, (*ground.notes, note)
        )

    def _frozen(
        self, kernel: Any, seen: list[tuple[Front, Chosen]], given: Any, length: float
    ) -> tuple[np.ndarray, Any]:
        """b_0 … b_K, evenly spaced between the pilot's, and parameters for each of them."""
        found = np.array([0.0, *(float(front.beta) for front, _ in seen)])
        if self.schedule is None:
            at = np.linspace(0.0, len(found) - 1.0, self.temperatures + 1)
            betas = np.interp(at, np.arange(len(found)), found)
        else:
            betas = np.array([0.0, *self.schedule])
        level = np.clip(np.searchsorted(found, betas[1:], side="left") - 1, 0, len(seen) - 1)
        rule = step_rules(kernel)
        tuned = bool(rule) and rule[0].target_accept is not None
        steps = [np.exp(np.asarray(f.log_step)) for f, _ in seen] if tuned else [1.0] * len(seen)
        made = [
            _parameters(kernel, chosen.about, given, step, length)
            for (_, chosen), step in zip(seen, steps, strict=True)
        ]
        return betas, jax.tree.map(lambda *leaves: np.stack(leaves)[level], *made)


def _parameters(kernel: Any, about: Any, given: Any, step: Any, length: float) -> Any:
    first = jax.tree.map(lambda leaf: np.asarray(leaf)[0], about)
    scale = first.preconditioner if given is None else given
    if hasattr(kernel, "parameters_about"):
        return kernel.parameters_about(first.mean, scale, step)
    return kernel.parameters(scale, step, np.asarray(length, np.asarray(step).dtype))


@partial(jax.jit, static_argnames=("kernel", "steps", "rule", "n"))
def _anneal(
    kernel: Any, steps: int, rule: Any, key: Any, path: Any, betas: Any, params: Any, n: int
) -> tuple[Population, Any]:
    """The run, and what it spent, from the numbers of steps that the parameters fix."""
    k_prior, k_run = jax.random.split(key)
    start = Prior().draw(k_prior, path.target, n)
    resample = None if rule is None else lambda k, p: rule.chosen(k, p)[0]
    transition = Reversal(kernel, steps)
    end = follow(k_run, path, betas, transition, start, resample, params, params_vary=True)
    each = getattr(params, "steps", None)
    spent = 2.0 * len(betas) if each is None else jnp.sum(each + 1.0)
    return end, n * (steps * spent + len(betas))
