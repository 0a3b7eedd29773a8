"""Affine maps, frozen (whitening) or trained (the Gaussian families), and maps in a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, Transport
from ppcore.random import normal


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Whiten:
    """T(u) = shift + F u with F lower triangular; training leaves it alone.

    Attributes
    ----------
    shift : float[d]
    factor : float[d, d]
        F.
    """

    shift: Any
    factor: Any
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.shift.shape[0])

    def forward(self, u: Any) -> tuple[Any, Any]:
        """``(shift + F u, log|det F|)``; u: float[d]."""
        shift, factor = jax.lax.stop_gradient((self.shift, self.factor))
        return shift + factor @ u, jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor))))

    def inverse(self, x: Any) -> tuple[Any, Any]:
        """``(F⁻¹(x − shift), −log|det F|)``; x: float[d]."""
        shift, factor = jax.lax.stop_gradient((self.shift, self.factor))
        u = jax.scipy.linalg.solve_triangular(factor, x - shift, lower=True)
        return u, -jnp.sum(jnp.log(jnp.abs(jnp.diagonal(factor))))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Diagonal:
    """T(u) = shift + exp(log_scale) u: the mean-field Gaussians.

    Attributes
    ----------
    shift, log_scale : float[d]
    """

    shift: Any
    log_scale: Any
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.shift.shape[0])

    def forward(self, u: Any) -> tuple[Any, Any]:
        """``(T(u), log|det ∂T|)``; u: float[d]."""
        return self.shift + jnp.exp(self.log_scale) * u, jnp.sum(self.log_scale)

    def inverse(self, x: Any) -> tuple[Any, Any]:
        """``(T⁻¹(x), log|det ∂T⁻¹|)``; x: float[d]."""
        return (x - self.shift) * jnp.exp(-self.log_scale), -jnp.sum(self.log_scale)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowerTriangular:
    """T(u) = shift + L u, diag L = exp(log_scale): all Gaussians.

    Attributes
    ----------
    shift, log_scale : float[d]
    below : float[d, d]
        L below the diagonal, in units of the row's scale; the rest is not used.
    """

    shift: Any
    log_scale: Any
    below: Any
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.shift.shape[0])

    @property
    def units(self) -> Any:
        """L in units of each row's scale: float[d, d]."""
        return jnp.tril(self.below, -1) + jnp.eye(self.dim, dtype=self.shift.dtype)

    def forward(self, u: Any) -> tuple[Any, Any]:
        """``(T(u), log|det L|)``; u: float[d]."""
        return self.shift + jnp.exp(self.log_scale) * (self.units @ u), jnp.sum(self.log_scale)

    def inverse(self, x: Any) -> tuple[Any, Any]:
        """``(T⁻¹(x), −log|det L|)``; x: float[d]."""
        scaled = (x - self.shift) * jnp.exp(-self.log_scale)
        u = jax.scipy.linalg.solve_triangular(self.units, scaled, lower=True, unit_diagonal=True)
        return u, -jnp.sum(self.log_scale)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """T(u) = shift + exp(log_scale) (u + A Bᵀ u), A and B of r columns; d·r work.

    The Gaussians whose covariance is diagonal but for 2r directions. |det| by the r × r matrix
    I + Bᵀ A (Sylvester), inverse by Woodbury.

    Attributes
    ----------
    shift, log_scale : float[d]
    a, b : float[d, r]
    """

    shift: Any
    log_scale: Any
    a: Any
    b: Any
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.shift.shape[0])

    def _core(self) -> Any:
        return jnp.eye(self.a.shape[1], dtype=self.a.dtype) + self.b.T @ self.a

    def forward(self, u: Any) -> tuple[Any, Any]:
        """``(T(u), log|det ∂T|)``; u: float[d]."""
        y = self.shift + jnp.exp(self.log_scale) * (u + self.a @ (self.b.T @ u))
        return y, self._log_det()

    def inverse(self, x: Any) -> tuple[Any, Any]:
        """``(T⁻¹(x), log|det ∂T⁻¹|)``; x: float[d]."""
        v = (x - self.shift) * jnp.exp(-self.log_scale)
        return v - self.a @ jnp.linalg.solve(self._core(), self.b.T @ v), -self._log_det()

    def _log_det(self) -> Any:
        return jnp.sum(self.log_scale) + jnp.linalg.slogdet(self._core())[1]


def lower_triangular(dim: int, dtype: Any) -> LowerTriangular:
    """The identity as :class:`LowerTriangular`."""
    zero = jnp.zeros(dim, dtype)
    return LowerTriangular(zero, zero, jnp.zeros((dim, dim), dtype))


def diagonal(dim: int, dtype: Any) -> Diagonal:
    """The identity as :class:`Diagonal`."""
    zero = jnp.zeros(dim, dtype)
    return Diagonal(zero, zero)


def low_rank(key: Any, dim: int, rank: int, dtype: Any) -> LowRank:
    """The identity as :class:`LowRank`, with random directions in A for B to pick up."""
    zero = jnp.zeros(dim, dtype)
    a = normal(key, (dim, rank), dtype) / np.sqrt(dim)
    return LowRank(zero, zero, a, jnp.zeros((dim, rank), dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Row:
    """T = T_n ∘ … ∘ T_1, log-determinants added.

    Attributes
    ----------
    maps : tuple of Map
        T_1 first.
    """

    maps: tuple[Any, ...]
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.maps[0].dim)

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T|)``; x: float[d]."""
        total = jnp.zeros((), x.dtype)
        for part in self.maps:
            x, log_det = part.forward(x)
            total = total + log_det
        return x, total

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹|)``; y: float[d]."""
        total = jnp.zeros((), y.dtype)
        for part in reversed(self.maps):
            y, log_det = part.inverse(y)
            total = total + log_det
        return y, total
