"""What layered flows make small: functions (parameters, key, course, batch) of :mod:`.training`.

A *course* is all that training leaves alone: the target, and the parts of a stage that are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.paths import Tempering, follow
from ppcore.population import Population
from ppcore.stages import Prior
from ppcore_flows.density import Flow
from ppcore_flows.losses import reverse_kl
from ppcore_flows.stochastic import carried, resampling


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Course:
    """A target and a stage on it, some arrays of which are trained."""

    target: Any
    stage: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Leg:
    """From γ_a, known by a weighted population, to γ_b."""

    source: Any
    target: Any
    population: Population


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Particles:
    """A weighted population for a law, in the place of a base that one draws from."""

    x: Any
    share: Any
    law: Any

    def strata(self, key: Any, n: int) -> tuple[Any, Any]:
        """``(x, W)``: all particles, whatever ``n``."""
        return self.x, self.share

    def log_prob(self, x: Any) -> Any:
        """log γ_a(x), not normalised; float[d] -> float[]."""
        return self.law.log_density(x)


def leg_kl(flow: Any, key: Any, leg: Leg, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """KL(T# γ_a ‖ γ_b) up to a constant, by its path gradient, on ``batch`` resampled particles.

    Where T carries γ_a to γ_b every particle's gradient is zero.

    Source: Arbel, Matthews & Doucet 2021, arXiv:2102.07501.
    """
    below = jnp.cumsum(leg.population.weights)
    u = random.uniform(key, (batch,), below.dtype) * below[-1]
    which = jnp.clip(jnp.searchsorted(below, u), 0, below.shape[0] - 1)
    base = Particles(leg.population.x[which], jnp.full(batch, 1.0 / batch), leg.source)
    return reverse_kl(Flow(base, flow), key, leg.target, batch)


def stepwise_kl(maps: Any, key: Any, course: Course, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """Σ_k KL(T_k# γ_{b_{k−1}} ‖ γ_{b_k}) on one population of ``batch`` that runs with the maps.

    Each map sees the particles that those before it, resampling and moves have left; no gradient
    goes from one temperature to another. The loss reported is −log Ẑ of that run, an upper bound
    of −log Z in the mean; the spread is the largest of the log increments.

    Source: Matthews, Arbel, Rezende & Doucet 2022, arXiv:2201.13117.
    """
    stage, path = course.stage, Tempering(course.target)
    k_start, k_run = random.split(key)
    rule, one = resampling(stage.threshold), jnp.zeros(1)

    def layer(k: Any, population: Population, at: Any) -> tuple[Population, tuple[Any, Any]]:
        a, b, flow, moves = at
        share = jax.lax.stop_gradient(population.weights)
        base = Particles(population.x, share, path.at(a))
        surrogate, (_, spread) = reverse_kl(Flow(base, flow), k, path.at(b), batch)
        given = jax.tree.map(lambda v: jnp.asarray(v)[None], jax.lax.stop_gradient((flow, moves)))
        betas = jnp.concatenate([one + a, one + b])
        after = follow(k, path, betas, stage.transition, population, rule, given, True)
        return jax.lax.stop_gradient(after), (surrogate, spread)

    start = Prior().draw(k_start, course.target, batch)
    layers = (stage.betas[:-1], stage.betas[1:], maps, stage.moves)
    count = stage.betas.shape[0] - 1
    end, (surrogates, spreads) = random.scan(layer, k_run, start, layers, count)
    return jnp.sum(surrogates), (-end.log_z, jnp.max(spreads))


def path_kl(parts: Any, key: Any, course: Course, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """KL(F ‖ B) − log Z = −E_F[log w] of whole paths, maps, steps and temperatures together.

    ``parts`` = (maps, log_steps, rises). Differentiates through every Langevin step. Seeks modes:
    it may give up rare large weights for many even ones. Paths of weight zero are left out.

    Source: Wu, Köhler & Noé 2020, arXiv:2002.06707.
    """
    _, mean, spread = _paths(parts, key, course, batch)
    return -mean, (-mean, spread)


def path_chi_square(
    parts: Any, key: Any, course: Course, batch: int
) -> tuple[Any, tuple[Any, Any]]:
    """log E_F[w²] − 2 log E_F[w] = log(N/ESS), as :func:`path_kl`: covers what it has reached.

    The loss reported is −E_F[log w] all the same, so that both can be compared.

    Source: Dieng et al. 2017, arXiv:1611.00328 (the divergence); Wu, Köhler & Noé 2020,
    arXiv:2002.06707 (the paths).
    """
    log_w, mean, spread = _paths(parts, key, course, batch)
    loss = jax.nn.logsumexp(2 * log_w) - 2 * jax.nn.logsumexp(log_w)
    return loss, (-mean, spread)


def _paths(parts: Any, key: Any, course: Course, batch: int) -> tuple[Any, Any, Any]:
    """log w of ``batch`` paths, and their mean and deviation where they are finite."""
    maps, log_steps, rises = parts
    stage = replace(course.stage, maps=maps, log_steps=log_steps, rises=rises, threshold=0.0)
    end = carried(key, stage, course.target, batch)
    # The population's weights are normalised at each layer; with log_z they are the paths' again.
    log_w = end.log_weight + end.log_z + jnp.log(batch)
    good = jnp.isfinite(log_w)
    mean = jnp.sum(jnp.where(good, log_w, 0.0)) / jnp.sum(good)
    return log_w, mean, jnp.std(jnp.where(good, log_w, mean))
