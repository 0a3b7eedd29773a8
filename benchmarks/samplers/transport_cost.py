"""Sinkhorn's distance between two samples."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SHARE, ROUNDS, HALVINGS = 0.01, 50, 18


def sinkhorn(x: np.ndarray, y: np.ndarray) -> float:
    """Σ P_ij |x_i − y_j| of the coupling P that minimises it less ε times the entropy of P.

    P_ij ∝ exp((f_i + g_j − C_ij)/ε); f and g by f_i = −ε log Σ_j exp((g_j − C_ij)/ε)/m and the
    same for g, in turn, while ε falls by halves from the largest cost to 1 % of the mean. The cost
    is a distance and not its square, which has no mean under the heavier tails here. Between two
    samples of one law the result is not 0; that floor is what to compare with.

    Parameters
    ----------
    x, y : float[n, d], float[m, d]

    Source: Cuturi 2013, arXiv:1306.0895; Schmitzer 2019, arXiv:1610.06519 (logarithms, scaling).
    """
    return float(_sinkhorn(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)))


@jax.jit
def _sinkhorn(x: Any, y: Any) -> Any:
    cost = jnp.sqrt(jnp.maximum(_squares(x, y), 0.0))
    last = SHARE * cost.mean()
    n, m = cost.shape

    def once(k: Any, potentials: tuple[Any, Any]) -> tuple[Any, Any]:
        epsilon = jnp.maximum(cost.max() * 0.5 ** (k // ROUNDS), last)
        _, g = potentials
        f = -epsilon * (jax.nn.logsumexp((g[None] - cost) / epsilon, axis=1) - jnp.log(m))
        g = -epsilon * (jax.nn.logsumexp((f[:, None] - cost) / epsilon, axis=0) - jnp.log(n))
        return f, g

    start = (jnp.zeros(n, cost.dtype), jnp.zeros(m, cost.dtype))
    f, g = jax.lax.fori_loop(0, ROUNDS * HALVINGS, once, start)
    coupling = jnp.exp((f[:, None] + g[None] - cost) / last) / (n * m)
    return jnp.sum(coupling * cost) / jnp.sum(coupling)


def _squares(x: Any, y: Any) -> Any:
    # Differences, since squares of far points leave no digits for near ones in single precision.
    return jax.lax.map(lambda row: jnp.sum((row - y) ** 2, axis=-1), x)
