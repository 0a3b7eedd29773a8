"""The engine "particle_filter": evidence, filtered and smoothed laws of a model with one scan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.settings import check_between, check_count
from ppcore.stages.resampling import check_scheme
from ppcore.state_space import state_space
from ppcore_smc.auxiliary_filter import Auxiliary
from ppcore_smc.bootstrap_filter import Bootstrap
from ppcore_smc.guided_filter import Guided, check_guidable
from ppcore_smc.learned_proposal import Unlearned
from ppcore_smc.smoothing import FilterSettings, ParticleSolution
from ppcore_smc.theta_walk import check_choice

PROPOSALS = ("bootstrap", "guided", "learned")
SMOOTHING = ("auto", "backward", "trace")


@dataclass(frozen=True)
class ParticleFilter:
    """Draws of paths, and log Ẑ with its error, from independent runs of a particle filter.

    E[Ẑ Σ W f] = Z π(f) for every run. Random sites before the scan are drawn once per particle:
    fine for a first state, but a parameter that all steps read is thinned out by resampling, for
    which "particle_gibbs", "pmmh" and "smc2" are made.

    Parameters
    ----------
    particles : int
        N of each run.
    runs : int
        Independent runs, whose spread is the evidence's error.
    proposal : "bootstrap", "guided" or "learned"
        q: the transition; a Gaussian at the mode of transition × evidence; a mixture of experts
        fitted to pilot runs. The last two need continuous sites.
    auxiliary : bool
        Choose ancestors by how well they explain the next evidence. Needs continuous sites.
    resample : str
        "systematic", "stratified", "residual", "multinomial" or "ssp".
    threshold : float
        Resample where ESS ≤ threshold · N.
    smoothing : "auto", "backward" or "trace"
        How paths are drawn: by backward simulation (N densities for each path and step), by
        following ancestors, or the first where it is cheaper than quadratic in T.
    log_bound : float, optional
        log sup p(z_t | s_{t−1}) G_t: backward simulation by rejection.

    Source: Gordon, Salmond & Smith (1993); Pitt & Shephard (1999); Godsill, Doucet & West (2004).

    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def walk(n):
    ...     def step(x, _):
    ...         x = pp.sample("x", dist.Normal(x, 1))
    ...         pp.sample("y", dist.Normal(x, 1))
    ...         return x, None
    ...     pp.scan(step, pp.sample("x0", dist.Normal(0, 1)), length=n)
    >>> model = walk(4).observe(y=[0.1, 0.8, 1.1, 0.2])
    >>> fit = model.infer(ParticleFilter(particles=256, runs=4), draws=50, seed=1)
    >>> abs(fit.log_evidence.value - model.solve().log_evidence) < 0.5
    True
    >>> fit.draws("x").shape, fit.solution.filtered("x").mean.shape
    ((4, 50, 4), (4,))
    """

    particles: int = 1024
    runs: int = 8
    proposal: str = "bootstrap"
    auxiliary: bool = False
    resample: str = "systematic"
    threshold: float = 0.5
    smoothing: str = "auto"
    log_bound: float | None = None
    contract: ClassVar[Contract] = ProperlyWeighted()
    default_draws: ClassVar[int] = 250

    def __post_init__(self) -> None:
        check_count("particles", self.particles, 2)
        check_count("runs", self.runs, 1)
        check_scheme(self.resample)
        check_choice("proposal", self.proposal, PROPOSALS)
        check_choice("smoothing", self.smoothing, SMOOTHING)
        if self.threshold != 1:
            check_between("threshold", self.threshold, 0, 1)

    def solve(self, target: Any) -> ParticleSolution:
        """The filter of a model's target; it runs when draws are first asked for.

        Raises :class:`ppcore.errors.UnsupportedError` if the model is no single scan with its
        evidence in the steps, or if a step has discrete sites and the proposal needs a density.
        """
        space = state_space(target)
        backward = self.smoothing == "backward"
        if self.smoothing == "auto":
            backward = space.plan.memory is not None and all(space.shared(()))
        settings = FilterSettings(
            self.particles, self.runs, self.resample, self.threshold, backward, self.log_bound
        )
        made = proposal_of(self.proposal, space)
        if self.auxiliary:
            check_guidable(space)
            made = Auxiliary(made)
        return ParticleSolution("particle_filter", space, made, settings)


def proposal_of(name: str, space: Any) -> Any:
    """The proposal of that name (or how to learn it), if the model allows it."""
    if name == "bootstrap":
        return Bootstrap()
    check_guidable(space)
    return Guided() if name == "guided" else Unlearned()
