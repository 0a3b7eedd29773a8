"""What training makes small: functions (q, key, law, batch) -> (surrogate, loss, spread).

The gradient of the surrogate in q's arrays is an unbiased estimate of that of the loss; ``spread``
is the standard deviation of log q − log γ over the batch, which no constant in γ can move.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.population import Population


def reverse_kl(q: Any, key: Any, law: Any, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """KL(q ‖ γ/Z) − log Z = E_q[log q − log γ], by its path gradient alone.

    With x = T(u): ∂_θ = E[(∂x/∂θ)ᵀ ∇_x(log q − log γ)]; the score term ∂_θ log q at fixed x has
    mean zero and is left out, so that the gradient vanishes, noise and all, where q = γ/Z. Shares
    of strata carry the gradient of mixture weights. Draws where γ is zero or NaN are dropped.

    ``law`` is a target; one gradient of it for each of ``batch`` draws.

    Source: Roeder, Wu & Duvenaud 2017, arXiv:1703.09194; Vaitl, Nicoli, Nakajima & Kessel 2022,
    arXiv:2206.09016.
    """
    u, share = q.base.strata(key, batch)
    x, _ = jax.vmap(q.map.forward)(u)
    frozen = jax.lax.stop_gradient(q)

    def gap(t: Any, v: Any) -> Any:
        return frozen.log_prob(v) - t.log_density(v)

    at = jax.lax.stop_gradient(x)
    f, g = jax.vmap(jax.value_and_grad(gap, 1), (None, 0))(law, at)
    good = jnp.isfinite(f) & jnp.isfinite(g).all(-1)
    f, g = jnp.where(good, f, 0.0), jnp.where(good[:, None], g, 0.0)
    f, g = jax.lax.stop_gradient((f, g))
    share = jnp.where(good, share, 0.0)
    still = jax.lax.stop_gradient(share)
    # All draws lost is no loss at all, but a failure: 0/0 says so.
    mean = jnp.sum(still * f) / jnp.sum(still)
    spread = jnp.sqrt(jnp.sum(still * (f - mean) ** 2) / jnp.sum(still))
    path = jnp.sum(still[:, None] * g * x)
    return path + jnp.sum(share * (f - mean)), (mean, spread)


def forward_kl(q: Any, key: Any, law: Population, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """KL(π ‖ q) + const = −Σ W_i log q(x_i), on points resampled from a weighted population.

    ``law`` is a :class:`ppcore.population.Population` for π: draws of chains, or importance
    samples. Costs no evaluation of the target. Covers what the points cover.

    Source: Papamakarios et al. 2021, arXiv:1912.02762 (section 2.3.1); Müller et al. 2019,
    arXiv:1808.03856 (weighted).
    """
    # By inverse of the cumulative weights: a Gumbel number for each point would be the main cost.
    below = jnp.cumsum(law.weights)
    u = random.uniform(key, (batch,), below.dtype) * below[-1]
    which = jnp.clip(jnp.searchsorted(below, u), 0, law.x.shape[0] - 1)
    log_q = jax.vmap(q.log_prob)(law.x[which])
    loss = -jnp.mean(log_q)
    return loss, (loss, jnp.std(log_q))


def chi_square(q: Any, key: Any, law: Any, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """½ log E_q[w²], w = γ/q: the α = 2 divergence, whose size is the variance of the weights.

    Its gradient is −E_π²[∂ log q(x)], π² ∝ γ²/q, estimated with the self-normalised weights w² of
    draws from q, held fixed: mass-covering, for a q that already overlaps the target. Where it does
    not, see :mod:`ppcore_flows.bootstrap`. One log density of the target for each draw.

    Source: Dieng et al. 2017, arXiv:1611.00328.
    """
    return _weighted(q, key, law, batch, 2.0)


def importance_kl(q: Any, key: Any, law: Any, batch: int) -> tuple[Any, tuple[Any, Any]]:
    """KL(π ‖ q) + const by self-normalised weights w = γ/q of draws from q, held fixed.

    Its gradient is −Σ W_i ∂ log q(x_i). One log density of the target for each draw.

    Source: Bornschein & Bengio 2015, arXiv:1406.2751; Naesseth, Lindsten & Blei 2020,
    arXiv:2003.10374.
    """
    return _weighted(q, key, law, batch, 1.0)


def _weighted(q: Any, key: Any, law: Any, batch: int, alpha: float) -> tuple[Any, tuple[Any, Any]]:
    frozen = jax.lax.stop_gradient(q)
    x, log_q = frozen.sample_and_log_prob(key, batch)
    log_w = jax.vmap(lambda t, v: t.log_density(v), (None, 0))(law, x) - log_q
    log_w = jnp.where(jnp.isnan(log_w), -jnp.inf, log_w)
    share = jax.lax.stop_gradient(jax.nn.softmax(alpha * log_w))
    surrogate = -jnp.sum(share * jax.vmap(q.log_prob)(x))
    loss = (jax.nn.logsumexp(alpha * log_w) - jnp.log(batch)) / alpha
    finite = jnp.isfinite(log_w)
    spread = jnp.std(jnp.where(finite, log_w, 0.0), where=finite)
    return surrogate, (loss, spread)
