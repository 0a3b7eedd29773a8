"""The flow of a vector field in a fixed number of steps, as an exactly invertible map.

A numerical solution of ẋ = v(x, t) is not the solution, and the continuous trace formula is not
its log-determinant: weights made with it are wrong by what the steps miss. Here the map *is* the
sequence of K explicit midpoint steps of size h = 1/K,

    x_{k+1} = x_k + h g_k(x_k),   g_k(x) = v(x + ½h v(x, t_k), t_k + ½h),

and its density is that of the sequence, log|det| = Σ_k log det(I + h ∂g_k). With Lip(v) ≤ L,
Lip(h g_k) ≤ hL(1 + ½hL), which is below one for hL < √3 − 1: then every step is a bijection of
R^d (Banach), with a positive determinant, whose inverse is the limit of x ← y − h g_k(x). So K and
L are tied together, ``most_lipschitz(K)``, and no number of steps biases anything: few steps only
make a poorer map.

Source: Behrmann et al. 2019, arXiv:1811.00995 (steps that contract are invertible); Lipman et al.
2023, arXiv:2210.02747, and Liu, Gong & Liu 2023, arXiv:2209.03003 (the fields).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import contract as rules
from ppcore import random
from ppcore.contract import Contract, Density, Transport
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.settings import check_count

STIFFNESS = 0.7
"""hL at most: then Lip(h g) ≤ 0.945."""
LOG_2PI = 1.8378770664093453
MOST_SWEEPS = 1000


def most_lipschitz(count: int) -> float:
    """The steepest field that ``count`` steps can carry, 0.7 · count.

    >>> most_lipschitz(30)
    21.0
    """
    check_count("grid", count, 1)
    return STIFFNESS * count


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Affine:
    """x = shift + factor u, ``factor`` lower triangular with a positive diagonal.

    Attributes
    ----------
    shift : float[d]
    factor : float[d, d]
    """

    shift: Any
    factor: Any
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.shift.shape[0])

    def forward(self, u: Any) -> tuple[Any, Any]:
        """``(shift + factor u, log det)``; u: float[d]."""
        return self.shift + self.factor @ u, jnp.sum(jnp.log(jnp.diagonal(self.factor)))

    def inverse(self, x: Any) -> tuple[Any, Any]:
        """``(factor⁻¹ (x − shift), −log det)``; x: float[d]."""
        u = jax.scipy.linalg.solve_triangular(self.factor, x - self.shift, lower=True)
        return u, -jnp.sum(jnp.log(jnp.diagonal(self.factor)))


def identity(dim: int, dtype: Any) -> Affine:
    """x = u."""
    return Affine(jnp.zeros(dim, dtype), jnp.eye(dim, dtype=dtype))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class DiscreteFlow:
    """T = A_1 ∘ Φ ∘ A_0⁻¹, Φ the midpoint steps of ``velocity``; from t = 0 to t = 1.

    Attributes
    ----------
    source, target : Affine
        A_0 and A_1: the coordinates in which the two ends have mean zero and covariance I.
    velocity : callable pytree
        ``(x, t) -> float[d]`` with ``lipschitz`` ≤ ``most_lipschitz(count)``.
    count : int
        K; static.

    The conditions are those of :func:`discrete_flow`, which checks them.
    """

    source: Affine
    target: Affine
    velocity: Any
    count: int = field(metadata={"static": True})
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return self.source.dim

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T|)``; x: float[d]."""
        u, log_det = self.source.inverse(x)

        def advance(carry: tuple[Any, Any], t: Any) -> tuple[tuple[Any, Any], None]:
            u, total = carry
            slope, change = self._slope(u, t)
            return (u + change, total + jnp.linalg.slogdet(slope)[1]), None

        (u, log_det), _ = jax.lax.scan(advance, (u, log_det), self._times(u.dtype))
        y, last = self.target.forward(u)
        return y, log_det + last

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹|)``; y: float[d].

        Differentiable once, by the implicit function theorem.
        """
        u, log_det = self.target.inverse(y)

        def retreat(carry: tuple[Any, Any], t: Any) -> tuple[tuple[Any, Any], None]:
            u, total = carry
            fixed, still = jax.lax.stop_gradient((self, u))
            near = fixed._solved(still, t)
            slope, _ = fixed._slope(near, t)
            # A Newton step ends the search and carries the derivatives of the solution.
            before = near - jnp.linalg.solve(slope, near + self._change(near, t) - u)
            slope, _ = self._slope(before, t)
            return (before, total - jnp.linalg.slogdet(slope)[1]), None

        times = self._times(u.dtype)[::-1]
        (u, log_det), _ = jax.lax.scan(retreat, (u, log_det), times)
        x, last = self.source.forward(u)
        return x, log_det + last

    def _times(self, dtype: Any) -> Any:
        return jnp.arange(self.count, dtype=dtype) / self.count

    def _change(self, u: Any, t: Any) -> Any:
        half = 0.5 / self.count
        return self.velocity(u + half * self.velocity(u, t), t + half) / self.count

    def _slope(self, u: Any, t: Any) -> tuple[Any, Any]:
        """``(I + h ∂g, h g)``."""

        def twice(u: Any) -> tuple[Any, Any]:
            change = self._change(u, t)
            return change, change

        slope, change = jax.jacfwd(twice, has_aux=True)(u)
        return slope + jnp.eye(self.dim, dtype=u.dtype), change

    def _solved(self, y: Any, t: Any) -> Any:
        """u with u + h g(u) = y, by u ← y − h g(u), which contracts."""
        tight = 4.0 * jnp.finfo(y.dtype).eps

        def unfinished(carry: tuple[Any, Any, Any]) -> Any:
            u, gap, sweeps = carry
            return (gap > tight * (1.0 + jnp.max(jnp.abs(u)))) & (sweeps < MOST_SWEEPS)

        def sweep(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            u, _, sweeps = carry
            new = y - self._change(u, t)
            return new, jnp.max(jnp.abs(new - u)), sweeps + 1

        begin = (y, jnp.full((), jnp.inf, y.dtype), jnp.zeros((), jnp.int32))
        return jax.lax.while_loop(unfinished, sweep, begin)[0]


def discrete_flow(
    velocity: Any, count: int, source: Affine | None = None, target: Affine | None = None
) -> DiscreteFlow:
    """The map of :class:`DiscreteFlow`, checked.

    Raises
    ------
    ppcore.errors.UnsupportedError
        If the field is too steep for ``count`` steps to be invertible, or tells no Lipschitz bound.
    ppcore.errors.SettingsError
        If ``count`` is no positive integer, or an affine map has another dimension.
    """
    limit = most_lipschitz(count)
    bound = getattr(velocity, "lipschitz", None)
    if bound is None or not np.isfinite(float(bound)):
        raise UnsupportedError(
            "A discrete flow needs a vector field with a finite Lipschitz bound (attribute "
            f"`lipschitz`), and {type(velocity).__name__} has {bound!r}."
        )
    needed = int(np.ceil(float(bound) / STIFFNESS - 1e-6))
    if needed > count:
        raise UnsupportedError(
            f"{count} steps are invertible for fields with Lipschitz bounds up to {limit:g}; this "
            f"one has {float(bound):.4g}. Use at least {needed} "
            f"steps, or velocity.capped({limit:g})."
        )
    dtype = jnp.result_type(*jax.tree.leaves(velocity))
    ends = [identity(velocity.dim, dtype) if a is None else a for a in (source, target)]
    if any(end.dim != velocity.dim for end in ends):
        raise SettingsError(
            f"The ends of the flow have {ends[0].dim} and {ends[1].dim} coordinates, the field "
            f"{velocity.dim}."
        )
    return DiscreteFlow(ends[0], ends[1], velocity, count)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Pushed:
    """The law of T(u), u ~ N(0, I): log q(x) = log N(T⁻¹(x)) + log|det ∂T⁻¹(x)|.

    Attributes
    ----------
    map : Map
        T, a pytree.
    """

    map: Any

    @property
    def contract(self) -> Contract:
        return rules.push(Density(), self.map.contract)

    @property
    def dim(self) -> int:
        return int(self.map.dim)

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        return self.sample_and_log_prob(key, n)[0]

    def log_prob(self, x: Any) -> Any:
        """log q(x); float[d] -> float[]."""
        u, log_det = self.map.inverse(x)
        return standard_normal(u) + log_det

    def sample_and_log_prob(self, key: Any, n: int) -> tuple[Any, Any]:
        """Draws and their log q by the forward map alone: float[n, d], float[n]."""
        u = random.normal(key, (n, self.dim))
        x, log_det = jax.vmap(self.map.forward)(u)
        return x, jax.vmap(standard_normal)(u) - log_det


def standard_normal(u: Any) -> Any:
    """log N(u; 0, I); float[d] -> float[]."""
    return -0.5 * jnp.sum(u**2) - 0.5 * u.shape[-1] * LOG_2PI
