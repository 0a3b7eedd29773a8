"""The engine behind every learned diffusion sampler: prepare, train, freeze, draw, weigh."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError, did_you_mean
from ppcore.population import require_alive
from ppcore.settings import check_count, check_metric
from ppcore.stages.lineage import relative_variance
from ppcore.tuning.noise import spawned
from ppcore_diffusion.drawing import drawn, islands
from ppcore_diffusion.prepare import begun, ground, require_smooth
from ppcore_diffusion.training import Training, train
from ppcore_diffusion.transitions import CMCD

REFERENCES = ("auto", "prior", "laplace")


@dataclass(frozen=True)
class Sampler:
    """x_0 ~ q_0, x_{k+1} ~ F_k(· | x_k), log w = Σ log G_k: a learned path, weighed exactly.

    With log G_k = log γ_{k+1}(x_{k+1}) − log γ_k(x_k) + log B_k(x_k | x_{k+1}) −
    log F_k(x_{k+1} | x_k) of :mod:`ppcore.paths`, E[Ẑ] = Z for any weights of the networks, before
    training as after. Everything learned is frozen before the draws that are returned.

    Parameters
    ----------
    steps : int
        K.
    iterations, batch, rate, replay, loss
        See :class:`ppcore_diffusion.training.Training`.
    width : int
        Of both hidden layers of a control.
    components : int
        Parts of the reference q_0, a mixture of Gaussians that is learned along; 0 chooses.
    reference : "auto", "prior" or "laplace"
        Where the pilot run starts that finds coordinates, q_0, temperatures and steps: the prior,
        or Gaussians at the modes that climbs find. "auto" is the prior, unless there is a single
        mode whose Gaussian holds up.
    metric : "auto", "dense", "diagonal" or "low_rank"
        Of the map x = m + F u in whose coordinates all this happens.
    rank : int
        Of a low-rank map.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.

    >>> Sampler().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    steps: int = 32
    iterations: int = 300
    batch: int = 128
    rate: float = 5e-3
    loss: str = "log_variance"
    replay: int = 0
    width: int = 32
    components: int = 0
    reference: str = "auto"
    metric: str = "auto"
    rank: int = 16
    kind: ClassVar[Any] = CMCD
    name: ClassVar[str] = "cmcd"
    segments: ClassVar[int] = 1
    threshold: ClassVar[float] = 0.0
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        for name in ("steps", "width"):
            check_count(name, getattr(self, name), 1)
        check_count("components", self.components, 0)
        if self.reference not in REFERENCES:
            hint = did_you_mean(str(self.reference), REFERENCES)
            raise SettingsError(f"reference={self.reference!r} is not known. {hint}")
        check_metric(self.metric, self.rank)
        if self.steps % self.plan.segments:
            raise SettingsError(
                f"steps={self.steps!r} must be a multiple of segments={self.plan.segments!r}."
            )

    @property
    def plan(self) -> Training:
        """How it is trained."""
        shape = (self.loss, self.iterations, self.batch, self.rate, self.replay)
        return Training(*shape, self.segments, self.threshold)

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises
        ------
        UnsupportedError
            For a target without gradient, or a reference that it does not have.
        StartError
            If no start with a finite log density and gradient is found.
        PopulationError
            If a pilot run does not arrive, or all weights vanish.
        """
        require_smooth(target, self.name)
        k_ground, k_begin, k_train, k_draw = spawned(key, 4)
        on = ground(
            k_ground, target, self.reference, self.metric, self.components, self.rank, report
        )
        weights, tried = begun(k_begin, self.kind, on, self.steps, self.width, n // islands(n))
        made = train(k_train, self.kind, self.plan, weights, on.frame, report)
        population, root = drawn(k_draw, self.kind, self.plan, made.weights, on.frame, n)
        require_alive(population, self.name, 1.0)
        report(Progress("sampling", n, n, unit="particles"))
        variance = relative_variance(root, 0, population.weights)
        return Populated(
            population,
            on.gradients + tried + made.evaluations + n * (self.steps + 1),
            None if variance is None else variance**0.5,
            {"loss": made.losses, "spread": made.spreads},
            (*on.notes, *made.notes),
        )
