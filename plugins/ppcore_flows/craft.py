"""Continual repeated annealed flow transport: one map a temperature, trained on SMC's particles."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import contract as rules
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Report
from ppcore.kernel import check_kernel
from ppcore.population import require_alive
from ppcore.settings import check_count
from ppcore.stages import Stage
from ppcore.tuning.noise import spawned
from ppcore_flows.flow_mcmc import local_engine
from ppcore_flows.stochastic import FlowAnneal, check_threshold, run
from ppcore_flows.stochastic_losses import Course, stepwise_kl
from ppcore_flows.stochastic_start import Begun, Shape, begin, check_reference, unsought
from ppcore_flows.training import Trained, Training, require_smooth, train

LENGTH = 1.5707963
WEIGHING, LEARNING = 2, 2
"""Evaluations of γ for one particle at one temperature: both ends of the map; and in its loss."""


@dataclass(frozen=True)
class Craft:
    """SMC with a trained map before each weighing, x ← T_k(x), frozen for the run that counts.

    log G_k = log γ_{b_k}(T_k(x)) − log γ_{b_{k−1}}(x) + log|det ∂T_k(x)|. In training a population
    runs through all temperatures again and again, and each T_k descends KL(T_k# γ_{b_{k−1}} ‖
    γ_{b_k}) as the particles that arrive there show it. Then fresh particles run with T_k fixed,
    so that E[Ẑ] = Z however the training went. All temperatures are one compiled program.
    Temperatures, scales and the step of the moves come from a pilot run of adaptive SMC.

    Parameters
    ----------
    map : str
        See :class:`ppcore_flows.stochastic_start.Shape`; "affine" is the cheapest that turns.
    layers : int
        K, temperatures.
    blocks, width : int
        Of one map.
    move : str or Kernel
        What leaves γ_{b_k} invariant: an engine that runs one kernel, or a kernel with
        ``parameters``.
    moves : int
        Transitions at each temperature.
    sweeps : int
        Runs through all temperatures in training, one step of Adam each; 0 for none.
    batch : int
        Particles of a sweep.
    rate : float
        Largest learning rate.
    threshold : float
        Resample where ESS ≤ threshold · N; 0 for never.
    reference : "auto", "prior" or "modes"
        γ_0; "modes" is a mixture of Gaussians where climbs end, "auto" the prior where it is
        proper.
    pilot : int
        Particles of the pilot run.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is unknown or out of range.
    ppcore.errors.CompositionError
        If ``move`` is no invariant kernel.

    Source: Matthews, Arbel, Rezende & Doucet 2022, arXiv:2201.13117; Arbel, Matthews & Doucet
    2021, arXiv:2102.07501.

    >>> Craft().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    map: str = "auto"
    layers: int = 8
    blocks: int = 2
    width: int = 16
    move: Any = "hmc"
    moves: int = 2
    sweeps: int = 200
    batch: int = 256
    rate: float = 1e-2
    threshold: float = 0.5
    reference: str = "auto"
    pilot: int = 512
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 2048

    def __post_init__(self) -> None:
        for name in ("layers", "blocks", "width", "moves"):
            check_count(name, getattr(self, name), 1)
        check_count("pilot", self.pilot, 16)
        check_count("sweeps", self.sweeps, 0)
        check_threshold(self.threshold)
        check_reference(self.reference)
        _ = self.shape, self.training
        check_kernel(self.kernel, type(self).__name__)

    @property
    def shape(self) -> Shape:
        """Of its maps."""
        return Shape(self.map, self.layers, self.blocks, self.width)

    @property
    def training(self) -> Training:
        """How it is trained."""
        return Training(max(1, self.sweeps), self.batch, self.rate, 0.0)

    @property
    def kernel(self) -> Any:
        """What moves the particles."""
        return local_engine(self.move).kernel if isinstance(self.move, str) else self.move

    @property
    def contract(self) -> Contract:
        return rules.stages(ProperlyWeighted(), self.kernel.contract)

    @property
    def stage(self) -> Stage:
        """What runs when all is frozen, with maps that no training has seen."""
        return Untrained(self)

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted particles; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient or reference,
        and :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        require_smooth(target, type(self).__name__.lower())
        k_begin, k_maps, k_train, k_run = spawned(key, 4)
        begun = begin(k_begin, target, self.reference, self.kernel, self.layers, self.pilot, report)
        stage = self.beginning(k_maps, begun)
        made = untrained(stage.maps)
        if self.sweeps:
            made = self.trained(k_train, stage, begun, report)
        return finished(k_run, replace(stage, maps=made.density), begun, made, n, self.cost(begun))

    def beginning(self, key: Any, begun: Begun) -> FlowAnneal:
        """The stage before training: maps that are nearly the identity."""
        maps = self.shape.framed(key, begun.mean, begun.scale)
        own = [
            self.kernel.parameters(
                jax.tree.map(lambda v, k=k: v[k], begun.preconditioner),
                jnp.exp(jnp.asarray(begun.log_steps[k])),
                jnp.asarray(LENGTH),
            )
            for k in range(self.layers)
        ]
        moves = jax.tree.map(lambda *v: jnp.stack([jnp.asarray(leaf) for leaf in v]), *own)
        betas = jnp.asarray(begun.betas)
        return FlowAnneal(betas, maps, moves, self.kernel, self.moves, self.threshold)

    def cost(self, begun: Begun) -> float:
        """Evaluations of γ for one particle of a run."""
        return float(WEIGHING * self.layers + self.moves * begun.costs.sum())

    def trained(self, key: Any, stage: FlowAnneal, begun: Begun, report: Report) -> Trained:
        """The maps, stacked, by sweeps through all temperatures."""
        cost = round(self.batch * (self.cost(begun) + LEARNING * self.layers))
        course = Course(begun.target, stage)
        return train(key, stage.maps, course, stepwise_kl, self.training, report, cost)

    def blank(self, dim: int) -> FlowAnneal:
        """Layers for R^dim that are far from the identity and from any target."""
        dtype = np.dtype(jnp.result_type(float))
        betas = np.linspace(0.0, 1.0, self.layers + 1).astype(dtype) ** 2
        stage = self.beginning(jax.random.key(0), unsought(dim, betas, float(np.log(0.3))))
        return replace(stage, maps=shaken(stage.maps))


def untrained(parts: Any) -> Trained:
    """What no training leaves of ``parts``."""
    return Trained(parts, np.zeros(0), np.zeros(0), 0)


@dataclass(frozen=True)
class Untrained(Stage):
    """The stage of an engine that trains, with arbitrary layers for whatever dimension comes."""

    engine: Any

    @property
    def start(self) -> float:  # type: ignore[override]
        return 0.0

    @property
    def end(self) -> float:  # type: ignore[override]
        return 1.0

    @property
    def contract(self) -> Contract:
        return self.engine.contract  # type: ignore[no-any-return]

    def along(self, key: Any, path: Any, at: Any, population: Any) -> Any:
        return self.engine.blank(int(population.x.shape[1])).along(key, path, at, population)


def shaken(maps: Any, size: float = 0.1) -> Any:
    """``maps`` with every trained array disturbed by a fixed pattern, frames left alone."""

    def disturbed(leaf: Any) -> Any:
        pattern = np.sin(np.arange(np.size(leaf)).reshape(np.shape(leaf)) * 2.399963)
        return leaf + jnp.asarray(size * pattern, leaf.dtype)

    return replace(maps, inner=jax.tree.map(disturbed, maps.inner))


def finished(
    key: Any,
    stage: Any,
    begun: Begun,
    made: Trained,
    n: int,
    cost: float,
    error: Any = None,
) -> Populated:
    """``n`` fresh particles through a stage that nothing changes any more.

    ``error`` gives the standard error of log Ẑ from the population, where one run can tell it.
    """
    population = run(key, stage, begun.target, n)
    require_alive(population, "the run with trained layers", 1.0)
    stats = {
        "loss": made.losses,
        "spread": made.spreads,
        "temperature": np.asarray(stage.betas)[1:],
    }
    spent = begun.gradients + made.evaluations + round(n * cost)
    notes = (*begun.notes, *made.notes)
    known = None if error is None else error(population)
    return Populated(population, spent, known, stats, notes)
