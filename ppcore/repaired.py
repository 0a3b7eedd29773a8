"""Distributions of NumPyro whose scores do not survive JAX, put another way."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpyro.distributions as nd
from jax.scipy.special import gammaln, xlog1py, xlogy
from numpyro.distributions import conjugate


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


class _GammaPoisson:
    """log p(y) = log Γ(α + y)/(Γ(α) y!) − α log(1 + 1/λ) − y log(1 + λ).

    NumPyro writes the first term with ``betaln``, which JAX (seen in 0.10.2) has right to six
    digits only where an argument exceeds 8.
    """

    concentration: Any
    rate: Any

    def log_prob(self, value: Any) -> Any:
        """log p(value), elementwise over the batch."""
        dtype = jnp.result_type(float)
        a, rate = jnp.asarray(self.concentration, dtype), jnp.asarray(self.rate, dtype)
        y = jnp.asarray(value, dtype)
        ways = gammaln(a + y) - gammaln(a) - gammaln(y + 1)
        return ways - xlogy(a, 1 + 1 / rate) - xlog1py(y, rate)


class GammaPoisson(_GammaPoisson, nd.GammaPoisson):  # type: ignore[misc]
    """NumPyro's gamma-Poisson with log Γ in the place of log B."""


class NegativeBinomial2(_GammaPoisson, nd.NegativeBinomial2):  # type: ignore[misc]
    """NumPyro's negative binomial by mean and concentration, with log Γ in the place of log B."""


class NegativeBinomialProbs(_GammaPoisson, conjugate.NegativeBinomialProbs):  # type: ignore[misc]
    """NumPyro's negative binomial by probability, with log Γ in the place of log B."""


def NegativeBinomial(
    total_count: Any, probs: Any = None, logits: Any = None, *, validate_args: Any = None
) -> Any:
    """NumPyro's negative binomial in either form, by repaired parts."""
    if probs is None:
        return nd.NegativeBinomialLogits(total_count, logits, validate_args=validate_args)
    return NegativeBinomialProbs(total_count, probs, validate_args=validate_args)


def ZeroInflatedNegativeBinomial2(
    mean: Any,
    concentration: Any,
    *,
    gate: Any = None,
    gate_logits: Any = None,
    validate_args: Any = None,
) -> Any:
    """NumPyro's zero-inflated negative binomial, by repaired parts."""
    base = NegativeBinomial2(mean, concentration, validate_args=validate_args)
    return nd.ZeroInflatedDistribution(
        base, gate=gate, gate_logits=gate_logits, validate_args=validate_args
    )
