"""Distributions of NumPyro whose scores do not survive JAX, put another way."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as nd


class BetaBinomial(nd.BetaBinomial):  # type: ignore[misc]
    """NumPyro's beta-binomial, with the density of its Dirichlet-multinomial of two categories.

    log p(y) = log DirichletMultinomial((y, n − y); (a, b), n), the same function by another way:
    XLA for CPUs (seen in jaxlib 0.10.2, with AVX2) computes a wrong gradient of
    betaln(y + a, n − y + b) − betaln(a, b) in float64 once it is batched and compiled.
    """

    def log_prob(self, value: Any) -> Any:
        """log p(value), elementwise over the batch."""
        a, b, n = self.concentration1, self.concentration0, self.total_count
        shape = jnp.broadcast_shapes(jnp.shape(value), self.batch_shape)
        counts = jnp.stack([jnp.broadcast_to(v, shape) for v in (value, n - value)], -1)
        concentration = jnp.stack([jnp.broadcast_to(v, shape) for v in (a, b)], -1)
        total = jnp.broadcast_to(n, shape)
        d = nd.DirichletMultinomial(concentration, total, validate_args=False)
        return d.log_prob(counts)
