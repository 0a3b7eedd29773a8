"""Stochastic normalizing flows: maps and Langevin steps in turn, trained as one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Report
from ppcore.errors import SettingsError, did_you_mean
from ppcore.settings import check_between, check_count
from ppcore.stages import Stage
from ppcore.tuning.noise import spawned
from ppcore_flows.craft import Untrained, finished, shaken, untrained
from ppcore_flows.density import standard_error
from ppcore_flows.flow_mcmc import local_engine
from ppcore_flows.stochastic import StochasticFlow, check_threshold
from ppcore_flows.stochastic_losses import Course, path_chi_square, path_kl
from ppcore_flows.stochastic_start import Begun, Shape, begin, check_reference, unsought
from ppcore_flows.training import Training, require_smooth, train

LOSSES = {"chi_square": path_chi_square, "kl": path_kl}
TWICE = 3
"""Evaluations that a gradient differentiated again counts for: the two, and what is between."""


@dataclass(frozen=True)
class SNF:
    """K layers, each a map and m Langevin steps without a test; w is the weight of the path.

    log w = log γ(x_K) − log γ_0(x_0) + Σ_k [log|det ∂T_k| + Σ ½(|z|² − |z′|²)], z the noise of a
    step and z′ the noise that would lead back. Maps, step sizes and temperatures are trained
    together on the effective sample size of such paths, or on KL(F ‖ B); then frozen, and fresh
    paths are weighed, so that E[Ẑ] = Z however the training went. Langevin steps let mass flow
    where a bijection alone would have to tear it apart.

    Parameters
    ----------
    map, layers, blocks, width, reference, pilot, batch, rate
        As for :class:`ppcore_flows.craft.Craft`.
    stir : int
        m.
    step : float
        First √(2h), in units of the step that the pilot's moves took at each temperature.
    loss : "chi_square" or "kl"
        log(N/ESS), which covers all that the paths reach, or KL(F ‖ B) = log Z − E[log w], which
        prefers one mode well done.
    steps : int
        Of Adam; 0 for no training.
    threshold : float
        In the run that counts, resample between layers where ESS ≤ threshold · N; 0 for never, as
        in training.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is unknown or out of range.

    Source: Wu, Köhler & Noé 2020, arXiv:2002.06707.

    >>> SNF().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    map: str = "auto"
    layers: int = 8
    blocks: int = 2
    width: int = 16
    stir: int = 3
    step: float = 0.5
    loss: str = "chi_square"
    steps: int = 300
    batch: int = 128
    rate: float = 1e-2
    threshold: float = 0.0
    reference: str = "auto"
    pilot: int = 512
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        for name in ("layers", "blocks", "width", "stir"):
            check_count(name, getattr(self, name), 1)
        check_count("pilot", self.pilot, 16)
        check_count("steps", self.steps, 0)
        check_between("step", self.step, 0, 1e6)
        if self.loss not in LOSSES:
            hint = did_you_mean(str(self.loss), LOSSES)
            raise SettingsError(f"loss={self.loss!r} is not known. {hint}")
        check_threshold(self.threshold)
        check_reference(self.reference)
        _ = self.shape, self.training

    @property
    def shape(self) -> Shape:
        """Of its maps."""
        return Shape(self.map, self.layers, self.blocks, self.width)

    @property
    def training(self) -> Training:
        """How it is trained."""
        return Training(max(1, self.steps), self.batch, self.rate, 0.0)

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    @property
    def stage(self) -> Stage:
        """What runs when all is frozen, with layers that no training has seen."""
        return Untrained(self)

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted paths' ends; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient or reference,
        and :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        require_smooth(target, "snf")
        k_begin, k_maps, k_train, k_run = spawned(key, 4)
        kernel = local_engine("hmc").kernel
        begun = begin(k_begin, target, self.reference, kernel, self.layers, self.pilot, report)
        stage = self.beginning(k_maps, begun)
        parts = (stage.maps, stage.log_steps, stage.rises)
        course, cost = Course(begun.target, stage), self.batch * self.cost(TWICE)
        made = untrained(parts)
        if self.steps:
            made = train(k_train, parts, course, LOSSES[self.loss], self.training, report, cost)
        maps, log_steps, rises = made.density
        stage = replace(stage, maps=maps, log_steps=log_steps, rises=rises)
        error = standard_error if self.threshold == 0 else None
        return finished(k_run, stage, begun, made, n, self.cost(1), error)

    def cost(self, times: int) -> int:
        """Evaluations of γ for one path, a gradient counting ``times``."""
        return self.layers * (2 + (self.stir + 1) * times)

    def beginning(self, key: Any, begun: Begun) -> StochasticFlow:
        """The stage before training: maps that are nearly the identity."""
        maps = self.shape.framed(key, begun.mean, begun.scale)
        rises = jnp.asarray(np.log(np.maximum(np.diff(begun.betas), 1e-300)))
        log_steps = jnp.asarray(begun.log_steps + np.log(self.step), rises.dtype)
        scales = jax.tree.map(jnp.asarray, begun.preconditioner)
        return StochasticFlow(maps, scales, log_steps, rises, self.stir, self.threshold)

    def blank(self, dim: int) -> StochasticFlow:
        """Layers for R^dim that are far from the identity and from any target."""
        dtype = np.dtype(jnp.result_type(float))
        betas = np.linspace(0.0, 1.0, self.layers + 1).astype(dtype)
        stage = self.beginning(jax.random.key(0), unsought(dim, betas, 0.0))
        return replace(stage, maps=shaken(stage.maps))
