"""Correct maps, densities, an exact amortised posterior, and rewrites of finite models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats

from ppcore import random
from ppcore.contract import Amortised, Contract, Density, Transport

_LOWER = np.array([[1.3, 0.0], [-0.6, 0.7]])
_SHIFT = np.array([0.4, -1.1])


@dataclass(frozen=True)
class Affine:
    """y = L x + b, L lower triangular."""

    contract: Contract = Transport()
    dim: int = 2

    def log_det(self) -> Any:
        return jnp.sum(jnp.log(jnp.asarray(np.diag(_LOWER))))

    def forward(self, x: Any) -> tuple[Any, Any]:
        return jnp.asarray(_LOWER, x.dtype) @ x + _SHIFT, self.log_det()

    def inverse(self, y: Any) -> tuple[Any, Any]:
        x = jax.scipy.linalg.solve_triangular(jnp.asarray(_LOWER, y.dtype), y - _SHIFT, lower=True)
        return x, -self.log_det()


@dataclass(frozen=True)
class Coupling:
    """(x₀, x₁) ↦ (x₀, x₁ exp(s(x₀)) + t(x₀)), then swapped."""

    contract: Contract = Transport()
    dim: int = 2

    def scale(self, u: Any) -> Any:
        return 0.8 * jnp.tanh(1.3 * u + 0.2)

    def shift(self, u: Any) -> Any:
        return jnp.sin(u) + 0.5 * u

    def forward_log_det(self, u: Any) -> Any:
        return self.scale(u)

    def inverse_log_det(self, u: Any) -> Any:
        return -self.scale(u)

    def forward(self, x: Any) -> tuple[Any, Any]:
        u = x[0]
        y = jnp.stack([x[1] * jnp.exp(self.scale(u)) + self.shift(u), u])
        return y, self.forward_log_det(u)

    def inverse(self, y: Any) -> tuple[Any, Any]:
        u = y[1]
        return jnp.stack([u, (y[0] - self.shift(u)) * jnp.exp(-self.scale(u))]), (
            self.inverse_log_det(u)
        )


@dataclass(frozen=True)
class SinhArcsinh:
    """y_j = sinh(a asinh(x_j)) elementwise: heavier or lighter tails."""

    contract: Contract = Transport()
    dim: int = 2
    a: float = 1.2

    def slope(self, x: Any, a: float) -> Any:
        """log dy/dx for y = sinh(a asinh(x)), per coordinate."""
        return jnp.log(a) + jnp.log(jnp.cosh(a * jnp.arcsinh(x))) - 0.5 * jnp.log1p(x**2)

    def forward(self, x: Any) -> tuple[Any, Any]:
        return jnp.sinh(self.a * jnp.arcsinh(x)), self.slope(x, self.a).sum()

    def inverse(self, y: Any) -> tuple[Any, Any]:
        return jnp.sinh(jnp.arcsinh(y) / self.a), self.slope(y, 1.0 / self.a).sum()


@dataclass(frozen=True)
class Pushed:
    """The law of T(z), z ~ N(0, I): log q(x) = log N(T⁻¹(x)) + log|det ∂T⁻¹|."""

    map: Any
    contract: Contract = Density()
    dim: int = 2

    def sample(self, key: Any, n: int) -> Any:
        z = jax.random.normal(key, (n, self.dim))
        return jax.vmap(lambda v: self.map.forward(v)[0])(z)

    def log_prob(self, x: Any) -> Any:
        z, log_det = self.map.inverse(x)
        return stats.norm.logpdf(z).sum() + log_det


@dataclass(frozen=True)
class GaussianMixture:
    """Σ_k p_k N(m_k, s_k² I) on R²."""

    contract: Contract = Density()
    dim: int = 2
    weights: tuple[float, float] = (0.3, 0.7)

    centres = ((-1.0, 0.5), (1.2, -0.3))
    scales = (0.6, 0.9)

    def sample(self, key: Any, n: int) -> Any:
        k_which, k_noise = jax.random.split(key)
        which = random.categorical(k_which, jnp.log(jnp.array((0.3, 0.7))), (n,))
        noise = jax.random.normal(k_noise, (n, 2)) * jnp.array(self.scales)[which][:, None]
        return jnp.array(self.centres)[which] + noise

    def log_prob(self, x: Any) -> Any:
        scales = jnp.array(self.scales)[:, None]
        each = stats.norm.logpdf(x, jnp.array(self.centres), scales).sum(1)
        return jax.nn.logsumexp(each + jnp.log(jnp.array(self.weights)))


@dataclass(frozen=True)
class ExactPosterior:
    """θ | y of the conjugate normal model, for any number of data."""

    contract: Contract = Amortised()
    narrow: float = 1.0
    shift: float = 0.0

    def draw(self, key: Any, target: Any, n: int) -> Any:
        mean, sd = target.posterior
        noise = jax.random.normal(key, (n, 2), target.y.dtype)
        return mean + self.shift * sd + self.narrow * sd * noise


def sum_out_last(target: Any) -> tuple[Any, tuple[int, ...]]:
    """Marginalise the last coordinate: log Σ exp(log γ). The prior is kept as prior · mean
    likelihood, so that the evidence is unchanged."""
    joint = target.table_prior + target.beta * target.table_likelihood
    table = jax.nn.logsumexp(joint, axis=-1)
    return replace(
        target, table_prior=jnp.zeros_like(table), table_likelihood=table, beta=jnp.ones(())
    ), tuple(range(target.dim - 1))
