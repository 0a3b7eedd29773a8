"""Conditional particle filters with ancestor sampling: a Markov kernel on whole paths.

Particle 0 is pinned to the path z*_{1:T}; at every step its ancestor is drawn anew,

    a_t^0 ~ W_{t−1}^i p(z*_{t:T}, y_{t:T} | s_{t−1}^i),

the others as in the filter with multinomial resampling, and at the end a path is drawn from W_T.
The kernel leaves p(s₀, z_{1:T} | y, θ) invariant for any number of particles, two included.
Run again and again with θ held it is a smoother.

Source: Lindsten, Jordan & Schön (2014), arXiv:1401.0604; Andrieu, Doucet & Holenstein (2010),
doi:10.1111/j.1467-9868.2009.00736.x.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.state_space import StateSpace, Values
from ppcore_smc.filtering import Cloud, Filtered, Proposal, Step, traced
from ppcore_smc.ground import Beginning, Ground, begin, normalised


def smooth_step(
    key: Any,
    space: StateSpace,
    given: Mapping[str, Any],
    path: Values,
    n: int,
    proposal: Proposal,
) -> Values:
    """One transition of the path: {site: value, stacked in the walk's order} -> the same.

    Parameters
    ----------
    key : key, or script on finite models
    space : StateSpace
    given : {site: value}
        The parameters.
    path : {site: value}
        Sites before the scan that are not given, and the stacked sites of the steps.
    n : int
        Particles, the pinned one included; at least 2.
    proposal : Proposal
        Its ``look`` is not used: the kernel resamples by W.
    """
    k_filter, k_last = random.split(key)
    filtered = pinned_filter(k_filter, space, given, path, n, proposal)
    last = random.categorical(k_last, filtered.last.log_weight)
    first, values = traced(filtered, last)
    before = jax.tree.map(lambda a: a[first], filtered.start.values)
    return {**{s: before[s] for s in path if s in before}, **{s: values[s] for s in values}}


def pinned_filter(
    key: Any,
    space: StateSpace,
    given: Mapping[str, Any],
    path: Values,
    n: int,
    proposal: Proposal,
) -> Filtered:
    """The conditional filter; traceable. Resamples at every step."""
    plan = space.plan
    k_start, k_walk = random.split(key)
    start = _begin(k_start, space, given, {s: path[s] for s in plan.initial if s in path}, n)
    ground, future = start.ground, {s: path[s] for s in plan.states}
    first = Cloud(start.carry, jnp.arange(n), start.log_weight)
    elements = ground.elements

    def step(k: Any, cloud: Cloud, now: Any) -> tuple[Cloud, Step]:
        t, element, values = now
        k_self, k_others, k_move = random.split(k, 3)
        ahead = jax.vmap(lambda c, r: replay(ground, c, r, elements, future, t))
        own = random.categorical(k_self, cloud.log_weight + ahead(cloud.carry, cloud.root))
        others = random.categorical(k_others, cloud.log_weight, (n - 1,))
        index = jnp.concatenate([own[None], others])
        carry, root = jax.tree.map(lambda a: a[index], (cloud.carry, cloud.root))
        head = jax.tree.map(lambda a: a[0], (carry, root))
        tail = jax.tree.map(lambda a: a[1:], (carry, root))
        kept, log_kept = proposal.weigh(ground, head[0], head[1], element, values)
        free, log_free = random.each(
            lambda kk, c, r: proposal.draw(kk, ground, c, r, element), k_move, *tail
        )
        joined = jax.tree.map(
            lambda a, b: jnp.concatenate([jnp.asarray(a, b.dtype)[None], b]),
            (kept.carry, kept.values, log_kept),
            (free.carry, free.values, log_free),
        )
        log_weight, increment = normalised(joined[2] - jnp.log(n))
        cloud = Cloud(joined[0], root, log_weight)
        return cloud, Step(cloud, joined[1], index, increment, jnp.asarray(True))

    along = (jnp.arange(space.length), elements, future)
    _, steps = random.scan(step, k_walk, first, along, space.length)
    return Filtered(start, steps, start.log_z + steps.increment.sum())


def replay(ground: Ground, carry: Any, root: Any, elements: Any, path: Values, t: Any) -> Any:
    """log p(z_{t:T}, y_{t:T} | s_{t−1}) up to a constant in s_{t−1}; float[].

    After as many steps as the carry remembers, what follows no longer depends on it.
    """
    length, memory = ground.space.length, ground.space.plan.memory
    count = length if memory is None or not all(ground.shared) else min(memory, length)

    def one(state: Any, ahead: Any) -> tuple[Any, None]:
        carry, total = state
        at = jnp.minimum(t + ahead, length - 1)
        element, values = jax.tree.map(lambda a: a[at], (elements, path))
        moved = ground.step(None, carry, root, element, values)
        inside = t + ahead < length
        keep = jax.tree.map(lambda a, b: jnp.where(inside, a, b), moved.carry, carry)
        return (keep, total + jnp.where(inside, moved.log_p + moved.log_g, 0.0)), None

    if count == 1:
        return one((carry, jnp.zeros(())), 0)[0][1]
    return jax.lax.scan(one, (carry, jnp.zeros(())), jnp.arange(count))[0][1]


def _begin(
    key: Any, space: StateSpace, given: Mapping[str, Any], initial: Values, n: int
) -> Beginning:
    """Particle 0 as given, the others drawn."""
    free = begin(key, space, given, n - 1)
    pinned = space.start(None, {**given, **initial})
    pairs = zip(pinned.inputs, free.ground.inputs, free.ground.shared, strict=True)
    inputs = tuple(b if s else jnp.concatenate([a[None], b]) for a, b, s in pairs)
    carry, values = jax.tree.map(
        lambda a, b: jnp.concatenate([jnp.asarray(a, b.dtype)[None], b]),
        (pinned.carry, pinned.values),
        (free.carry, free.values),
    )
    # The weights of the others come normalised by their total, which is put back.
    others = free.log_weight + free.log_z + jnp.log(n - 1)
    log_g = jnp.concatenate([pinned.log_g[None], others])
    log_weight, log_z = normalised(log_g - jnp.log(n))
    return Beginning(Ground(space, inputs, free.ground.shared), carry, values, log_weight, log_z)
