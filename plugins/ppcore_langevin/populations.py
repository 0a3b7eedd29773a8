"""What the population engines share: a frame for the target, Gaussian densities, the run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.engine import Populated, Progress, Report
from ppcore.population import Population, equally_weighted, require_alive
from ppcore.stages.reference import Prior

FRAME_DRAWS = 256


class Frame(NamedTuple):
    """The target in coordinates u, x = middle + scale u, where the reference is about N(0, I)."""

    target: Any
    middle: Any
    scale: Any

    def place(self, u: Any) -> Any:
        """x at u: float[..., d]."""
        return self.middle + self.scale * u

    def log_density(self, u: Any) -> Any:
        """log γ(x) + log |∂x/∂u|; float[d] -> float[]."""
        return self.target.log_density(self.place(u)) + jnp.sum(jnp.log(self.scale))


def framed(key: Any, target: Any) -> Frame:
    """``target`` in the frame of quantiles of fresh reference draws, independent of all others."""
    draws = target.sample_reference(key, FRAME_DRAWS)
    low, middle, high = jnp.quantile(draws, jnp.array([0.16, 0.5, 0.84], draws.dtype), axis=0)
    return Frame(target, middle, jnp.maximum(0.5 * (high - low), 1e-6))


def log_normal(x: Any, mean: Any, variance: Any) -> Any:
    """log N(x; mean, diag variance), variance: float[] or float[d]; float[..., d] -> float[...]."""
    variance = jnp.broadcast_to(variance, x.shape)
    return -0.5 * jnp.sum((x - mean) ** 2 / variance + jnp.log(2.0 * jnp.pi * variance), axis=-1)


def denoised(key: Any, frame: Frame, seen: Any, variance: Any, draws: int, steps: int) -> Any:
    """Points about from u | seen where u ~ γ and seen ~ N(u, variance I): float[draws, d].

    ``draws`` points from N(seen/(1 + v), v/(1 + v) I), exact were γ = N(0, I), are weighed,
    resampled by their weights and moved by ``steps`` Langevin steps for γ(u) N(seen; u, v I).
    """
    k_draw, k_pick, k_walk = random.split(key, 3)
    shrunk = variance / (1.0 + variance)
    dtype = seen.dtype
    z = random.normal(k_draw, (draws, *seen.shape), dtype)
    points = seen / (1.0 + variance) + jnp.sqrt(shrunk) * z

    def log_joint(u: Any) -> Any:
        return frame.log_density(u) + log_normal(seen, u, variance)

    log_w = jax.vmap(log_joint)(points) + 0.5 * jnp.sum(z**2, axis=-1)
    log_w = jnp.where(jnp.isnan(log_w), -jnp.inf, log_w)
    alive = jnp.any(log_w > -jnp.inf)
    points = points[random.categorical(k_pick, jnp.where(alive, log_w, 0.0), (draws,))]
    h = 0.1 * shrunk

    def move(k: Any, u: Any, _: Any) -> tuple[Any, None]:
        g = jax.vmap(jax.grad(log_joint))(u)
        g = jnp.where(jnp.isfinite(g), g, 0.0)
        drift = h * g / (1.0 + h * jnp.abs(g))
        return u + drift + jnp.sqrt(2.0 * h) * random.normal(k, u.shape, dtype), None

    points, _ = random.scan(move, k_walk, points, None, steps)
    return points


def weighed(x: Any, log_w: Any) -> Population:
    """Independent particles with log weights whose mean weight estimates Z."""
    log_w = jnp.where(jnp.isnan(log_w), -jnp.inf, log_w)
    log_z = jax.nn.logsumexp(log_w) - jnp.log(1.0 * log_w.shape[0])
    dead = log_z == -jnp.inf
    return Population(x, jnp.where(dead, 0.0, log_w), log_z)


@partial(jax.jit, static_argnames=("stage", "n"))
def _run(stage: Any, key: Any, target: Any, n: int) -> Population:
    k_start, k_stage = jax.random.split(key)
    start = equally_weighted(target.sample_reference(k_start, n))
    source = target.tempered(jnp.zeros((), start.x.dtype))
    population: Population = stage(k_stage, source, target, start)
    return population


def populate(
    stage: Any, name: str, cost: int, run: tuple[Any, Any, int], report: Report
) -> Populated:
    """``run`` = (key, target, n) through ``stage``, with ``cost`` gradients a particle.

    Raises :class:`ppcore.errors.UnsupportedError` without a proper prior, and
    :class:`ppcore.errors.PopulationError` if all weights vanish.
    """
    key, target, n = run
    Prior().require(target)
    population = _run(stage, key, target, n)
    require_alive(population, name, 1.0)
    report(Progress("sampling", n, n, unit="particles"))
    error = float(max(n / float(population.ess) - 1.0, 0.0) / n) ** 0.5
    return Populated(population, cost * n, error)


@dataclass(frozen=True)
class Settings:
    """Defaults of the population engines."""

    default_chains = 4
    default_draws = 256
