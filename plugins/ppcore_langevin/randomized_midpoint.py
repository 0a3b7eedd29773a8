"""Randomized midpoint: the drift at a random time of the step, overdamped and kinetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Biased, Contract
from ppcore_langevin.moves import Scored, Step, Unadjusted, engine_of, log_ratio, score, unadjusted
from ppcore_langevin.underdamped import Friction, Moving, Underdamped


def two_scores(target: Any, state: Any, place: Any) -> tuple[Scored, Scored]:
    """Score the midpoint and then the end, in a loop that holds the model's gradient once.

    ``place(gradient)`` gives ``(midpoint, end)``; the first is used with the gradient at the
    state, the second with that at the midpoint.
    """

    def stage(gradient: Any, last: Any) -> tuple[Any, Scored]:
        middle, end = place(gradient)
        point = score(target, jnp.where(last, end, middle))
        return point.gradient, point

    _, points = jax.lax.scan(stage, state.gradient, jnp.array([False, True]))
    return Scored(*(p[0] for p in points)), Scored(*(p[1] for p in points))


@dataclass(frozen=True)
class RandomizedMidpoint(Unadjusted):
    """Langevin steps whose drift is taken at a random time αh, α ~ U(0, 1), of the step.

    With the Brownian path W of the step: x_α = x + αh F Fᵀ∇ log γ(x) + √2 F W(αh) and
    y = x + h F Fᵀ∇ log γ(x_α) + √2 F W(h), where W(αh) given W(h) is drawn from the bridge. Over
    α the drift is unbiased for its mean along the (Euler) path, so mean and covariance of a step
    are right to O(h³) and the stationary law to O(h²), with two gradients. The step size is chosen
    by the rate of the Metropolis test of a plain Langevin step that ends in the same place.

    Source: Shen & Lee 2019, arXiv:1909.05503; He, Balasubramanian & Erdogdu 2020,
    arXiv:2011.03176 (overdamped).

    >>> RandomizedMidpoint().contract
    Biased(order=2, in_='step_size')
    """

    contract: ClassVar[Contract] = Biased(order=2)
    target_accept: ClassVar[float] = 0.9

    def step(
        self, key: Any, target: Any, state: Scored, params: Step
    ) -> tuple[Scored, dict[str, Any]]:
        k_time, k_end, k_bridge = random.split(key, 3)
        f, h = params
        shape, dtype = state.x.shape, state.x.dtype
        a = random.uniform(k_time, (), dtype)
        z = random.normal(k_end, shape, dtype)
        end = jnp.sqrt(2.0 * h) * z
        bridge = jnp.sqrt(2.0 * h * a * (1.0 - a)) * random.normal(k_bridge, shape, dtype)

        def place(gradient: Any) -> tuple[Any, Any]:
            b = h * f.pull(gradient)
            return state.x + f.push(a * (b + end) + bridge), state.x + f.push(b + end)

        middle, new = two_scores(target, state, place)
        here, inside, there = (f.pull(s.gradient) for s in (state, middle, new))
        effective = z + jnp.sqrt(0.5 * h) * (inside - here)
        ratio = log_ratio(state, new, (here, there), effective, h)
        return unadjusted(new, state, ratio, 2)


def position_variance(s: Any) -> Any:
    """2s − 3 + 4e⁻ˢ − e⁻²ˢ, by its series where the terms would cancel."""
    series = s**3 * (
        2 / 3 + s * (-1 / 2 + s * (7 / 30 + s * (-1 / 12 + s * (31 / 1260 - s / 160))))
    )
    return jnp.where(s < 0.1, series, 2.0 * s - 3.0 + 4.0 * jnp.exp(-s) - jnp.exp(-2.0 * s))


def kinetic_noise(h: Any, a: Any, friction: Any, z: Any) -> tuple[Any, Any, Any]:
    """What the noise z: float[3, d] adds to x at time a h, and to x and p at h: float[d] each.

    For dp = −γp dt + √(2γ) dW, dx = p dt on [0, t], s = γt: Var p = 1 − e⁻²ˢ,
    Cov(x, p) = (1 − e⁻ˢ)²/γ, Var x = (2s − 3 + 4e⁻ˢ − e⁻²ˢ)/γ². The three are drawn one after the
    other, p(h) first, so that two half steps and one step share most of their noise.
    """
    s, part = friction * h, friction * a * h
    left = -jnp.expm1(part - s)
    var_p = -jnp.expm1(-2.0 * s)
    var_x, var_mid = position_variance(s) / friction**2, position_variance(part) / friction**2
    cov, cov_mid = jnp.expm1(-s) ** 2 / friction, jnp.expm1(-part) ** 2 / friction
    mid_p, mid_x = (1.0 - left) * cov_mid, var_mid + left / friction * cov_mid
    p = jnp.sqrt(var_p)
    x1 = cov / p
    x2 = jnp.sqrt(jnp.maximum(var_x - x1**2, 0.0))
    m1 = mid_p / p
    m2 = jnp.where(x2 > 0, (mid_x - m1 * x1) / jnp.where(x2 > 0, x2, 1.0), 0.0)
    m3 = jnp.sqrt(jnp.maximum(var_mid - m1**2 - m2**2, 0.0))
    return m1 * z[0] + m2 * z[1] + m3 * z[2], x1 * z[0] + x2 * z[1], p * z[0]


@dataclass(frozen=True)
class KineticMidpoint(Underdamped):
    """Underdamped Langevin, solved exactly but for the force, which is taken at a random time.

    With b = Fᵀ∇ log γ, friction γ, a = αh, α ~ U(0, 1), and W the noise of
    :func:`kinetic_noise`:

    x_α = x + F((1 − e^{−γa})/γ p + (a − (1 − e^{−γa})/γ)/γ b(x) + W₁),
    x′ = x + F((1 − e^{−γh})/γ p + h (1 − e^{−γ(h−a)})/γ b(x_α) + W₂),
    p′ = e^{−γh} p + h e^{−γ(h−a)} b(x_α) + W₃.

    Two gradients a step. Declared of second order, in the law of x; the step size is chosen by
    log γ(x′) − log γ(x) − ½(b(x) + b(x′))·F⁻¹(x′ − x), the work done by the force less its
    trapezoidal estimate, as by a log acceptance ratio.

    Source: Shen & Lee 2019, arXiv:1909.05503.

    >>> KineticMidpoint().contract
    Biased(order=2, in_='step_size')
    """

    target_accept: ClassVar[float] = 0.97

    def step(
        self, key: Any, target: Any, state: Moving, params: Friction
    ) -> tuple[Moving, dict[str, Any]]:
        k_time, k_noise = random.split(key)
        f, h, friction = params
        shape, dtype = state.x.shape, state.x.dtype
        part = random.uniform(k_time, (), dtype)
        a, rest = part * h, (1.0 - part) * h
        w1, w2, w3 = kinetic_noise(h, part, friction, random.normal(k_noise, (3, *shape), dtype))
        coast, coast_a, coast_rest = (-jnp.expm1(-friction * t) / friction for t in (h, a, rest))

        def place(gradient: Any) -> tuple[Any, Any]:
            b = f.pull(gradient)
            middle = coast_a * state.p + (a - coast_a) / friction * b + w1
            return state.x + f.push(middle), state.x + f.push(moved(b))

        def moved(b: Any) -> Any:
            return coast * state.p + h * coast_rest * b + w2

        middle, new = two_scores(target, state, place)
        here, inside, there = (f.pull(s.gradient) for s in (state, middle, new))
        p = jnp.exp(-friction * h) * state.p + h * jnp.exp(-friction * rest) * inside + w3
        work = 0.5 * jnp.sum((here + there) * moved(inside))
        end = Moving(new.x, p, new.log_density, new.gradient)
        return unadjusted(end, state, new.log_density - state.log_density - work, 2)


def engine(
    target_accept: float = 0.9,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 16,
) -> KernelEngine:
    """:class:`RandomizedMidpoint` with many chains in lockstep, tuned together.

    Parameters
    ----------
    target_accept : float
        Mean acceptance that a plain Langevin step to the same place would have, to tune the step
        size for.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most where chains have not settled.
    most_thin : int
        The most transitions that may make one draw.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    >>> engine(metric="diagonal").default_chains
    64
    """
    kernel = RandomizedMidpoint()
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)


def kinetic_engine(
    friction: float = 1.0,
    target_accept: float = 0.97,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 16,
) -> KernelEngine:
    """:class:`KineticMidpoint` with many chains in lockstep, tuned together.

    Parameters
    ----------
    friction : float
        γ in units of one over the whitened diffusion's time.
    target_accept : float
        Mean of min(1, exp(−error of the work)), to tune the step size for.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most where chains have not settled.
    most_thin : int
        The most transitions that may make one draw.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    >>> kinetic_engine(metric="diagonal").default_chains
    64
    """
    kernel = KineticMidpoint(friction)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
