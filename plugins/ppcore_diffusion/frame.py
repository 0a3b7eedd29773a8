"""Coordinates, reference laws and the path between them, with what a particle knows cached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.paths import Linear, scaled

LOG_2PI = 1.8378770664093453


def log_normal(x: Any, mean: Any, sd: Any) -> Any:
    """log N(x; mean, diag sd²); float[d] -> float[].

    >>> round(float(log_normal(jnp.zeros(2), 0.0, 1.0)), 4)
    -1.8379
    """
    sd = jnp.broadcast_to(sd, x.shape)
    z = (x - mean) / sd
    return -0.5 * jnp.sum(z**2) - jnp.sum(jnp.log(sd)) - 0.5 * x.shape[-1] * LOG_2PI


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Frame:
    """The target in coordinates u, x = middle + F u: log γ(x) + log |det F|.

    Attributes
    ----------
    target : Target
    middle : float[d]
    factor : Preconditioner
        F, of :mod:`ppcore.tuning.preconditioner`.
    log_det : float[]
        log |det F|.
    """

    target: Any
    middle: Any
    factor: Any
    log_det: Any

    @property
    def dim(self) -> int:
        return int(self.middle.shape[0])

    def place(self, u: Any) -> Any:
        """x at u: float[..., d]."""
        return self.middle + self.factor.push(u)

    def log_density(self, u: Any) -> Any:
        return self.target.log_density(self.place(u)) + self.log_det

    def log_prior(self, u: Any) -> Any:
        return self.target.log_prior(self.place(u)) + self.log_det

    def look(self, u: Any) -> tuple[Any, Any]:
        """log γ and its gradient at u, −∞ and 0 where they are not finite: float[], float[d]."""
        value, slope = jax.value_and_grad(Frame.log_density, argnums=1)(self, u)
        return jnp.where(jnp.isnan(value), -jnp.inf, value), finite(slope)


def finite(g: Any) -> Any:
    """``g`` with 0 in the place of what is not finite."""
    return jnp.where(jnp.isfinite(g), g, 0.0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mixture:
    """q_0 = Σ_c π_c N(m_c, diag σ_c²), π = softmax(logits); all of it is learned.

    Attributes
    ----------
    logits : float[C]
    means, log_scales : float[C, d]
    """

    logits: Any
    means: Any
    log_scales: Any

    def log_density(self, u: Any) -> Any:
        """log q_0(u), normalised; float[d] -> float[]."""
        parts = jax.vmap(lambda m, s: log_normal(u, m, jnp.exp(s)))(self.means, self.log_scales)
        return jax.nn.logsumexp(parts + jax.nn.log_softmax(self.logits))

    def look(self, u: Any) -> tuple[Any, Any]:
        """log q_0 and its gradient: float[], float[d]."""
        return jax.value_and_grad(Mixture.log_density, argnums=1)(self, u)

    def draw(self, key: Any, n: int) -> tuple[Any, Any]:
        """``n`` draws, and the part that each comes from: float[n, d], int[n]."""
        k_which, k_normal = random.split(key)
        which = random.categorical(k_which, jax.lax.stop_gradient(self.logits), (n,))
        z = random.normal(k_normal, (n, self.means.shape[1]), self.means.dtype)
        return self.means[which] + jnp.exp(self.log_scales[which]) * z, which


def standard(dim: int, dtype: Any) -> Mixture:
    """N(0, I) on R^dim as a mixture of one part."""
    return Mixture(jnp.zeros(1, dtype), jnp.zeros((1, dim), dtype), jnp.zeros((1, dim), dtype))


class Point(NamedTuple):
    """A particle and what is known of the target there.

    ``u``: float[d]; ``score``, ``value``: ∇ log γ and log γ; ``root``: the first ancestor;
    ``v``, ``kick``: of underdamped samplers, the velocity, and the velocity after the last
    refreshment; float[0] elsewhere.
    """

    u: Any
    score: Any
    value: Any
    root: Any
    v: Any
    kick: Any


def pack(point: Point) -> Any:
    """A point as one row of a population: float[2d + 2] or float[4d + 2]."""
    value = jnp.stack([point.value, point.root])
    return jnp.concatenate([point.u, point.score, value, point.v, point.kick])


def unpack(row: Any, dim: int) -> Point:
    """The inverse of :func:`pack`."""
    u, score, rest = row[:dim], row[dim : 2 * dim], row[2 * dim + 2 :]
    v, kick = jnp.split(rest, 2)
    return Point(u, score, row[2 * dim], row[2 * dim + 1], v, kick)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Law:
    """γ_b = q_0^{1−b} γ^b (times N(v; 0, I)) at packed points, from what they know.

    Attributes
    ----------
    reference : Mixture
    beta : float[]
        b.
    """

    reference: Any
    beta: Any

    def log_density(self, row: Any) -> Any:
        point = unpack(row, int(self.reference.means.shape[1]))
        known = scaled(1.0 - self.beta, self.reference.log_density(point.u))
        moving = log_normal(point.v, 0.0, 1.0) if point.v.size else 0.0
        return known + scaled(self.beta, point.value) + moving


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Route:
    """The geometric path from q_0 to the target, of packed points; a :class:`ppcore.paths.Path`.

    Each step costs one gradient of the target, at the point where it ends.

    Attributes
    ----------
    reference : Mixture
    target : Frame
    """

    reference: Any
    target: Any

    @property
    def dim(self) -> int:
        return self.target.dim

    @property
    def gauge(self) -> Linear:
        return Linear(1.0)

    def change(self, x: Any) -> Any:
        """log γ − log q_0 at a packed point; float[]."""
        point = unpack(x, self.dim)
        return point.value - self.reference.log_density(point.u)

    def at(self, b: Any) -> Law:
        return Law(self.reference, b)

    def score(self, b: Any, point: Point) -> Any:
        """∇ log γ_b; float[d]."""
        return (1.0 - b) * self.reference.look(point.u)[1] + b * point.score

    def visit(self, u: Any, root: Any, v: Any, kick: Any) -> Point:
        """The point at u, with the target looked at."""
        value, score = self.target.look(u)
        return Point(u, score, value, root, v, kick)

    def start(self, key: Any, n: int, moving: bool) -> tuple[Any, Any]:
        """``n`` packed draws from q_0 (and velocities from N(0, I)), and their parts."""
        k_place, k_move = random.split(key)
        u, which = self.reference.draw(k_place, n)
        width = self.dim if moving else 0
        v = random.normal(k_move, (n, width), u.dtype)
        rows = jax.vmap(lambda *p: pack(self.visit(*p)))(u, jnp.arange(n) * 1.0, v, v)
        return rows, which
