"""What training makes small, of the log weights of paths.

All are functions of log G, float[K, N]: the increments of N paths, whose sums are the log weights.
On stored paths (every loss but the reverse KL) log G depends on what is learned through log B and
log F at fixed places, so that the target is not differentiated again.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

LOSSES = ("log_variance", "reverse_kl", "sub_trajectory", "trajectory_balance")
OUTLYING = 6.0


def bounded(off: Any) -> Any:
    """½ off², linear beyond six medians of |off|: one path in a bad place does not decide."""
    limit = OUTLYING * jax.lax.stop_gradient(jnp.median(jnp.abs(off))) + 1e-12
    size = jnp.abs(off)
    return jnp.where(size < limit, 0.5 * off**2, limit * (size - 0.5 * limit))


def deviation(log_g: Any, middle: Any) -> Any:
    """Mean of :func:`bounded` of log w − middle, log w = Σ_k log G_k, where that is finite."""
    log_w = jnp.sum(log_g, axis=0)
    good = jnp.isfinite(log_w)
    off = jnp.where(good, log_w - middle, 0.0)
    return jnp.sum(jnp.where(good, bounded(off), 0.0)) / jnp.sum(good)


def average(log_g: Any) -> Any:
    """The mean log weight where it is finite; float[]."""
    log_w = jnp.sum(log_g, axis=0)
    return jnp.mean(log_w, where=jnp.isfinite(log_w))


def log_variance(log_g: Any, level: Any, segments: int) -> Any:
    """½ Var[log w] over the batch.

    Where only F is learned its gradient is that of the reverse KL in expectation, and it has no
    noise where w is constant; no gradient goes through the paths.

    Source: Richter & Berner 2024, arXiv:2307.01198.
    """
    return deviation(log_g, average(log_g))


def trajectory_balance(log_g: Any, level: Any, segments: int) -> Any:
    """½ E[(log w − ℓ)²] with ℓ, an estimate of log Z, learned along.

    Source: Malkin et al. 2022, arXiv:2201.13259.
    """
    return deviation(log_g, level)


def sub_trajectory(log_g: Any, level: Any, segments: int) -> Any:
    """Σ_s ½ Var[Σ_{k in segment s} log G_k]: each segment leads from γ_a to γ_b by itself.

    Source: Chen, Richter, Berner, Blessing, Neumann & Anandkumar 2025, arXiv:2412.07081.
    """
    parts = log_g.reshape(segments, -1, log_g.shape[1])
    return jnp.sum(jax.vmap(lambda part: deviation(part, average(part)))(parts))


def reverse_kl(log_g: Any, level: Any, segments: int) -> Any:
    """−E_F[log w] = KL(path ‖ path backwards) − log Z; the gradient goes through the paths.

    Source: Zhang & Chen 2022, arXiv:2111.15141; Vargas, Grathwohl & Doucet 2023, arXiv:2302.13834.
    """
    return -average(log_g)


OF = {
    "log_variance": log_variance,
    "reverse_kl": reverse_kl,
    "sub_trajectory": sub_trajectory,
    "trajectory_balance": trajectory_balance,
}
