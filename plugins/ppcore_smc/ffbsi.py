"""Backward simulation: paths from the smoothing law, drawn backwards through a filter's history.

From b_T ~ W_T, the ancestor at step t is drawn given the path behind it,

    P(b_t = i) ∝ W_t^i p(z_{t+1:T}, y_{t+1:T} | s_t^i),

which for a chain that forgets s_t after one step is W_t^i p(z_{t+1} | s_t^i). N times M densities
per step; with a bound on the transition density, rejection needs a few per path instead.

Source: Godsill, Doucet & West (2004), doi:10.1198/016214504000000151; Douc, Garivier, Moulines &
Olsson (2011), arXiv:0904.0316 (rejection).
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.errors import SettingsError
from ppcore.state_space import Values
from ppcore_smc.ancestor_sampling import replay
from ppcore_smc.filtering import Cloud, Filtered

ROUNDS = 16


def backward_paths(
    key: Any, filtered: Filtered, m: int, log_bound: float | None = None
) -> tuple[Values, Any]:
    """``m`` paths {site: [m, ...]}, stacked sites in the walk's order, and whether a bound broke.

    Parameters
    ----------
    key : key, or script on finite models
    filtered : Filtered
        Made with all parameters held, so that every particle has the same inputs.
    m : int
    log_bound : float, optional
        log sup p(z_{t+1} | s_t) G_{t+1} over s_t, for rejection: ancestors are proposed from W_t
        and accepted with probability p G / bound, for up to 16 rounds; paths that are left draw
        from all particles. The law is the same either way if the bound holds; if a density
        exceeds it, bool[] says so and the paths are not to be used.

    Raises
    ------
    SettingsError
        ``log_bound`` for a chain that remembers more than one step, or is not finite.
    """
    ground, steps = filtered.start.ground, filtered.steps
    length = ground.space.length
    if log_bound is not None:
        if not math.isfinite(log_bound) or ground.space.plan.memory != 1:
            raise SettingsError(
                f"log_bound={log_bound!r}: rejection needs a finite bound on the transition "
                "density of a chain whose carry is a function of the sites of its last step."
            )
    k_last, k_back = random.split(key)
    last = random.categorical(k_last, filtered.last.log_weight, (m,))
    elements = ground.elements
    final = jax.tree.map(lambda a: a[-1][last], steps.values)
    paths = jax.tree.map(
        lambda a, f: jnp.zeros((m, length, *a.shape[2:]), a.dtype).at[:, -1].set(f),
        steps.values,
        final,
    )
    first = Cloud(filtered.start.carry, jnp.arange(_size(filtered)), filtered.start.log_weight)
    clouds = jax.tree.map(lambda a, b: jnp.concatenate([a[None], b[:-1]]), first, steps.cloud)
    # What is known before step t is particle i's s_{t-1} and z_{t-1}; before the first, s_0.
    shifted = jax.tree.map(lambda a: jnp.concatenate([a[:1], a[:-1]]), steps.values)

    def back(k: Any, state: Any, now: Any) -> tuple[Any, None]:
        paths, _, broken = state
        t, cloud, values = now

        def log_ahead(path: Values, i: Any) -> Any:
            carry, root = jax.tree.map(lambda a: a[i], (cloud.carry, cloud.root))
            return replay(ground, carry, root, elements, path, t)

        index, bad = _choose(k, cloud.log_weight, log_ahead, paths, m, log_bound)
        chosen = jax.tree.map(lambda a: a[index], values)
        before = jnp.maximum(t - 1, 0)
        paths = jax.tree.map(
            lambda p, c: jnp.where(t > 0, p.at[:, before].set(c), p), paths, chosen
        )
        return (paths, index, broken | bad), None

    backwards = jax.tree.map(lambda a: a[::-1], (jnp.arange(length), clouds, shifted))
    begun = (paths, last, jnp.asarray(False))
    (paths, index, broken), _ = random.scan(back, k_back, begun, backwards, length)
    before = {s: filtered.start.values[s][index] for s in filtered.start.values}
    found: Values = {**before, **paths}
    return found, broken


def _size(filtered: Filtered) -> int:
    return int(filtered.start.log_weight.shape[0])


def _choose(
    key: Any, log_weight: Any, log_ahead: Any, paths: Values, m: int, log_bound: float | None
) -> tuple[Any, Any]:
    """The ancestor of every path, int[m], and whether a density exceeded the bound."""
    n = log_weight.shape[0]

    def full(k: Any) -> Any:
        ahead = jax.vmap(lambda p: jax.vmap(lambda i: log_ahead(p, i))(jnp.arange(n)))(paths)
        return random.categorical(k, log_weight + ahead)

    if log_bound is None:
        return full(key), jnp.asarray(False)
    k_rounds, k_full = random.split(key)

    def attempt(k: Any, state: Any, _: Any) -> tuple[Any, None]:
        index, done, broken = state
        k_index, k_accept = random.split(k)
        proposed = random.categorical(k_index, log_weight, (m,))
        log_p = jax.vmap(log_ahead)(paths, proposed) - log_bound
        yes = ~done & (jnp.log(random.uniform(k_accept, (m,), log_p.dtype)) < log_p)
        broken = broken | jnp.any(~done & (log_p > 1e-9))
        return (jnp.where(yes, proposed, index), done | yes, broken), None

    begun = (jnp.zeros(m, int), jnp.zeros(m, bool), jnp.asarray(False))
    (index, done, broken), _ = random.scan(attempt, k_rounds, begun, jnp.arange(ROUNDS), ROUNDS)
    index = jax.lax.cond(
        done.all(), lambda: index, lambda: jnp.where(done, index, full(k_full).astype(index.dtype))
    )
    return index, broken
