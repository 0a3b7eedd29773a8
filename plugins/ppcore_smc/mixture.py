"""A mixture of Student-t distributions as a proposal, fitted to weighted points by EM."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random

FREEDOM = 8.0
ROUNDS = 12
INFLATE = 1.1


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture:
    """q(x) = Σ_k a_k t_ν(x; m_k, F_k F_kᵀ), ν = 8.

    Attributes
    ----------
    log_share : float[K]
        log a_k, normalised.
    mean : float[K, d]
    factor, inverse : float[K, d, d]
        F_k, lower triangular, and F_k⁻¹.
    """

    log_share: Any
    mean: Any
    factor: Any
    inverse: Any

    def log_parts(self, x: Any) -> Any:
        """log t_ν(x; m_k, F_k F_kᵀ) of every component: float[..., d] -> float[..., K]."""
        d, nu = x.shape[-1], FREEDOM
        z = jnp.einsum("kij,...kj->...ki", self.inverse, x[..., None, :] - self.mean)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.factor, axis1=1, axis2=2)), axis=1)
        norm = (
            math.lgamma(0.5 * (nu + d)) - math.lgamma(0.5 * nu) - 0.5 * d * math.log(nu * math.pi)
        )
        return norm - log_det - 0.5 * (nu + d) * jnp.log1p(jnp.sum(z**2, axis=-1) / nu)

    def log_density(self, x: Any) -> Any:
        """log q(x): float[..., d] -> float[...]."""
        return jax.nn.logsumexp(self.log_share + self.log_parts(x), axis=-1)

    def sample(self, key: Any, n: int) -> Any:
        """``n`` draws: float[n, d]."""
        k_which, k_normal, k_chi = random.split(key, 3)
        which = random.categorical(k_which, self.log_share, (n,))
        z = random.normal(k_normal, (n, self.mean.shape[1]), self.mean.dtype)
        chi = 2.0 * jax.random.gamma(k_chi, 0.5 * FREEDOM, (n, 1), self.mean.dtype) / FREEDOM
        return self.mean[which] + jnp.einsum("nij,nj->ni", self.factor[which], z) / jnp.sqrt(chi)


def fitted(key: Any, x: Any, w: Any, components: int) -> Mixture:
    """EM from components at points drawn by weight; covariances pooled with the whole's.

    Parameters
    ----------
    x : float[N, d]
    w : float[N]
        Weights that sum to one.
    components : int
        K.

    Source: Peel & McLachlan (2000), doi:10.1023/A:1008981510081; Cappé, Douc, Guillin, Marin &
    Robert (2008), arXiv:0710.4242, for its use as a proposal.
    """
    d = x.shape[1]
    centre = w @ x
    whole = ((x - centre) * w[:, None]).T @ (x - centre)
    floor = 1e-6 * jnp.diag(jnp.diagonal(whole) + 1e-8)
    worth = 1.0 / jnp.sum(w**2)
    chosen = x[random.categorical(key, jnp.log(w), (components,))]
    mean = chosen if components > 1 else centre[None]
    log_share = jnp.full(components, -jnp.log(components), x.dtype)
    first = _made(
        log_share, mean, jnp.repeat(jnp.linalg.cholesky(whole + floor)[None], components, 0)
    )

    def round_(_: Any, old: Mixture) -> Mixture:
        r = jax.nn.softmax(old.log_parts(x) + old.log_share, axis=1) * w[:, None]
        z = jnp.einsum("kij,nkj->nki", old.inverse, x[:, None] - old.mean)
        ru = r * (FREEDOM + d) / (FREEDOM + jnp.sum(z**2, axis=2))
        share = r.sum(0) + 1e-12
        mean = (ru.T @ x) / (ru.sum(0) + 1e-12)[:, None]
        off = x[:, None] - mean
        cov = jnp.einsum("nki,nkj->kij", ru[:, :, None] * off, off) / share[:, None, None]
        # A component with few points borrows the spread of the whole.
        trust = (share * worth / (share * worth + d + 1.0))[:, None, None]
        cov = trust * cov + (1.0 - trust) * whole + floor
        factor = jnp.linalg.cholesky(INFLATE * cov)
        usable = jnp.isfinite(factor).all((1, 2)) & jnp.isfinite(mean).all(1)
        return _made(
            jnp.log(share / share.sum()),
            jnp.where(usable[:, None], mean, old.mean),
            jnp.where(usable[:, None, None], factor, old.factor),
        )

    return jax.lax.fori_loop(0, ROUNDS, round_, first)


def _made(log_share: Any, mean: Any, factor: Any) -> Mixture:
    eye = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    inverse = jax.scipy.linalg.solve_triangular(factor, eye, lower=True)
    return Mixture(log_share, mean, factor, inverse)
