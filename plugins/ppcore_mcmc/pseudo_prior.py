"""A multivariate Student-t (or Gaussian) fitted to draws: a proposal, or a pseudo-prior."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Density

LOG_2PI = math.log(2 * math.pi)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class StudentT:
    """T_ν(location, factor factorᵀ) on R^d; with ``dof`` None the Gaussian, its limit.

    Draws are location + F z √s with z ~ N(0, I) and s = ν/χ²_ν.

    Parameters
    ----------
    location : float[d]
    factor : float[d, d]
        F, lower triangular with a positive diagonal.
    inverse : float[d, d]
        F⁻¹.
    dof : int or None
        ν; an integer, so that χ²_ν is a sum of squares.

    >>> import jax.numpy as jnp
    >>> normal = StudentT(jnp.zeros(2), jnp.eye(2), jnp.eye(2), None)
    >>> round(float(normal.log_prob(jnp.zeros(2))), 4)
    -1.8379
    """

    location: Any
    factor: Any
    inverse: Any
    dof: int | None
    contract: ClassVar[Contract] = Density()

    def tree_flatten(self) -> tuple[tuple[Any, Any, Any], int | None]:
        return (self.location, self.factor, self.inverse), self.dof

    @classmethod
    def tree_unflatten(cls, dof: int | None, leaves: tuple[Any, Any, Any]) -> StudentT:
        return cls(*leaves, dof)

    @property
    def dim(self) -> int:
        """d."""
        return int(self.location.shape[-1])

    def whiten(self, x: Any) -> Any:
        """F⁻¹(x − location); float[d] -> float[d]."""
        return self.inverse @ (x - self.location)

    def scale(self, key: Any, square: Any, count: int) -> Any:
        """A draw of s given ``count`` coordinates of square length |F⁻¹(x − location)|².

        (ν + square)/χ²_{ν + count}; with no coordinates the prior of s, and 1 for a Gaussian.
        """
        if self.dof is None:
            return jnp.ones((), self.location.dtype)
        z = random.normal(key, (self.dof + count,), self.location.dtype)
        return (self.dof + square) / jnp.sum(z**2)

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""

        def one(k: Any) -> Any:
            k_scale, k_normal = random.split(k)
            z = random.normal(k_normal, self.location.shape, self.location.dtype)
            return self.location + jnp.sqrt(self.scale(k_scale, 0.0, 0)) * (self.factor @ z)

        return jax.vmap(one)(random.split(key, n))

    def log_prob(self, x: Any) -> Any:
        """The normalised log density at x; float[d] -> float[]."""
        d = self.dim
        square = jnp.sum(self.whiten(x) ** 2)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.factor)))
        if self.dof is None:
            return -0.5 * (square + d * LOG_2PI) - log_det
        half, nu = 0.5 * (self.dof + d), self.dof
        constant = math.lgamma(half) - math.lgamma(0.5 * nu) - 0.5 * d * math.log(nu * math.pi)
        return constant - log_det - half * jnp.log1p(square / nu)


def fitted(draws: np.ndarray, dof: int | None, before: StudentT | None = None) -> StudentT:
    """The Student-t of given ν nearest to ``draws``: float[N, d].

    The maximum of the likelihood over location and scale, found by EM: weights
    (ν + d)/(ν + |F⁻¹(x − m)|²), then weighted moments. The scale is shrunk, with the weight of
    2 d draws, towards that of ``before``, or else its own diagonal, so that few draws of many
    coordinates give a matrix of full rank.

    Source: Liu & Rubin 1995, Statistica Sinica 5, 19-39.

    >>> draws = np.random.default_rng(0).normal(3.0, 2.0, (4000, 1))
    >>> q = fitted(draws, None)
    >>> bool(abs(q.location[0] - 3) < 0.2 and abs(q.factor[0, 0] - 2) < 0.1)
    True
    """
    n, d = draws.shape
    location = np.median(draws, axis=0)
    weight = np.ones(n)
    for _ in range(1 if dof is None else 8):
        location = weight @ draws / weight.sum()
        centred = draws - location
        scatter = (weight[:, None] * centred).T @ centred / n
        toward = np.diag(np.diagonal(scatter)) if before is None else _scatter(before)
        scatter = (n * scatter + 2 * d * toward) / (n + 2 * d)
        scatter += 1e-10 * np.diag(np.diagonal(scatter)) + 1e-300 * np.eye(d)
        factor = np.linalg.cholesky(scatter)
        inverse = np.linalg.inv(factor)
        if dof is not None:
            weight = (dof + d) / (dof + np.sum((centred @ inverse.T) ** 2, axis=1))
    dtype = draws.dtype
    return StudentT(location.astype(dtype), factor.astype(dtype), inverse.astype(dtype), dof)


def _scatter(q: StudentT) -> np.ndarray:
    factor = np.asarray(q.factor)
    return factor @ factor.T
