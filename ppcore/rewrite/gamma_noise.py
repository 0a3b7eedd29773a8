"""Gamma variables as functions of a fixed number of standard normals.

Marsaglia and Tsang's proposals x ~ N(0, 1), v = (1 + c x)³ with d = α + 2/3 and c = 1/√(9 d) are
accepted if log u < x²/2 + d − d v + d log v; then d v ~ Γ(α + 1), and d v u′^(1/α) ~ Γ(α). The
first of ``TRIES`` that is accepted is taken. All are refused with probability below 3·10⁻¹¹, less
than any sample shows; no generator of random numbers has to be compiled.

Source: Marsaglia & Tsang 2000, doi:10.1145/358407.358414.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.scipy.special import log_ndtr

TRIES = 8
EACH = 2 * TRIES + 1
"""Normals for one gamma variable."""


def log_gamma(alpha: Any, z: Any) -> Any:
    """log of Γ(α, 1) variables; α: float[n], z: float[n · EACH] standard normals -> float[n].

    >>> round(float(log_gamma(jnp.ones(1), jnp.zeros(EACH))[0]), 3)
    -0.182
    """
    z = jnp.reshape(z, (alpha.shape[0], EACH))
    x, log_u, last = z[:, :TRIES], log_ndtr(z[:, TRIES : 2 * TRIES]), log_ndtr(z[:, -1])
    d = (alpha + 2.0 / 3.0)[:, None]
    root = 1.0 + x / jnp.sqrt(9.0 * d)
    # Where the cube is negative, nothing is accepted; the logarithm is kept finite there.
    log_v = 3.0 * jnp.log(jnp.where(root > 0, root, 1.0))
    bound = 0.5 * x**2 + d - d * jnp.exp(log_v) + d * log_v
    accepted = (root > 0) & (log_u < bound)
    first = jnp.argmax(accepted, axis=1)[:, None]
    return jnp.log(d[:, 0]) + jnp.take_along_axis(log_v, first, 1)[:, 0] + last / alpha
