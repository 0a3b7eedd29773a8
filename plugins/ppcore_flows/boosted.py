"""Boosting: a mixture of Gaussians that grows where its weights are largest."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Progress, Report
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore_flows.bases import Mixture
from ppcore_flows.density import Flow, weighed
from ppcore_flows.flow import defended, drawn
from ppcore_flows.losses import reverse_kl
from ppcore_flows.start import Found, explore
from ppcore_flows.training import Trained, Training, require_smooth, train

PILOT = 2048
ABSENT, ENOUGH, NARROWER = -30.0, 0.95, 0.5
LEAST_SHARE = 0.02


@dataclass(frozen=True)
class Boosted:
    """x ~ Σ_k π_k N(m_k, L_k L_kᵀ), a part added at a time; w = γ/q, E[Ẑ] = Z.

    Begins with a Gaussian at every mode that climbs find. Each round weighs draws of the mixture,
    guarded by a wide Student-t, puts a new part where the largest weight is, with the share of the
    mass that the weights say is missing there, and trains all parts and shares together by reverse
    KL with path gradients, drawing equally from each. It ends with ``parts`` of them, or where the
    effective sample size is above 95 %.

    Parameters
    ----------
    parts : int
        Of the mixture, at most.
    steps, batch, rate
        Of each round; see :class:`ppcore_flows.training.Training`.
    defence : float
        Share of draws from a wide Student-t that keeps the weights bounded; 0 for none.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.

    Source: Guo, Wang, Fan, Broderick & Dunson 2016, arXiv:1611.05559; Miller, Foti & Adams 2017,
    arXiv:1611.06585.

    >>> Boosted(parts=4).contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    parts: int = 8
    steps: int = 300
    batch: int = 256
    rate: float = 2e-2
    defence: float = 0.05
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_count("parts", self.parts, 1)
        check_between("defence", self.defence, -1e-9, 1)
        _ = self.training

    @property
    def training(self) -> Training:
        """How the mixture of a round is trained."""
        return Training(self.steps, self.batch, self.rate, 0.0)

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient,
        :class:`ppcore.errors.StartError` if no start with a finite log density is found, and
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        require_smooth(target, "boosted")
        k_explore, k_guard, k_draw, *keys = spawned(key, 3 + 3 * self.parts)
        found = explore(k_explore, target)
        made, alive, spent = self.begin(found), min(len(found.means), self.parts), found.gradients
        notes = [*found.notes]
        losses: list[np.ndarray] = []
        spreads: list[np.ndarray] = []
        for i in range(self.parts):
            k_train, k_pilot, k_weigh = keys[3 * i : 3 * i + 3]
            fitted = train(k_train, made, target, reverse_kl, self.training, report, self._cost)
            made, spent = fitted.density, spent + fitted.evaluations + PILOT
            losses, spreads = [*losses, fitted.losses], [*spreads, fitted.spreads]
            proposal = defended(k_pilot, made, max(self.defence, LEAST_SHARE))
            pilot = weighed(k_weigh, proposal, target, PILOT)
            report(Progress("boosting", alive, self.parts, unit="parts"))
            notes += fitted.notes
            if alive == self.parts or fitted.notes or float(pilot.ess) > ENOUGH * PILOT:
                break
            made, alive = (
                grown(made, np.asarray(pilot.x), np.asarray(pilot.weights), alive),
                alive + 1,
            )
        notes.append(f"The mixture has {alive} of at most {self.parts} parts.")
        history = np.concatenate(losses), np.concatenate(spreads)
        done = Trained(made, *history, spent, tuple(notes))
        return drawn(k_draw, defended(k_guard, made, self.defence), done, target, n, report)

    @property
    def _cost(self) -> int:
        return self.parts * -(-self.batch // self.parts)

    def begin(self, found: Found) -> Flow:
        """The mixture found, in arrays that hold ``parts`` of them: one program for all rounds."""
        order = np.argsort(-found.log_weights)[: self.parts]
        found = replace(
            found,
            log_weights=found.log_weights[order],
            means=found.means[order],
            factors=found.factors[order],
        )
        dtype, dim = jnp.result_type(float), found.means.shape[1]
        own = found.whitened(dtype)
        more = self.parts - len(order)
        base = Mixture(
            jnp.concatenate([jax.nn.log_softmax(own.logits), jnp.full(more, ABSENT, dtype)]),
            jnp.concatenate([own.means, jnp.zeros((more, dim), dtype)]),
            jnp.concatenate([own.log_scales, jnp.zeros((more, dim), dtype)]),
            jnp.concatenate([own.below, jnp.zeros((more, dim, dim), dtype)]),
        )
        return Flow(base, found.whitening(dtype))


def grown(flow: Flow, x: np.ndarray, weights: np.ndarray, k: int) -> Flow:
    """Part ``k`` set at the point of largest weight, half as wide as the weighted points are.

    ``x``: float[N, d] and ``weights``: float[N], summing to one. Its share is what the largest
    hundredth of the weights has above its own share, within 2 % and 50 %.
    """
    base = flow.base
    u = np.asarray(jax.vmap(lambda v: flow.map.inverse(v)[0])(jnp.asarray(x)), float)
    middle = weights @ u
    scale = NARROWER * np.sqrt(weights @ (u - middle) ** 2 + 1e-12)
    top = np.sort(weights)[-max(1, len(weights) // 100) :].sum()
    share = float(np.clip(top - 0.01, LEAST_SHARE, 0.5))
    logits = np.array(jax.nn.log_softmax(base.logits), float)
    logits[k] = np.log(share / (1.0 - share))
    dtype = base.means.dtype
    made = Mixture(
        jnp.asarray(logits, dtype),
        base.means.at[k].set(jnp.asarray(u[np.argmax(weights)], dtype)),
        base.log_scales.at[k].set(jnp.asarray(np.log(scale), dtype)),
        base.below.at[k].set(0.0),
    )
    return Flow(made, flow.map)
