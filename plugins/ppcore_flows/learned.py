"""Training and weighing as one stage that can be traced: what ``ppcore check`` weighs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Density, importance
from ppcore.paths import Between
from ppcore.population import Population
from ppcore_flows.density import weigh
from ppcore_flows.flow import guarded
from ppcore_flows.linear import Whiten
from ppcore_flows.losses import reverse_kl
from ppcore_flows.training import descend, started

REFERENCE_DRAWS = 64


@dataclass(frozen=True)
class Learned:
    """From the reference to the target by a density that is trained on the way: w = γ/q.

    As the engines do it, but for the search of modes, which runs on the host: training begins at
    the moments of 64 draws of the source, and the population is drawn afresh from what it leaves,
    guarded by a wide Student-t. Proper for any number of steps, none included.

    Parameters
    ----------
    engine : object
        ``engine.around(key, axes)`` is its density before training, about an affine map
        (:class:`ppcore_flows.linear.Whiten`).
    steps, batch : int
        Of training by reverse KL.
    rate : float
        Of Adam.
    share : float
        Of draws from the Student-t.
    """

    engine: Any
    steps: int = 20
    batch: int = 8
    rate: float = 3e-2
    share: float = 0.2

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        """As many weighted particles as in ``population``, which is otherwise not used."""
        k_source, k_begin, k_train, k_guard, k_draw = random.split(key, 5)
        x = source.sample_reference(k_source, REFERENCE_DRAWS)
        middle, dim = jnp.mean(x, axis=0), x.shape[1]
        covariance = (x - middle).T @ (x - middle) / REFERENCE_DRAWS
        covariance = covariance + 1e-6 * jnp.trace(covariance) / dim * jnp.eye(dim, dtype=x.dtype)
        flow = self.engine.around(k_begin, Whiten(middle, jnp.linalg.cholesky(covariance)))
        if self.steps:
            at = (jnp.arange(self.steps) + 0.5) / self.steps
            betas, rates = jnp.minimum(1.0, 2 * at), self.rate * (1.0 - 0.9 * at)
            plan = (betas.astype(x.dtype), rates.astype(x.dtype), 0)
            law, state = Between(flow, target), started(flow)
            flow, _, _ = descend(reverse_kl, self.batch, True, k_train, flow, state, law, plan)
        proposal = guarded(k_guard, jax.lax.stop_gradient(flow), self.share)
        return weigh(k_draw, proposal, target, population.size)
