"""Annealed flow transport: the map of one temperature after the other, each trained to the end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.engine import Report
from ppcore.paths import Tempering, follow
from ppcore.population import Population, require_alive
from ppcore.stages import Prior
from ppcore.tuning.noise import spawned
from ppcore_flows.craft import LEARNING, Craft
from ppcore_flows.stochastic import FlowAnneal, resampling
from ppcore_flows.stochastic_losses import Leg, leg_kl
from ppcore_flows.stochastic_start import Begun
from ppcore_flows.training import Trained, train


@dataclass(frozen=True)
class AFT(Craft):
    """As :class:`ppcore_flows.craft.Craft`, each map trained on one population before the next.

    For k = 1, …, K: T_k descends KL(T_k# γ_{b_{k−1}} ‖ γ_{b_k}) in ``sweeps`` steps on batches of
    the ``pilot`` particles that have arrived; they then go through it, are weighed, resampled and
    moved. Cheaper than sweeps, and each map sees one set of particles only. The run that counts
    uses fresh ones. One compiled program serves every temperature.

    Source: Arbel, Matthews & Doucet 2021, arXiv:2102.07501.

    >>> AFT().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    def trained(self, key: Any, stage: FlowAnneal, begun: Begun, report: Report) -> Trained:
        """The maps, stacked, by one training at each temperature."""
        k_start, *keys = spawned(key, 1 + 2 * self.layers)
        population = _drawn(k_start, begun.target, self.pilot)
        path, betas = Tempering(begun.target), jnp.asarray(begun.betas)
        made: list[Trained] = []
        for k in range(self.layers):
            leg = Leg(path.at(betas[k]), path.at(betas[k + 1]), population)
            first = jax.tree.map(lambda v, k=k: v[k], (stage.maps, stage.moves))
            cost = LEARNING * self.batch
            made.append(train(keys[2 * k], first[0], leg, leg_kl, self.training, report, cost))
            given = (made[-1].density, first[1])
            population = _carry(keys[2 * k + 1], stage, path, betas[k : k + 2], population, given)
            require_alive(population, "training", float(begun.betas[k + 1]))
        spent = sum(one.evaluations for one in made) + round(self.pilot * self.cost(begun))
        return Trained(
            jax.tree.map(lambda *v: jnp.stack(v), *(one.density for one in made)),
            np.concatenate([one.losses for one in made]),
            np.concatenate([one.spreads for one in made]),
            spent,
            tuple(note for one in made for note in one.notes),
        )


@partial(jax.jit, static_argnames="n")
def _drawn(key: Any, target: Any, n: int) -> Population:
    return Prior().draw(key, target, n)


@jax.jit
def _carry(
    key: Any, stage: FlowAnneal, path: Any, ends: Any, population: Population, given: Any
) -> Population:
    rule = resampling(stage.threshold)
    one = jax.tree.map(lambda v: v[None], given)
    return follow(key, path, ends, stage.transition, population, rule, one, True)
