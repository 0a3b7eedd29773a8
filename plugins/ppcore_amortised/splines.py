"""Monotone rational-quadratic splines, elementwise: the identity beyond [−reach, reach]."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

LEAST = 1e-3
ONE = 0.5413248546129181
"""softplus(ONE) = 1: a raw slope of zero is a slope of one."""


def sizes(bins: int) -> int:
    """How many raw numbers one spline takes: widths, heights and inner slopes.

    >>> sizes(8)
    23
    """
    return 3 * bins - 1


def knots(raw: Any, reach: float) -> tuple[Any, Any, Any]:
    """Raw numbers float[..., 3 K − 1] -> knots x, knots y, slopes: float[..., K + 1] each.

    All zeros give the identity.
    """
    bins = (raw.shape[-1] + 1) // 3
    widths, heights, slopes = jnp.split(raw, (bins, 2 * bins), axis=-1)

    def places(logits: Any) -> Any:
        share = LEAST + (1 - LEAST * bins) * jax.nn.softmax(logits, axis=-1)
        inner = jnp.cumsum(share, axis=-1)[..., :-1]
        ends = jnp.ones((*share.shape[:-1], 1), raw.dtype)
        return reach * (2 * jnp.concatenate([0 * ends, inner, ends], axis=-1) - 1)

    ends = jnp.ones((*slopes.shape[:-1], 1), raw.dtype)
    inner = LEAST + (1 - LEAST) * jax.nn.softplus(slopes + ONE)
    return places(widths), places(heights), jnp.concatenate([ends, inner, ends], axis=-1)


def _bin(edges: Any, at: Any) -> Any:
    """Which bin ``at`` lies in, as ones and zeros: float[..., K].

    Multiplied and summed rather than gathered: the gradient of a gather is a slow scatter.
    """
    above = (at[..., None] >= edges[..., 1:-1]).astype(at.dtype)
    first = jnp.ones((*above.shape[:-1], 1), at.dtype)
    reached = jnp.concatenate([first, above], axis=-1)
    return reached - jnp.concatenate([above, 0 * first], axis=-1)


def _pieces(which: Any, x: Any, y: Any, slopes: Any) -> tuple[Any, ...]:
    def pick(values: Any) -> Any:
        return jnp.sum(which * values, axis=-1)

    left, right = pick(x[..., :-1]), pick(x[..., 1:])
    low, high = pick(y[..., :-1]), pick(y[..., 1:])
    return left, right - left, low, high - low, pick(slopes[..., :-1]), pick(slopes[..., 1:])


def forward(raw: Any, value: Any, reach: float) -> tuple[Any, Any]:
    """σ(value) and log σ′(value), elementwise; raw: float[..., 3 K − 1], value: float[...].

    With t = (x − x_k)/w and s = h/w,
    σ = y_k + h (s t² + δ_k t(1−t)) / (s + (δ_{k+1} + δ_k − 2s) t(1−t)).

    Source: Durkan, Bekasov, Murray & Papamakarios 2019, arXiv:1906.04032; Gregory & Delbourgo
    1982, doi:10.1093/imanum/2.2.123.
    """
    x, y, slopes = knots(raw, reach)
    inside = jnp.abs(value) < reach
    v = jnp.where(inside, value, 0.0)
    left, w, low, h, d0, d1 = _pieces(_bin(x, v), x, y, slopes)
    s, t = h / w, (v - left) / w
    cross = t * (1 - t)
    below = s + (d1 + d0 - 2 * s) * cross
    out = low + h * (s * t**2 + d0 * cross) / below
    log_slope = (
        2 * jnp.log(s) + jnp.log(d1 * t**2 + 2 * s * cross + d0 * (1 - t) ** 2) - 2 * jnp.log(below)
    )
    return jnp.where(inside, out, value), jnp.where(inside, log_slope, 0.0)


def inverse(raw: Any, value: Any, reach: float) -> Any:
    """σ⁻¹(value), elementwise: the root of a quadratic in t that lies in [0, 1]."""
    x, y, slopes = knots(raw, reach)
    inside = jnp.abs(value) < reach
    v = jnp.where(inside, value, 0.0)
    left, w, low, h, d0, d1 = _pieces(_bin(y, v), x, y, slopes)
    s, up = h / w, v - low
    bend = up * (d1 + d0 - 2 * s)
    a, b, c = h * (s - d0) + bend, h * d0 - bend, -s * up
    root = jnp.sqrt(jnp.maximum(b**2 - 4 * a * c, 0.0))
    return jnp.where(inside, left + w * 2 * c / (-b - root), value)
