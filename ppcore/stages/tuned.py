"""Moves whose scale, step and number are found from the population itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.tuning.preconditioner import Dense, LowRank, Preconditioner

PLENTY = 4.0
"""From this many effective particles for each coordinate, their correlations are trusted."""
STALLED, PATIENCE = 0.01, 4
"""After ``PATIENCE`` transitions, a gain in ``jump`` below which more of them are in vain."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moved:
    """Particles after some moves, and how they went.

    Attributes
    ----------
    x : float[N, d]
    log_step : float[]
        Log of the step size to begin with next time.
    acceptance : float[]
        Mean acceptance in the last transition.
    jump : float[]
        Mean of (f(x′) − f(x))²/(2 var f) for the slowest f among the coordinates and, where the
        kernel tells it, the log density: 1 where x′ is independent of x.
    gain : float[]
        What the last transition added to ``jump``.
    moves : int[]
        Transitions of each particle.
    gradients : float[]
        Evaluations, all particles together.
    """

    x: Any
    log_step: Any
    acceptance: Any
    jump: Any
    gain: Any
    moves: Any
    gradients: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Bounds:
    """What ends the transitions at a temperature, and whether the step is tuned.

    Leaves, so that a run with fixed steps and numbers is the same program as the one that found
    them.

    Attributes
    ----------
    least, most : int[]
        Bounds on the transitions of each particle.
    enough : float[]
        ``jump`` after which no more are made.
    gain : float[]
        1 to tune the step, 0 to leave it.
    """

    least: Any
    most: Any
    enough: Any
    gain: Any


def bounds(least: int, most: int, enough: float = 1.0, gain: float = 1.0) -> Bounds:
    """:class:`Bounds` of types that do not depend on who makes them."""
    return Bounds(np.int32(least), np.int32(most), np.float32(enough), np.float32(gain))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Spread:
    """Mean and scale of particles: float[d] and F with F Fᵀ ≈ their covariance."""

    mean: Any
    preconditioner: Preconditioner


def spread(x: Any, effective: Any, dense: bool) -> Spread:
    """The spread of ``x`` (float[N, d]), worth ``effective`` independent particles.

    With fewer than ``PLENTY`` · d of them the correlations are shrunk, to zero where there are
    fewer than d; a covariance that is not positive definite is taken as diagonal.
    """
    mean = x.mean(axis=0)
    centred = x - mean
    # Scaled first: prior draws of a scale parameter may square to infinity.
    largest = jnp.max(jnp.abs(centred), axis=0)
    largest = jnp.maximum(largest, 1e-10 * (1.0 + jnp.abs(mean)))
    unit = centred / largest
    sd = jnp.sqrt(jnp.maximum(jnp.mean(unit**2, axis=0), 1e-20))
    n, dim = x.shape
    if not dense:
        empty = jnp.zeros((dim, 0), sd.dtype)
        return Spread(mean, LowRank(largest * sd, empty, jnp.ones(0, sd.dtype)))
    unit = unit / sd
    shrink = jnp.clip(dim / effective - 1.0 / PLENTY, 1e-6, 1.0)
    correlation = (1.0 - shrink) * (unit.T @ unit) / n + shrink * jnp.eye(dim)
    factor = jnp.linalg.cholesky(correlation)
    factor = jnp.where(jnp.isfinite(factor).all(), factor, jnp.eye(dim, dtype=factor.dtype))
    return Spread(mean, Dense(((largest * sd)[:, None] * factor).astype(x.dtype)))


def halved(x: Any) -> Any:
    """float[N, d] -> float[2, ⌈N/2⌉, d], the last particle doubled if N is odd."""
    odd = x.shape[0] % 2
    return jnp.concatenate([x, x[-1:]] if odd else [x]).reshape(2, -1, *x.shape[1:])


def whole(x: Any, n: int) -> Any:
    """The inverse of :func:`halved`, for N = ``n``."""
    return x.reshape(-1, *x.shape[2:])[:n]


def crossed(x: Any, ess: Any, dense: bool) -> Spread:
    """For each half of ``x`` the spread of the other; leaves have a leading axis of 2.

    A particle that is moved on a scale estimated with its own help is not moved by a kernel
    that leaves the law invariant: with d²/N not small, populations shrink. Moved on the scale of
    the other half it is.
    """
    parts = halved(x)
    return jax.vmap(lambda half: spread(half, 0.5 * ess, dense))(parts[::-1])


def tuned_moves(
    key: Any,
    kernel: Any,
    law: Any,
    x: Any,
    parameters: Callable[[Any, Spread], Any],
    about: Spread,
    log_step: Any,
    goal: float | None,
    rule: Bounds,
) -> Moved:
    """Move until the slowest coordinate has forgotten where it was, tuning the step on the way.

    After each transition of all particles log ε += (a − a*)/max(a*, 1 − a*), a their mean
    acceptance. At least ``least`` transitions, then on until ``jump`` ≥ ``enough``, or ``most``, or
    until a transition gains less than ``STALLED``, as between modes that no move connects. The log
    density counts because evidence is made of it: trajectories that decorrelate all coordinates
    may hardly change the energy. Each transition leaves ``law`` invariant; that step and number
    depend on the particles biases what follows by O(1/N).

    Parameters
    ----------
    parameters : callable
        ``(step, spread) -> params`` of the kernel.
    about : Spread
        For each half of the particles; see :func:`crossed`.
    goal : float or None
        a*; None for a kernel without a step to tune.
    rule : Bounds

    Source: Buchholz, Chopin & Jacob 2021, arXiv:1808.07730; Kantas, Beskos & Jasra 2014,
    arXiv:1307.6127, for tuning by the population.
    """
    n, dtype = x.shape[0], x.dtype
    variance = jnp.maximum(jnp.var(x, axis=0), 1e-300 if dtype == jnp.float64 else 1e-30)
    parts = halved(x)
    sizes = parts.shape[:2]

    def begin_half(keys: Any, x: Any, about: Spread) -> Any:
        params = parameters(jnp.exp(log_step), about)
        return jax.vmap(kernel.init, (0, None, 0, None))(keys, law, x, params)

    keys = jax.random.split(jax.random.fold_in(key, 0), sizes)
    state = jax.vmap(begin_half)(keys, parts, about)
    state = jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, leaf.dtype), state)
    cost = jnp.asarray(float(n * (getattr(state, "gradient", None) is not None)))

    def transition(carry: tuple[Any, Any, Moved]) -> tuple[Any, Any, Moved]:
        state, energy, so_far = carry
        keys = jax.random.split(jax.random.fold_in(key, so_far.moves + 1), sizes)

        def half(keys: Any, state: Any, about: Spread) -> Any:
            params = parameters(jnp.exp(so_far.log_step), about)
            return jax.vmap(kernel.step, (0, None, 0, None))(keys, law, state, params)

        new, info = jax.vmap(half)(keys, state, about)
        new = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, state)
        info = {name: whole(value, n) for name, value in info.items()}
        log_step, accepted = so_far.log_step, so_far.acceptance
        if "acceptance_rate" in info:
            accepted = jnp.nan_to_num(info["acceptance_rate"]).mean().astype(dtype)
        if goal is not None and "acceptance_rate" in info:
            gain = jnp.asarray(rule.gain, dtype) / max(goal, 1.0 - goal)
            log_step = log_step + gain * (accepted - goal)
        spent = info.get("n_gradients", info.get("n_evaluations", jnp.ones(n)))
        spent = spent.sum().astype(cost.dtype)
        y = whole(new.x, n)
        jump = jnp.min(jnp.mean((y - x) ** 2, axis=0) / (2.0 * variance)).astype(dtype)
        if "log_density" in info and "log_density_before" in info:
            energy = jnp.where(so_far.moves == 0, info["log_density_before"], energy)
            jump = jnp.minimum(jump, _apart(energy, info["log_density"]))
        moved = Moved(
            x=y,
            log_step=log_step,
            acceptance=accepted,
            jump=jump,
            gain=jump - so_far.jump,
            moves=so_far.moves + 1,
            gradients=so_far.gradients + spent,
        )
        return new, energy, moved

    def unfinished(carry: tuple[Any, Any, Moved]) -> Any:
        so_far = carry[2]
        gaining = (so_far.gain > STALLED) | (so_far.moves < PATIENCE)
        wanted = (so_far.moves < rule.most) & (so_far.jump < rule.enough) & gaining
        return (so_far.moves < rule.least) | wanted

    zero = jnp.zeros((), dtype)
    none = jnp.zeros((), jnp.int32)
    begin = Moved(x, jnp.asarray(log_step, dtype), zero, zero, zero, none, cost)
    return jax.lax.while_loop(unfinished, transition, (state, jnp.zeros(n, dtype), begin))[2]


def _apart(before: Any, after: Any) -> Any:
    """Mean of (after − before)²/(2 var) over the particles where both are finite."""
    good = jnp.isfinite(before) & jnp.isfinite(after)
    count = jnp.maximum(good.sum(), 1)
    first, second = jnp.where(good, before, 0.0), jnp.where(good, after, 0.0)
    variance = jnp.sum(jnp.where(good, (first - first.sum() / count) ** 2, 0.0)) / count
    return jnp.sum((second - first) ** 2) / count / (2.0 * jnp.maximum(variance, 1e-30))
