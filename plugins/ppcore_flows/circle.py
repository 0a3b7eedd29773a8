"""Flows of angles: periodic splines on [−π, π), and coordinates that are cut open elsewhere.

A map C of the circle is held by its lift to the line, T(x + 2π) = T(x) + 2π: a bijection of R with
the same derivative, which is C once angles are taken modulo 2π.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Transport
from ppcore.settings import check_count

PI, TURN = float(np.pi), float(2 * np.pi)
LEAST = 1e-3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CircleMap:
    """Couplings on the torus: half of the angles moved by periodic splines given the others.

    y_B = σ(x_B; n(cos x_A, sin x_A)) + φ, y_A = x_A, σ a monotone rational-quadratic spline of
    [−π, π) onto itself whose slopes at both ends agree; the parts change places from layer to
    layer. One angle alone has a spline without a network.

    Attributes
    ----------
    inner : float[L, h, 2m]
        First layer of the networks n, m = ⌊d/2⌋ angles each.
    shift : float[L, h]
    outer : float[L, d − m, 3K + 1, h]
        To the widths, heights and slopes of K bins, and φ.
    base : float[L, d − m, 3K + 1]

    Source: Rezende, Papamakarios, Racanière, Albergo, Kanwar, Shanahan & Cranmer 2020,
    arXiv:2002.02428.
    """

    inner: Any
    shift: Any
    outer: Any
    base: Any
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        return int(self.base.shape[1] + self.inner.shape[2] // 2)

    @property
    def _layers(self) -> tuple[Any, ...]:
        return self.inner, self.shift, self.outer, self.base

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T/∂x|)``; x: float[d], radians."""

        def layer(carry: tuple[Any, Any], p: Any) -> tuple[Any, None]:
            x, total = carry
            given, moving = x[: self._given], x[self._given :]
            y, log_slope = jax.vmap(circle_spline)(moving, _conditioned(p, given))
            # Those that moved come first in the next layer.
            return (jnp.concatenate([y, given]), total + jnp.sum(log_slope)), None

        return jax.lax.scan(layer, (x, jnp.zeros((), x.dtype)), self._layers)[0]  # type: ignore[no-any-return]

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹/∂y|)``; y: float[d], radians."""

        def layer(carry: tuple[Any, Any], p: Any) -> tuple[Any, None]:
            y, total = carry
            moved, given = y[: self.dim - self._given], y[self.dim - self._given :]
            x, log_slope = jax.vmap(circle_spline_inverse)(moved, _conditioned(p, given))
            return (jnp.concatenate([given, x]), total - jnp.sum(log_slope)), None

        start = (y, jnp.zeros((), y.dtype))
        return jax.lax.scan(layer, start, self._layers, reverse=True)[0]  # type: ignore[no-any-return]

    @property
    def _given(self) -> int:
        return int(self.inner.shape[2] // 2)


def circle(key: Any, dim: int, layers: int = 4, width: int = 32, bins: int = 8) -> CircleMap:
    """A map of ``dim`` angles near the identity.

    Raises :class:`ppcore.errors.SettingsError` for values out of range.

    >>> import jax
    >>> circle(jax.random.key(0), 1).contract
    Transport()
    """
    for name, value, least in (
        ("dim", dim, 1),
        ("layers", layers, 1),
        ("width", width, 1),
        ("bins", bins, 2),
    ):
        check_count(name, value, least)
    given = dim // 2
    moving, size = dim - given, 3 * bins + 1
    k_inner, k_outer = random.split(key)
    inner = random.normal(k_inner, (layers, width, 2 * given)) / np.sqrt(max(2 * given, 1))
    outer = 0.01 * random.normal(k_outer, (layers, moving, size, width)) / np.sqrt(width)
    zero = jnp.zeros((layers, width)), jnp.zeros((layers, moving, size))
    return CircleMap(inner, zero[0], outer, zero[1])


def _conditioned(p: Any, given: Any) -> Any:
    inner, shift, outer, base = p
    seen = jnp.concatenate([jnp.cos(given), jnp.sin(given)])
    return base + outer @ jnp.tanh(inner @ seen + shift)


def _knots(raw: Any) -> tuple[Any, ...]:
    """Edges of the bins in x and y, float[K + 1] each, slopes there, and φ."""
    bins = (raw.shape[0] - 1) // 3

    def edges(part: Any) -> Any:
        share = LEAST + (1.0 - LEAST * bins) * jax.nn.softmax(part)
        inside = -PI + TURN * jnp.cumsum(share)[:-1]
        ends = jnp.full(1, -PI, raw.dtype), jnp.full(1, PI, raw.dtype)
        return jnp.concatenate([ends[0], inside, ends[1]])

    # softplus(raw + c) = 1 at raw = 0.
    slopes = LEAST + jax.nn.softplus(raw[2 * bins : 3 * bins] + np.log(np.expm1(1.0 - LEAST)))
    return edges(raw[:bins]), edges(raw[bins : 2 * bins]), jnp.append(slopes, slopes[0]), raw[-1]


def circle_spline(x: Any, raw: Any) -> tuple[Any, Any]:
    """``(σ(x) + φ, log σ′(x))``, lifted; x: float[], raw: float[3K + 1]."""
    xs, ys, slopes, phase = _knots(raw)
    turns = TURN * jnp.floor((x + PI) / TURN)
    inside = x - turns
    left, right, low, high, d0, d1 = _bin(xs, xs, ys, slopes, inside)
    t = (inside - left) / (right - left)
    s = (high - low) / (right - left)
    below = s + (d1 + d0 - 2 * s) * t * (1 - t)
    y = low + (high - low) * (s * t**2 + d0 * t * (1 - t)) / below
    return y + turns + phase, _log_slope(t, s, d0, d1, below)


def circle_spline_inverse(y: Any, raw: Any) -> tuple[Any, Any]:
    """``(x, log σ′(x))`` with σ(x) + φ = y; y: float[], raw: float[3K + 1]."""
    xs, ys, slopes, phase = _knots(raw)
    y = y - phase
    turns = TURN * jnp.floor((y + PI) / TURN)
    inside = y - turns
    left, right, low, high, d0, d1 = _bin(ys, xs, ys, slopes, inside)
    s = (high - low) / (right - left)
    up = inside - low
    bent = d1 + d0 - 2 * s
    a, b = (high - low) * (s - d0) + up * bent, (high - low) * d0 - up * bent
    c = -s * up
    # The root of a t² + b t + c that lies in [0, 1], without cancellation.
    t = 2 * c / (-b - jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0)))
    below = s + bent * t * (1 - t)
    return left + (right - left) * t + turns, _log_slope(t, s, d0, d1, below)


def _bin(by: Any, xs: Any, ys: Any, slopes: Any, at: Any) -> tuple[Any, ...]:
    i = jnp.clip(jnp.searchsorted(by, at, side="right") - 1, 0, by.shape[0] - 2)
    return xs[i], xs[i + 1], ys[i], ys[i + 1], slopes[i], slopes[i + 1]


def _log_slope(t: Any, s: Any, d0: Any, d1: Any, below: Any) -> Any:
    top = d1 * t**2 + 2 * s * t * (1 - t) + d0 * (1 - t) ** 2
    return 2 * jnp.log(s) + jnp.log(top) - 2 * jnp.log(below)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Recut:
    """Angles turned by φ, in coordinates of the line: 2π σ(x) − π = 2π σ(u) − π + φ modulo 2π.

    An unconstrained angle is cut open at ±π, and mass there lies at both ends of the line. u = 0
    becomes θ = φ, so that the cut is opposite to φ, where the mass should not be.

    Attributes
    ----------
    phase : float[k]
        φ of the coordinates ``which``; training leaves it alone.
    which : tuple of int
        Coordinates of x that are angles.
    dim : int
    """

    phase: Any
    which: tuple[int, ...]
    dim: int
    contract: ClassVar[Contract] = Transport()

    def tree_flatten(self) -> tuple[tuple[Any], tuple[tuple[int, ...], int]]:
        return (self.phase,), (self.which, self.dim)

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: tuple[Any]) -> Recut:
        return cls(leaves[0], *static)

    def forward(self, u: Any) -> tuple[Any, Any]:
        """``(T(u), log|det ∂T|)``; u: float[d]."""
        return self._turned(u, jax.lax.stop_gradient(self.phase))

    def inverse(self, x: Any) -> tuple[Any, Any]:
        """``(T⁻¹(x), log|det ∂T⁻¹|)``; x: float[d]."""
        return self._turned(x, -jax.lax.stop_gradient(self.phase))

    def _turned(self, x: Any, phase: Any) -> tuple[Any, Any]:
        at = np.array(self.which)
        old = x[at]
        share = jnp.mod(jax.nn.sigmoid(old) + phase / TURN, 1.0)
        new = jnp.log(share) - jnp.log1p(-share)
        # log σ′(x) = −x − 2 log(1 + e^{−x}), even in x.
        change = _log_sigmoid_slope(old) - _log_sigmoid_slope(new)
        return x.at[at].set(new), jnp.sum(change)


def _log_sigmoid_slope(x: Any) -> Any:
    size = jnp.abs(x)
    return -size - 2.0 * jnp.log1p(jnp.exp(-size))


def angles(target: Any) -> tuple[int, ...]:
    """Coordinates of x that are angles of a declared model: those of sites on the circle."""
    diagram = getattr(target, "diagram", None)
    if diagram is None or not hasattr(target, "site_slices"):
        return ()
    found: list[int] = []
    for box in diagram.boxes():
        on_circle = box.op == "sample" and box.cod[0].support.name == "circular"
        place = target.site_slices.get(str(box.name)) if on_circle else None
        found += range(place.start, place.stop) if place is not None else ()
    return tuple(found)


def recut(key: Any, target: Any, which: tuple[int, ...]) -> Recut:
    """Angles cut open opposite to the best of 256 reference draws."""
    dim = int(target.dim)
    if target.has_reference:
        x = target.sample_reference(key, 256)
    else:
        x = random.normal(key, (256, dim))
    level = jax.vmap(target.log_density)(x)
    best = x[jnp.argmax(jnp.where(jnp.isfinite(level), level, -jnp.inf))]
    phase = TURN * jax.nn.sigmoid(best[np.array(which)]) - PI
    return Recut(phase, which, dim)
