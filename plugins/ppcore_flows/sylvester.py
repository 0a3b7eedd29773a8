"""Sylvester flows: T(x) = x + Q R tanh(S Qᵀ x + b), exact determinants in d² work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Transport
from ppcore.settings import check_count

HALVINGS, NEWTON = 20, 6
MARGIN = 0.98


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SylvesterMap:
    """T = T_L ∘ … ∘ T_1, T_l(x) = x + Q R tanh(S Qᵀ x + b), Q orthogonal, R and S upper triangular.

    det ∂T = Π_i (1 + R_ii S_ii tanh′), since in the coordinates z = Qᵀ x the map is triangular.
    With R_ii S_ii > −1 every factor is positive, and T⁻¹ is found one coordinate of z after the
    other, each a monotone equation in one unknown.

    Attributes
    ----------
    reflections : float[L, r, d]
        Q = Π (I − 2 v vᵀ/|v|²) over the rows v.
    above_r, above_s : float[L, d, d]
        R and S above the diagonal; the rest is not used.
    log_s, gain : float[L, d]
        S_ii = exp(log_s), R_ii = e^{−log_s} (e^gain − 0.98): above −1/S_ii.
    shift_in, shift_out : float[L, d]
        b, and a shift of the whole.

    Source: van den Berg, Hasenclever, Tomczak & Welling 2018, arXiv:1803.05649.
    """

    reflections: Any
    above_r: Any
    above_s: Any
    log_s: Any
    gain: Any
    shift_in: Any
    shift_out: Any
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.log_s.shape[1])

    @property
    def _layers(self) -> tuple[Any, ...]:
        ends = self.log_s, self.gain, self.shift_in, self.shift_out
        return self.reflections, self.above_r, self.above_s, *ends

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T/∂x|)``; x: float[d]."""

        def layer(carry: tuple[Any, Any], p: Any) -> tuple[Any, None]:
            x, total = carry
            r, s = _triangles(p)
            z = _turn(p[0], x, back=True)
            h = jnp.tanh(s @ z + p[5])
            y = _turn(p[0], z + r @ h, back=False) + p[6]
            return (y, total + _log_det(r, s, h)), None

        return jax.lax.scan(layer, (x, jnp.zeros((), x.dtype)), self._layers)[0]  # type: ignore[no-any-return]

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹/∂y|)``; y: float[d]."""

        def layer(carry: tuple[Any, Any], p: Any) -> tuple[Any, None]:
            y, total = carry
            r, s = _triangles(p)
            z = _solve(r, s, p[5], _turn(p[0], y - p[6], back=True))
            log_det = _log_det(r, s, jnp.tanh(s @ z + p[5]))
            return (_turn(p[0], z, back=False), total - log_det), None

        start = (y, jnp.zeros((), y.dtype))
        return jax.lax.scan(layer, start, self._layers, reverse=True)[0]  # type: ignore[no-any-return]


def sylvester(key: Any, dim: int, layers: int = 8, reflections: int = 4) -> SylvesterMap:
    """A Sylvester flow near the identity, with ``reflections`` in each Q.

    Raises :class:`ppcore.errors.SettingsError` for values out of range.

    >>> import jax
    >>> sylvester(jax.random.key(0), 3, layers=2).contract
    Transport()
    """
    for name, value in (("dim", dim), ("layers", layers), ("reflections", reflections)):
        check_count(name, value, 1)
    k_turn, k_r, k_s = random.split(key, 3)
    axes = random.normal(k_turn, (layers, reflections, dim))
    above = [0.01 * random.normal(k, (layers, dim, dim)) for k in (k_r, k_s)]
    zero = jnp.zeros((layers, dim))
    # R_ii = e^gain − 0.98 = 0: the identity, up to what is above the diagonal of R.
    gain = jnp.full((layers, dim), np.log(MARGIN))
    return SylvesterMap(axes, above[0], above[1], zero, gain, zero, zero)


def _triangles(p: Any) -> tuple[Any, Any]:
    _, above_r, above_s, log_s, gain, _, _ = p
    s = jnp.exp(log_s)
    return (
        jnp.triu(above_r, 1) + jnp.diag((jnp.exp(gain) - MARGIN) / s),
        jnp.triu(above_s, 1) + jnp.diag(s),
    )


def _turn(axes: Any, x: Any, back: bool) -> Any:
    """Q x, or Qᵀ x."""

    def reflect(x: Any, v: Any) -> tuple[Any, None]:
        return x - 2.0 * v * (v @ x) / (v @ v), None

    return jax.lax.scan(reflect, x, axes, reverse=back)[0]


def _log_det(r: Any, s: Any, h: Any) -> Any:
    return jnp.sum(jnp.log1p(jnp.diagonal(r) * jnp.diagonal(s) * (1.0 - h**2)))


def _solve(r: Any, s: Any, shift: Any, y: Any) -> Any:
    """The z with z + R tanh(S z + b) = y: back substitution, each row by halving and Newton steps.

    A last Newton step of the whole is taken with derivatives, which makes them those of T⁻¹.
    """
    fixed_r, fixed_s, fixed_shift, fixed_y = jax.lax.stop_gradient((r, s, shift, y))

    def row(z: Any, i: Any) -> tuple[Any, None]:
        # What the coordinates after i contribute; z_i itself is still zero in z.
        h = jnp.tanh(fixed_s @ z + fixed_shift)
        after = jnp.where(jnp.arange(z.shape[0]) > i, fixed_r[i] * h, 0.0)
        rest, inner = fixed_y[i] - jnp.sum(after), fixed_s[i] @ z + fixed_shift[i]
        a, b = fixed_r[i, i], fixed_s[i, i]

        def value(t: Any) -> Any:
            return t + a * jnp.tanh(b * t + inner) - rest

        def halve(_: Any, ends: tuple[Any, Any]) -> tuple[Any, Any]:
            low, high = ends
            middle = 0.5 * (low + high)
            above = value(middle) > 0
            return jnp.where(above, low, middle), jnp.where(above, middle, high)

        def newton(_: Any, state: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            t, low, high = state
            f = value(t)
            low, high = jnp.where(f > 0, low, t), jnp.where(f > 0, t, high)
            slope = 1.0 + a * b * (1.0 - jnp.tanh(b * t + inner) ** 2)
            ahead = t - f / slope
            inside = (ahead >= low) & (ahead <= high)
            return jnp.where(inside, ahead, 0.5 * (low + high)), low, high

        ends = (rest - jnp.abs(a), rest + jnp.abs(a))
        low, high = jax.lax.fori_loop(0, HALVINGS, halve, ends)
        t, _, _ = jax.lax.fori_loop(0, NEWTON, newton, (0.5 * (low + high), low, high))
        return z.at[i].set(t), None

    order = jnp.arange(y.shape[0])[::-1]
    z = jax.lax.stop_gradient(jax.lax.scan(row, jnp.zeros_like(fixed_y), order)[0])
    bend = 1.0 - jnp.tanh(fixed_s @ z + fixed_shift) ** 2
    jacobian = jnp.eye(z.shape[0], dtype=z.dtype) + (fixed_r * bend) @ fixed_s
    miss = z + r @ jnp.tanh(s @ z + shift) - y
    return z - jax.scipy.linalg.solve_triangular(jacobian, miss)
