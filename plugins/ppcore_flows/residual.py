"""Residual flows: T(x) = x + g(x) with a network g that contracts; free-form Jacobians.

The log-determinant is tr log(I + ∂g) = Σ_k (−1)^{k+1} tr((∂g)^k)/k. In use it is taken exactly from
the d × d Jacobian, so that the contract is ``Transport()`` in any dimension; training in high
dimension may take :meth:`ResidualMap.roulette`, an unbiased estimate of it, under which no
contract holds but the gradient of forward KL is still unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Transport
from ppcore.settings import check_between, check_count

NEWTON, CERTAIN, GOES_ON = 1e-3, 2, 0.5
MOST_TERMS = 20


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class ResidualMap:
    """T = T_L ∘ … ∘ T_1, T_l(x) = x + g_l(x) with ‖∂g_l‖ ≤ ``bound`` < 1.

    g(x) = κ B tanh(A x + a) + b with A and B divided by max(1, ‖·‖_F), since the Frobenius norm
    bounds the largest singular value and tanh has slope at most one. The inverse is the fixed
    point of x ↦ y − g(x), reached by the contraction and then by Newton steps; its derivative
    is that of the implicit function.

    Attributes
    ----------
    a, b : float[L, h, d], float[L, d, h]
    shift_in, shift_out : float[L, h], float[L, d]
    bound : float
        κ, static.

    Source: Behrmann, Grathwohl, Chen, Duvenaud & Jacobsen 2019, arXiv:1811.00995; Chen, Behrmann,
    Duvenaud & Jacobsen 2019, arXiv:1906.02735 (the estimate).
    """

    a: Any
    b: Any
    shift_in: Any
    shift_out: Any
    bound: float = 0.9
    contract: ClassVar[Contract] = Transport()

    def tree_flatten(self) -> tuple[tuple[Any, ...], float]:
        return (self.a, self.b, self.shift_in, self.shift_out), self.bound

    @classmethod
    def tree_unflatten(cls, bound: float, leaves: tuple[Any, ...]) -> ResidualMap:
        a, b, shift_in, shift_out = leaves
        return cls(a, b, shift_in, shift_out, bound)

    @property
    def dim(self) -> int:
        return int(self.a.shape[2])

    @property
    def _layers(self) -> tuple[Any, ...]:
        return self.a, self.b, self.shift_in, self.shift_out

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T/∂x|)``; x: float[d]."""

        def layer(carry: tuple[Any, Any], p: Any) -> tuple[Any, None]:
            x, total = carry
            y, jacobian = _with_jacobian(p, x, self.bound)
            return (y, total + jnp.linalg.slogdet(jacobian)[1]), None

        return jax.lax.scan(layer, (x, jnp.zeros((), x.dtype)), self._layers)[0]  # type: ignore[no-any-return]

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹/∂y|)``; y: float[d]."""

        def layer(carry: tuple[Any, Any], p: Any) -> tuple[Any, None]:
            y, total = carry
            x = _solve(p, y, self.bound)
            _, jacobian = _with_jacobian(p, x, self.bound)
            return (x, total - jnp.linalg.slogdet(jacobian)[1]), None

        start = (y, jnp.zeros((), y.dtype))
        return jax.lax.scan(layer, start, self._layers, reverse=True)[0]  # type: ignore[no-any-return]

    def roulette(self, key: Any, x: Any) -> tuple[Any, Any]:
        """``(T(x), an unbiased estimate of log|det ∂T/∂x|)``; x: float[d].

        Σ_k (−1)^{k+1} vᵀ(∂g)^k v / (k P(N ≥ k)) with v of random signs and a number N of terms that
        is at least 2 and goes on with probability ½. Each term is one vector–Jacobian product in
        place of the d of the exact determinant. Terms beyond the 20th, of size κ²⁰/20 at most and
        taken once in 2¹⁸, are left out.
        """

        def layer(carry: tuple[Any, Any], at: Any) -> tuple[Any, None]:
            x, total = carry
            p, k = at
            k_signs, k_terms = random.split(k)
            v = 2.0 * random.bernoulli(k_signs, jnp.full(x.shape, 0.5)).astype(x.dtype) - 1.0
            u = random.uniform(k_terms, (), x.dtype)
            y, pull = jax.vjp(lambda x: _residual(p, x, self.bound), x)
            order = jnp.arange(1, MOST_TERMS + 1)
            reach = GOES_ON ** jnp.maximum(order - CERTAIN, 0)
            weight = (
                jnp.where(u < reach, 1.0, 0.0) / reach * jnp.where(order % 2, 1.0, -1.0) / order
            )

            def term(row: Any, w: Any) -> tuple[Any, Any]:
                row = pull(row)[0]
                return row, w * (row @ v)

            _, terms = jax.lax.scan(term, v, weight.astype(x.dtype))
            return (x + y, total + jnp.sum(terms)), None

        keys = random.split(key, int(self.a.shape[0]))
        return jax.lax.scan(layer, (x, jnp.zeros((), x.dtype)), (self._layers, keys))[0]  # type: ignore[no-any-return]


def residual(
    key: Any, dim: int, layers: int = 8, width: int = 32, bound: float = 0.9
) -> ResidualMap:
    """A residual flow near the identity.

    Raises :class:`ppcore.errors.SettingsError` for values out of range.

    >>> import jax
    >>> residual(jax.random.key(0), 2, layers=1).contract
    Transport()
    """
    for name, value in (("dim", dim), ("layers", layers), ("width", width)):
        check_count(name, value, 1)
    check_between("bound", bound, 0, 1)
    k_a, k_b = random.split(key)
    a = random.normal(k_a, (layers, width, dim)) / np.sqrt(dim * width)
    b = 0.1 * random.normal(k_b, (layers, dim, width)) / np.sqrt(dim * width)
    return ResidualMap(a, b, jnp.zeros((layers, width)), jnp.zeros((layers, dim)), bound)


def _tamed(w: Any) -> Any:
    return w / jnp.maximum(1.0, jnp.sqrt(jnp.sum(w**2)))


def _residual(p: Any, x: Any, bound: float) -> Any:
    a, b, shift_in, shift_out = p
    return bound * _tamed(b) @ jnp.tanh(_tamed(a) @ x + shift_in) + shift_out


def _with_jacobian(p: Any, x: Any, bound: float) -> tuple[Any, Any]:
    """T(x) and I + κ B diag(1 − tanh²) A."""
    a, b, shift_in, shift_out = p
    a, b = _tamed(a), _tamed(b)
    h = jnp.tanh(a @ x + shift_in)
    jacobian = bound * (b * (1.0 - h**2)) @ a + jnp.eye(x.shape[0], dtype=x.dtype)
    return x + bound * b @ h + shift_out, jacobian


def _solve(p: Any, y: Any, bound: float) -> Any:
    """The x with x + g(x) = y, by as many contractions as leave Newton's method no doubt.

    The last Newton step is taken with derivatives, which makes them those of the inverse.
    """
    still_p, still_y = jax.lax.stop_gradient((p, y))
    rounds = int(np.ceil(np.log(NEWTON) / np.log(bound)))
    fall = jax.lax.fori_loop(
        0, rounds, lambda _, x: still_y - _residual(still_p, x, bound), still_y
    )

    def newton(_: Any, x: Any) -> Any:
        image, jacobian = _with_jacobian(still_p, x, bound)
        return x - jnp.linalg.solve(jacobian, image - still_y)

    x = jax.lax.stop_gradient(jax.lax.fori_loop(0, 4, newton, fall))
    _, jacobian = _with_jacobian(still_p, x, bound)
    miss = x + _residual(p, x, bound) - y
    return x - jnp.linalg.solve(jax.lax.stop_gradient(jacobian), miss)
