"""A tempered run that is thrown away: where the way is steep, how wide the target is on it.

Particles are reweighted by γ_{b′}/γ_b, resampled and moved by Metropolis-adjusted Langevin steps,
b′ chosen so that the effective sample size stays above a share. It yields temperatures, scales and
a rough population, from which coordinates, a reference and step sizes are made. Nothing of it is in
the weights of the engine, which are exact for any of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.errors import PopulationError
from ppcore.stages.resampling import systematic
from ppcore.tuning.noise import spawned
from ppcore_diffusion.frame import Frame, finite

PARTICLES, BLOCK, MOVES, MOST = 512, 16, 4, 40
ESS, ACCEPT = 0.9, 0.6
REST = 2
NORMAL_MEDIAN = 0.6745


class Front(NamedTuple):
    """Where the pilot stands: b, log step, places, and both log densities with gradients there."""

    b: Any
    log_step: Any
    u: Any
    q: tuple[Any, Any]
    t: tuple[Any, Any]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class PriorIn:
    """The target's own prior, in the coordinates of a frame, to begin from."""

    frame: Frame

    def look(self, u: Any) -> tuple[Any, Any]:
        """log prior and its gradient at u: float[], float[d]."""
        value, slope = jax.value_and_grad(Frame.log_prior, argnums=1)(self.frame, u)
        return value, finite(slope)


@dataclass(frozen=True)
class Scouted:
    """What a pilot found.

    Attributes
    ----------
    betas, lengths : float[L]
        Temperatures, and the relative standard deviation of the weights of each step.
    scales : float[L, d]
        1/√E[(∂_i log γ_b)²] at each of them, by medians: how wide γ_b is for a step along i.
    u, scores : float[N, d]
        The last population, and ∇ log γ at it.
    values : float[N]
        log γ at it.
    gradients : int
    """

    betas: np.ndarray
    lengths: np.ndarray
    scales: np.ndarray
    u: np.ndarray
    scores: np.ndarray
    values: np.ndarray
    gradients: int

    def knots(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Temperatures that cut the way into ``count`` equal lengths, and scales in their middles.

        float[count + 1], float[count, d].
        """
        way = np.concatenate([[0.0], np.cumsum(self.lengths)])
        way = way / way[-1] + 1e-6 * np.arange(len(way))
        at = np.linspace(0.0, way[-1], 2 * count + 1)
        betas = np.interp(at, way, np.concatenate([[0.0], self.betas]))
        first = np.concatenate([self.scales[:1], self.scales])
        scales = [np.interp(at[1::2], way, np.log(column)) for column in first.T]
        return betas[::2], np.exp(np.stack(scales, axis=1))


def scout(
    key: Any, source: Any, target: Frame, start: Any, report: Callable[[float], None]
) -> Scouted:
    """Walk from ``source``, of which ``start`` (float[N, d]) are draws, to ``target``.

    Raises :class:`ppcore.errors.PopulationError` if it does not arrive, or no draw has a finite
    log density.
    """
    keys = spawned(key, MOST)
    front = _begin(source, target, start)
    if not bool(jnp.isfinite(front.t[0]).any()):
        raise PopulationError(
            f"The log density is not finite at any of {len(start)} first draws. Check that the "
            "data lie in the support of the likelihood, or ask for another reference.",
            None,
            "pilot",
            0.0,
        )
    seen: list[Any] = []
    after = 0
    for k in keys:
        front, made = _block(k, source, target, front)
        seen.append(jax.tree.map(np.asarray, made))
        report(float(front.b))
        after += float(front.b) >= 1.0
        if after == REST:
            break
    if not float(front.b) >= 1.0:
        raise PopulationError(
            f"The pilot run stands at inverse temperature {float(front.b):.3g} after "
            f"{MOST * BLOCK} steps: the way from the reference to the target is too long. Use a "
            "proper, narrower prior, or reference='laplace'.",
            None,
            "pilot",
            float(front.b),
        )
    betas, lengths, scales = (np.concatenate(parts) for parts in zip(*seen, strict=True))
    last = int(np.argmax(betas >= 1.0)) + 1
    # The scale at b = 1 is that of the settled population.
    scales[last - 1] = scales[-1]
    spent = len(start) * (1 + MOVES * BLOCK * len(seen))
    u, scores, values = (np.asarray(v, float) for v in (front.u, front.t[1], front.t[0]))
    way = betas[:last], lengths[:last], scales[:last]
    return Scouted(*way, u, scores, values, spent)


@jax.jit
def _begin(source: Any, target: Frame, start: Any) -> Front:
    at = jax.vmap(source.look)(start), jax.vmap(target.look)(start)
    zero = jnp.zeros((), start.dtype)
    return Front(zero, zero, start, *at)


def _next(b: Any, ratio: Any) -> Any:
    """The largest b′ ≤ 1 for which (γ_{b′}/γ_b)(x_i) have an effective size of a share ``ESS``."""

    def share(gap: Any) -> Any:
        w = jax.nn.softmax(jnp.where(jnp.isfinite(ratio), gap * ratio, -jnp.inf))
        return 1.0 / (jnp.sum(w**2) * jnp.sum(jnp.isfinite(ratio)))

    def halve(_: Any, ends: tuple[Any, Any]) -> tuple[Any, Any]:
        low, high = ends
        middle = 0.5 * (low + high)
        fine = share(middle) >= ESS
        return jnp.where(fine, middle, low), jnp.where(fine, high, middle)

    whole = 1.0 - b
    low, high = jax.lax.fori_loop(0, 50, halve, (jnp.zeros_like(b), whole))
    return jnp.where(share(whole) >= ESS, 1.0, b + jnp.maximum(low, 1e-3 * high))


@partial(jax.jit)
def _block(key: Any, source: Any, target: Frame, front: Front) -> tuple[Front, Any]:
    n, dim = front.u.shape

    def climb(front: Front, key: Any) -> tuple[Front, Any]:
        k_pick, k_move = jax.random.split(key)
        ratio = front.t[0] - front.q[0]
        b = _next(front.b, ratio)
        log_w = jnp.where(jnp.isfinite(ratio), (b - front.b) * ratio, -jnp.inf)
        w = jax.nn.softmax(log_w)
        length = jnp.sqrt(jnp.maximum(n * jnp.sum(w**2) - 1.0, 0.0))
        index = systematic(k_pick, w, n)
        u, q, t = jax.tree.map(lambda v: v[index], (front.u, front.q, front.t))
        slope = (1.0 - b) * q[1] + b * t[1]
        # A few particles in a narrow place must not stop all others.
        scale = NORMAL_MEDIAN / (jnp.median(jnp.abs(slope), axis=0) + 1e-6)

        def move(carry: Any, key: Any) -> tuple[Any, None]:
            log_step, u, q, t = carry
            k_normal, k_accept = jax.random.split(key)
            step = jnp.exp(log_step) * scale
            z = jax.random.normal(k_normal, (n, dim), jnp.float32).astype(u.dtype)

            def mean(u: Any, q: Any, t: Any) -> Any:
                slope = jnp.clip(scale * ((1.0 - b) * q[1] + b * t[1]), -10.0, 10.0)
                return u + 0.5 * step * jnp.exp(log_step) * slope

            ahead = mean(u, q, t)
            new = ahead + step * z
            q2, t2 = jax.vmap(source.look)(new), jax.vmap(target.look)(new)
            back = (u - mean(new, q2, t2)) / step
            now, then = ((1.0 - b) * a[0] + b * c[0] for a, c in ((q, t), (q2, t2)))
            log_a = then - now - 0.5 * jnp.sum(back**2, 1) + 0.5 * jnp.sum(z**2, 1)
            log_a = jnp.where(jnp.isnan(log_a), -jnp.inf, jnp.minimum(log_a, 0.0))
            take = jnp.log(jax.random.uniform(k_accept, (n,), jnp.float32)) < log_a

            def choose(a: Any, c: Any) -> Any:
                return jnp.where(take.reshape((-1,) + (1,) * (a.ndim - 1)), a, c)

            u, q, t = jax.tree.map(choose, (new, q2, t2), (u, q, t))
            log_step = jnp.minimum(log_step + 0.5 * (jnp.mean(jnp.exp(log_a)) - ACCEPT), 0.7)
            return (log_step, u, q, t), None

        begin = front.log_step, u, q, t
        (log_step, u, q, t), _ = jax.lax.scan(move, begin, jax.random.split(k_move, MOVES))
        return Front(b, log_step, u, q, t), (b, length, scale)

    return jax.lax.scan(climb, front, jax.random.split(key, BLOCK))
