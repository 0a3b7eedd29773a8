"""Weighted draws from learned paths, whose weights are frozen."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.paths import follow
from ppcore.population import Population, equally_weighted
from ppcore.tuning.noise import spawned
from ppcore_diffusion.training import Training, cut
from ppcore_diffusion.transitions import route

ISLAND = 1024


def islands(n: int) -> int:
    """Into how many equal islands of at most 1024 ``n`` particles are cut; 1 if n has no divisor.

    >>> islands(4096), islands(64), islands(2003)
    (4, 1, 1)
    """
    return next((c for c in range(1, 4 + n // 256) if n % c == 0 and n // c <= ISLAND), 1)


def drawn(
    key: Any, kind: Any, plan: Training, weights: Any, frame: Any, n: int
) -> tuple[Population, Any]:
    """``n`` weighted draws in the target's own coordinates, and the first ancestor of each.

    Each island is resampled by itself; their evidences are averaged.
    """
    count = islands(n)
    made = [
        island(kind, plan.segments, plan.resample, k, weights, frame, n // count)
        for k in spawned(key, count)
    ]
    x, log_weight, log_z, root = (np.stack([np.asarray(p[i]) for p in made]) for i in range(4))
    top = log_z.max() if np.isfinite(log_z.max()) else 0.0
    share = log_weight + log_z[:, None]
    with np.errstate(divide="ignore"):
        total = top + np.log(np.mean(np.exp(log_z - top)))
    root = root + (n // count) * np.arange(count)[:, None]
    flat = x.reshape(n, -1), share.reshape(-1), total.astype(x.dtype)
    return Population(*(jnp.asarray(part, x.dtype) for part in flat)), root.ravel().astype(int)


@partial(jax.jit, static_argnames=("kind", "segments", "threshold", "n"))
def island(
    kind: Any, segments: int, threshold: float, key: Any, weights: Any, frame: Any, n: int
) -> tuple[Any, Any, Any, Any]:
    """Places, log of the normalised weights, log Ẑ and first ancestors of ``n`` particles."""
    k_start, k_walk = random.split(key)
    transition, path, betas = route(kind, weights, frame)
    rows, _ = path.start(k_start, n, kind.moving)
    steps = betas.shape[0] - 1
    each = steps // segments
    rule = cut(segments, threshold, steps)

    def lead(key: Any, population: Population, s: Any) -> tuple[Population, None]:
        k_follow, k_cut = random.split(key)
        edges = jax.lax.dynamic_slice(betas, (s * each,), (each + 1,))
        index = s * each + jnp.arange(each)
        population = follow(
            k_follow, path, edges, transition, population, params=index, params_vary=True
        )
        return rule(k_cut, population, index[-1]), None

    begin = equally_weighted(rows)
    population, _ = random.scan(lead, k_walk, begin, jnp.arange(segments), segments)
    u, root = population.x[:, : path.dim], population.x[:, 2 * path.dim + 1]
    log_weight = jax.nn.log_softmax(population.log_weight)
    return frame.place(u), log_weight, population.log_z, root
