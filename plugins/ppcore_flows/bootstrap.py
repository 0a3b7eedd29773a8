"""Flow annealed importance sampling bootstrap: a flow trained on what annealing away from it finds.

With r = log γ − log q, annealed importance sampling walks from q to g ∝ γ^α q^{1−α} along
log g_b = log q + b α r. α = 2 is the law that estimates the variance of the weights with the
least noise, and its points lie where q has too little mass; α = 1 is the target itself. Weighted
points are kept and drawn again in proportion to their weights, and each draw makes
−log q(x) small. While q moves, a kept point's weight follows it: w ← w (q_old/q)^{α−1}.

Source: Midgley, Stimper, Simm, Schölkopf & Hernández-Lobato 2023, arXiv:2208.01893.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.engine import Report
from ppcore.errors import SettingsError
from ppcore.settings import check_between, check_count
from ppcore_flows.training import BLOCK, Trained, Training, moved, started, watched

ACCEPT, GAIN, FIRST_STEP = 0.65, 0.1, 0.2
LARGEST_CORRECTION = 10.0


@dataclass(frozen=True)
class Bootstrap:
    """How points are found and used again.

    Parameters
    ----------
    alpha : float
        2 for the variance of the weights (FAB), 1 for forward KL.
    temperatures : int
        K: the walk stops at b = 1/K, …, (K−1)/K for a Hamiltonian move in the flow's coordinates.
    leapfrogs : int
        Steps of each move; its step size follows the acceptance rate.
    reuse : int
        Steps of training for each batch of new points; divides 50.
    kept : int
        Batches of points that are kept; the oldest go first.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.
    """

    alpha: float = 2.0
    temperatures: int = 4
    leapfrogs: int = 4
    reuse: int = 5
    kept: int = 40

    def __post_init__(self) -> None:
        check_between("alpha", self.alpha, 0, 10)
        check_count("temperatures", self.temperatures, 2)
        check_count("leapfrogs", self.leapfrogs, 1)
        check_count("reuse", self.reuse, 1)
        check_count("kept", self.kept, 1)
        if BLOCK % self.reuse:
            raise SettingsError(f"reuse={self.reuse!r} must divide {BLOCK}, such as 1, 2, 5 or 10.")

    @property
    def cost(self) -> int:
        """Evaluations of the target for each point."""
        return 1 + (self.temperatures - 1) * self.leapfrogs


class Store(NamedTuple):
    """Points found, with the density that the flow had there when they were weighed last.

    ``x``: float[N, d]; ``log_weight``, ``log_q``: float[N].
    """

    x: Any
    log_weight: Any
    log_q: Any


class Learner(NamedTuple):
    """What training carries on: Adam's state, the store, log step sizes float[K − 1]."""

    adam: Any
    store: Store
    log_step: Any


def bootstrapped(
    key: Any, density: Any, target: Any, how: Bootstrap, training: Training, report: Report
) -> Trained:
    """``density`` trained on the points that annealing finds; watched as by ``train``.

    The loss reported is −log q of the points used, the spread that of r over fresh draws of q.
    """
    _, rates = training.plan(jnp.result_type(float))
    count, dim = how.kept * training.batch, density.dim
    dtype = jnp.result_type(float)
    nothing = jnp.full(count, -jnp.inf, dtype)
    store = Store(jnp.zeros((count, dim), dtype), nothing, jnp.zeros(count, dtype))
    step = jnp.full(how.temperatures - 1, jnp.log(FIRST_STEP), dtype)
    learner = Learner(started(density), store, step)
    alpha = jnp.asarray(how.alpha, dtype)
    shape = (how.temperatures, how.leapfrogs, how.reuse, training.batch)

    def advance(q: Any, state: Any, start: int) -> tuple[Any, Any, Any]:
        own = rates[start : start + BLOCK].reshape(-1, how.reuse)
        first = start // how.reuse
        return rounds(shape, key, q, state, target, alpha, own, first)  # type: ignore[no-any-return]

    cost = -(-how.cost * training.batch // how.reuse)
    return watched(advance, density, learner, len(rates), training.rate, report, cost)


@partial(jax.jit, static_argnames="shape")
def rounds(
    shape: tuple[int, int, int, int],
    key: Any,
    density: Any,
    learner: Learner,
    target: Any,
    alpha: Any,
    rates: Any,
    first: Any,
) -> tuple[Any, Learner, tuple[Any, Any, Any]]:
    """Search, keep, and train ``reuse`` steps, for each row of ``rates``: float[rounds, reuse]."""
    temperatures, leapfrogs, reuse, batch = shape

    def one(carry: tuple[Any, Learner], at: tuple[Any, Any]) -> tuple[Any, Any]:
        q, state = carry
        i, rate = at
        k_search, k_train = jax.random.split(jax.random.fold_in(key, i))
        frozen = jax.lax.stop_gradient(q)
        new, spread, log_step = search(
            k_search, frozen, target, alpha, state.log_step, (temperatures, leapfrogs, batch)
        )
        kept = state.store.log_weight.shape[0]
        place = (i * batch + jnp.arange(batch)) % kept
        store = Store(*(a.at[place].set(b) for a, b in zip(state.store, new, strict=True)))

        def step(carry: tuple[Any, Any, Store], at: tuple[Any, Any]) -> tuple[Any, Any]:
            q, adam, store = carry
            k, rate = at
            gradient, value, store = draw_and_differentiate(k, q, store, alpha, batch)
            q, adam, taken = moved(q, adam, gradient, value, rate)
            return (q, adam, store), (value, spread, taken)

        keys = jax.random.split(k_train, reuse)
        (q, adam, store), seen = jax.lax.scan(step, (q, state.adam, store), (keys, rate))
        return (q, Learner(adam, store, log_step)), seen

    steps = first + jnp.arange(rates.shape[0])
    (density, learner), seen = jax.lax.scan(one, (density, learner), (steps, rates))
    value, spread, taken = (v.reshape(-1) for v in seen)
    return density, learner, (value, spread, taken)


def draw_and_differentiate(
    key: Any, q: Any, store: Store, alpha: Any, batch: int
) -> tuple[Any, Any, Store]:
    """The gradient of −mean c log q(x) over points drawn from the store, its value, and the store
    with their weights brought up to this q.

    Weights above √N times their mean are cut down to it, or one point would be all that is drawn
    (Ionides 2008, doi:10.1198/106186008X320456); c corrects for how far q has moved since.
    """
    log_w = store.log_weight
    full = jnp.sum(jnp.isfinite(log_w))
    most = jax.nn.logsumexp(log_w) - 0.5 * jnp.log(full)
    below = jnp.cumsum(jnp.exp(jnp.minimum(log_w, most) - most))
    u = (jnp.arange(batch) + random.uniform(key, (batch,), below.dtype)) / batch
    which = jnp.clip(jnp.searchsorted(below, u * below[-1]), 0, log_w.shape[0] - 1)
    x, old = store.x[which], store.log_q[which]

    def loss(q: Any) -> tuple[Any, Any]:
        log_q = jax.vmap(q.log_prob)(x)
        change = (alpha - 1.0) * (old - jax.lax.stop_gradient(log_q))
        share = jnp.minimum(jnp.exp(change), LARGEST_CORRECTION)
        return -jnp.mean(share * log_q), (log_q, change)

    (_, (log_q, change)), gradient = jax.value_and_grad(loss, has_aux=True)(q)
    good = jnp.isfinite(log_q)
    weight = jnp.where(good, log_w[which] + change, -jnp.inf)
    store = Store(
        store.x,
        log_w.at[which].set(weight),
        store.log_q.at[which].set(jnp.where(good, log_q, old)),
    )
    return gradient, -jnp.mean(log_q), store


def search(
    key: Any, q: Any, target: Any, alpha: Any, log_step: Any, shape: tuple[int, int, int]
) -> tuple[Store, Any, Any]:
    """Annealed importance sampling from q to γ^α q^{1−α} in the coordinates u of x = T(u).

    log w = Σ_k (b_{k+1} − b_k) α r(u_k). Gives the points, the standard deviation of r over the
    draws of q, and the step sizes nearer to the acceptance rate wanted.
    """
    temperatures, leapfrogs, batch = shape
    k_start, k_momentum, k_accept = random.split(key, 3)

    def look(v: Any) -> tuple[Any, Any, Any, Any]:
        def gap(v: Any) -> Any:
            x, log_det = q.map.forward(v)
            return target.log_density(x) + log_det - q.base.log_prob(v)

        base, slope = jax.value_and_grad(q.base.log_prob)(v)
        r, pull = jax.value_and_grad(gap)(v)
        good = jnp.isfinite(r) & jnp.isfinite(pull).all()
        return base, slope, jnp.where(good, r, -jnp.inf), jnp.where(good, pull, 0.0)

    eye = jax.vmap(look)
    u = q.base.sample(k_start, batch)
    place = (u, *eye(u))
    first = place[3]
    here = jnp.isfinite(first)
    spread = jnp.std(jnp.where(here, first, 0.0), where=here)
    momenta = random.normal(k_momentum, (temperatures - 1, batch, u.shape[1]), u.dtype)
    chances = random.uniform(k_accept, (temperatures - 1, batch), u.dtype)

    def level(place: Any, b: Any) -> Any:
        return place[1] + b * alpha * place[3]

    def move(carry: Any, at: Any) -> tuple[Any, Any]:
        place, log_w = carry
        b, momentum, chance, size = at
        log_w = log_w + alpha * place[3] / temperatures

        def leap(inner: Any, _: Any) -> tuple[Any, None]:
            spot, p = inner
            p = p + 0.5 * size * (spot[2] + b * alpha * spot[4])
            ahead = spot[0] + size * p
            spot = (ahead, *eye(ahead))
            return (spot, p + 0.5 * size * (spot[2] + b * alpha * spot[4])), None

        (there, p), _ = jax.lax.scan(leap, (place, momentum), None, leapfrogs)
        gain = level(there, b) - level(place, b)
        gain = gain + 0.5 * jnp.sum(momentum**2 - p**2, -1)
        chance_of = jnp.where(jnp.isnan(gain), 0.0, jnp.exp(jnp.minimum(gain, 0.0)))
        stay = chance >= chance_of

        def pick(a: Any, c: Any) -> Any:
            return jnp.where(stay.reshape(-1, *[1] * (a.ndim - 1)), a, c)

        return (jax.tree.map(pick, place, there), log_w), jnp.mean(chance_of)

    betas = jnp.arange(1, temperatures) / temperatures
    ahead = (betas.astype(u.dtype), momenta, chances, jnp.exp(log_step))
    (place, log_w), rate = jax.lax.scan(move, (place, jnp.zeros(batch, u.dtype)), ahead)
    log_w = log_w + alpha * place[3] / temperatures
    x, log_det = jax.vmap(q.map.forward)(place[0])
    found = Store(x, jnp.where(jnp.isnan(log_w), -jnp.inf, log_w), place[1] - log_det)
    return found, spread, log_step + GAIN * (rate - ACCEPT)
