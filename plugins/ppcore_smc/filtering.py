"""The particle filter: propose, weigh, resample along a scan, with its whole history.

Particles (s_t^i, W_t^i) of step t come from those of step t − 1 by

    a_i ~ V ∝ W_{t−1} η_t,  z_t^i ~ q(· | s^{a_i}),  w_t^i = (W/V)^{a_i} p(z_t^i | s^{a_i}) G_t / q,

V = W and η = 1 unless a first stage looks ahead, and Ẑ = Π_t Σ_i w_t^i / N has E[Ẑ] = Z for any q
that covers p G. Bootstrap, guided and auxiliary filters differ in q and η only.

Source: Gordon, Salmond & Smith (1993), doi:10.1049/ip-f-2.1993.0015; Del Moral (2004).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.stages.resampling import SCHEMES
from ppcore.state_space import Moved, StateSpace
from ppcore_smc.ground import Beginning, Ground, begin, normalised

FLOOR = 12.0
"""Nats below the largest η that no first-stage weight falls."""


class Proposal(Protocol):
    """q and η: pure, traceable functions of one particle (its carry s_{t−1} and its root)."""

    def draw(
        self, key: Any, ground: Ground, carry: Any, root: Any, element: Any
    ) -> tuple[Moved, Any]:
        """The step with z_t ~ q, and log p G / q."""
        ...

    def weigh(
        self, ground: Ground, carry: Any, root: Any, element: Any, values: Any
    ) -> tuple[Moved, Any]:
        """The same at z_t = ``values``."""
        ...

    def look(self, ground: Ground, carry: Any, root: Any, element: Any) -> Any:
        """log η_t(s_{t−1}): float[]; a constant for filters without a first stage."""
        ...


class Cloud(NamedTuple):
    """N particles between two steps: s_t, their first ancestors, and log W_t (normalised)."""

    carry: Any
    root: Any
    log_weight: Any


class Step(NamedTuple):
    """One step's part of a history: particles, z_t, a_t, log p̂(y_t | past), resampled or not."""

    cloud: Cloud
    values: Any
    ancestors: Any
    increment: Any
    resampled: Any


class Filtered(NamedTuple):
    """A filter's history, in the order of the walk.

    Attributes
    ----------
    start : Beginning
        N particles before the first step.
    steps : Step
        T steps; leading axes T, then N.
    log_z : float[]
        log Ẑ.
    """

    start: Beginning
    steps: Step
    log_z: Any

    @property
    def last(self) -> Cloud:
        """The particles after the last step."""
        return jax.tree.map(lambda a: a[-1], self.steps.cloud)

    @property
    def ess(self) -> Any:
        """1 / Σ W_t²: float[T]."""
        return 1.0 / jnp.sum(jnp.exp(2.0 * self.steps.cloud.log_weight), axis=-1)


def run_filter(
    key: Any,
    space: StateSpace,
    given: Mapping[str, Any],
    n: int,
    proposal: Proposal,
    scheme: str = "systematic",
    threshold: float = 0.5,
) -> Filtered:
    """Filter with ``n`` particles; traceable. E[exp(log_z) Σ W f] = ∫ f γ given ``given``.

    Parameters
    ----------
    key : key, or script on finite models
    space : StateSpace
    given : {site: value}
        Sites before the scan that are held (the parameters, or none).
    n : int
    proposal : Proposal
    scheme : str
        How to resample.
    threshold : float
        Resample where ESS ≤ threshold · n; 1 is always.
    """
    k_start, k_walk = random.split(key)
    start = begin(k_start, space, given, n)
    first = Cloud(start.carry, jnp.arange(n), start.log_weight)

    def step(k: Any, cloud: Cloud, element: Any) -> tuple[Cloud, Step]:
        made = advance(k, start.ground, cloud, element, proposal, scheme, threshold)
        return made.cloud, made

    _, steps = random.scan(step, k_walk, first, start.ground.elements, space.length)
    return Filtered(start, steps, start.log_z + steps.increment.sum())


def advance(
    key: Any,
    ground: Ground,
    cloud: Cloud,
    element: Any,
    proposal: Proposal,
    scheme: str,
    threshold: float,
) -> Step:
    """One step of the filter."""
    k_resample, k_move = random.split(key)
    log_eta = jax.vmap(lambda c, r: proposal.look(ground, c, r, element))(cloud.carry, cloud.root)
    # A first stage may be blind to what is possible: it rules nothing out.
    log_eta = jnp.maximum(log_eta, log_eta.max() - FLOOR)
    index, log_base, done = select(k_resample, cloud.log_weight, log_eta, scheme, threshold)
    carry, root = jax.tree.map(lambda a: a[index], (cloud.carry, cloud.root))
    moved, log_g = random.each(
        lambda k, c, r: proposal.draw(k, ground, c, r, element), k_move, carry, root
    )
    log_weight, increment = normalised(log_base + log_g)
    return Step(Cloud(moved.carry, root, log_weight), moved.values, index, increment, done)


def select(
    key: Any, log_weight: Any, log_eta: Any, scheme: str, threshold: float
) -> tuple[Any, Any, Any]:
    """``(ancestors, log (W/V)/N at them, whether resampled)``; without resampling W itself."""
    n = log_weight.shape[0]
    log_v, total = normalised(log_weight + log_eta)
    v = jnp.exp(log_v)
    do = 1.0 / jnp.sum(v**2) <= threshold * n + 1e-9
    index = jnp.where(do, SCHEMES[scheme](key, v), jnp.arange(n))
    # Where every η vanishes the equal weights of ``normalised`` were drawn from.
    log_ratio = jnp.where(jnp.isneginf(total), log_weight - log_v, total - log_eta)
    log_base = jnp.where(do, log_ratio[index] - jnp.log(n), log_weight)
    return index, log_base, do


def traced(filtered: Filtered, last: Any) -> tuple[Any, Any]:
    """The path that ends in particle ``last``: int[], ``(start index, {site: [T, ...]})``.

    Following the ancestors back; drawing ``last`` from the final weights draws a path from the
    filter's own approximation of the smoothing law.
    """

    def back(index: Any, step: Step) -> tuple[Any, Any]:
        values = jax.tree.map(lambda a: a[index], step.values)
        return step.ancestors[index], values

    return jax.lax.scan(back, last, filtered.steps, reverse=True)
