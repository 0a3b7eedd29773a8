"""Laws that flows begin from: Gaussian, Student-t, and a mixture of Gaussians that is learned.

Each can draw in strata: points x_i and shares s_i, Σ s_i = 1, with E[Σ s_i f(x_i)] = E_q[f], both
differentiable in what the law learns. A mixture draws equally often from every part and puts its
weights into the shares, so that gradients reach the weights and no part is forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Density

LOG_2PI = 1.8378770664093453


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Gaussian:
    """N(0, I) on R^d.

    >>> round(float(Gaussian(2).log_prob(np.zeros(2))), 4)
    -1.8379
    """

    dim: int
    contract: ClassVar[Contract] = Density()

    def tree_flatten(self) -> tuple[tuple[()], int]:
        return (), self.dim

    @classmethod
    def tree_unflatten(cls, dim: int, _: Any) -> Gaussian:
        return cls(dim)

    def sample(self, key: Any, n: int) -> Any:
        """``n`` draws; float[n, d]."""
        return random.normal(key, (n, self.dim))

    def strata(self, key: Any, n: int) -> tuple[Any, Any]:
        """``(x, shares)``: float[n, d], float[n]."""
        x = self.sample(key, n)
        return x, jnp.full(n, 1.0 / n, x.dtype)

    def log_prob(self, x: Any) -> Any:
        """log q(x); x: float[d]."""
        return -0.5 * jnp.sum(x**2) - 0.5 * self.dim * LOG_2PI


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class StudentT:
    """The spherical Student-t with ν degrees of freedom, for targets with heavy tails.

    q(x) ∝ (1 + |x|²/ν)^{−(ν+d)/2}. A flow whose ends are linear keeps the tails of its base.

    Attributes
    ----------
    dim : int
    log_degrees : float[]
        log ν; kept as it is by training.

    Source: Jaini, Kobyzev, Yu & Brubaker 2020, arXiv:1907.04481.
    """

    dim: int
    log_degrees: Any
    contract: ClassVar[Contract] = Density()

    def tree_flatten(self) -> tuple[tuple[Any], int]:
        return (self.log_degrees,), self.dim

    @classmethod
    def tree_unflatten(cls, dim: int, leaves: tuple[Any]) -> StudentT:
        return cls(dim, leaves[0])

    def sample(self, key: Any, n: int) -> Any:
        """``n`` draws; float[n, d]."""
        k_normal, k_gamma = random.split(key)
        z = random.normal(k_normal, (n, self.dim))
        nu = jax.lax.stop_gradient(jnp.exp(self.log_degrees))
        chi2 = 2.0 * jax.random.gamma(k_gamma, 0.5 * nu, (n, 1), z.dtype)
        return z * jnp.sqrt(nu / chi2)

    def strata(self, key: Any, n: int) -> tuple[Any, Any]:
        """``(x, shares)``: float[n, d], float[n]."""
        x = self.sample(key, n)
        return x, jnp.full(n, 1.0 / n, x.dtype)

    def log_prob(self, x: Any) -> Any:
        """log q(x); x: float[d]."""
        nu, d = jax.lax.stop_gradient(jnp.exp(self.log_degrees)), self.dim
        norm = jax.scipy.special.gammaln(0.5 * (nu + d)) - jax.scipy.special.gammaln(0.5 * nu)
        shape = -0.5 * (nu + d) * jnp.log1p(jnp.sum(x**2) / nu)
        return norm - 0.5 * d * jnp.log(nu * jnp.pi) + shape


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture:
    """Σ_k π_k N(m_k, L_k L_kᵀ); all of it is learned.

    Attributes
    ----------
    logits : float[K]
        π = softmax(logits).
    means : float[K, d]
    log_scales : float[K, d]
        Logarithms of the diagonals of L_k.
    below : float[K, d, d]
        L_k below the diagonal in units of the row's scale.
    """

    logits: Any
    means: Any
    log_scales: Any
    below: Any
    contract: ClassVar[Contract] = Density()

    @property
    def dim(self) -> int:
        return int(self.means.shape[1])

    @property
    def _units(self) -> Any:
        return jnp.tril(self.below, -1) + jnp.eye(self.dim, dtype=self.means.dtype)

    def _place(self, which: Any, z: Any) -> Any:
        moved = jnp.einsum("nij,nj->ni", self._units[which], z)
        return self.means[which] + jnp.exp(self.log_scales)[which] * moved

    def sample(self, key: Any, n: int) -> Any:
        """``n`` draws; float[n, d]."""
        k_which, k_normal = random.split(key)
        which = random.categorical(k_which, self.logits, (n,))
        return self._place(which, random.normal(k_normal, (n, self.dim), self.means.dtype))

    def strata(self, key: Any, n: int) -> tuple[Any, Any]:
        """``(x, shares)``: ⌈n/K⌉ draws of every part; float[m, d], float[m]."""
        parts = self.logits.shape[0]
        each = -(-n // parts)
        which = np.repeat(np.arange(parts), each)
        x = self._place(which, random.normal(key, (parts * each, self.dim), self.means.dtype))
        return x, jax.nn.softmax(self.logits)[which] / each

    def log_prob(self, x: Any) -> Any:
        """log q(x); x: float[d]."""
        scaled = (x - self.means) * jnp.exp(-self.log_scales)

        def pull(unit: Any, v: Any) -> Any:
            return jax.scipy.linalg.solve_triangular(unit, v, lower=True, unit_diagonal=True)

        z = jax.vmap(pull)(self._units, scaled)
        parts = -0.5 * jnp.sum(z**2, -1) - jnp.sum(self.log_scales, -1) - 0.5 * self.dim * LOG_2PI
        return jax.nn.logsumexp(jax.nn.log_softmax(self.logits) + parts)


def mixture(log_weights: Any, means: Any, factors: Any, dtype: Any) -> Mixture:
    """The mixture with parts N(m_k, F_k F_kᵀ), for any square roots F_k: float[K, d, d]."""
    lower = np.linalg.cholesky(np.einsum("kij,klj->kil", factors, factors))
    scales = np.einsum("kii->ki", lower)
    parts = (log_weights, means, np.log(scales), lower / scales[:, :, None])
    return Mixture(*(jnp.asarray(part, dtype) for part in parts))
