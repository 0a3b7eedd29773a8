"""The control: a small network of time, place and the target's score, zero before training."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.exact.protocol import generator

FREQUENCIES = 4
CLIP = 5.0
SINGLE = jnp.float32


def create(key: Any, dim: int, steps: int, width: int, dtype: Any) -> dict[str, Any]:
    """Weights of one control; the last layer and the tables are zero.

    Parameters
    ----------
    key : key
    dim, steps, width : int
        d, K, and the width of both hidden layers.
    dtype : dtype
        Of the tables; the layers are in single precision.
    """
    rng = generator(key)
    inputs = 2 * dim + 2 * FREQUENCIES + 1

    def layer(n: int, m: int) -> Any:
        return jnp.asarray(rng.standard_normal((n, m)) / np.sqrt(n), SINGLE)

    zeros = jnp.zeros((steps, dim), dtype)
    return {
        "first": layer(inputs, width),
        "second": layer(width, width),
        "last": jnp.zeros((width, dim), SINGLE),
        "shifts": jnp.zeros((2, width), SINGLE),
        "bias": zeros,
        "linear": zeros,
        "gain": zeros,
    }


def embed(t: Any) -> Any:
    """(t, cos πjt, sin πjt for j = 1 …): float[9]."""
    angles = jnp.pi * t * jnp.arange(1, FREQUENCIES + 1)
    return jnp.concatenate([jnp.stack([t]), jnp.cos(angles), jnp.sin(angles)])


def control(weights: dict[str, Any], k: Any, t: Any, u: Any, force: Any) -> Any:
    """n(t, u, s) = bias_k + linear_k u + gain_k s + network(t, u, s); float[d].

    Parameters
    ----------
    weights : dict
        Of :func:`create`.
    k : int
        The step, whose row of the tables is used.
    t : float
        Its time in [0, 1].
    u : float[d]
    force : float[d]
        s, the target's score in units in which it is about one; clipped to ±5.
    """
    force = jnp.clip(force, -CLIP, CLIP)
    inputs = jnp.concatenate([jnp.clip(u, -CLIP, CLIP), force, embed(t)]).astype(SINGLE)
    hidden = jax.nn.silu(inputs @ weights["first"] + weights["shifts"][0])
    hidden = jax.nn.silu(hidden @ weights["second"] + weights["shifts"][1])
    free = (hidden @ weights["last"]).astype(u.dtype)
    return weights["bias"][k] + weights["linear"][k] * u + weights["gain"][k] * force + free
