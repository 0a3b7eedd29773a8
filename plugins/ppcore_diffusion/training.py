"""Training as one compiled program: paths, loss, Adam, in blocks that the host watches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from ppcore import random
from ppcore.engine import Progress, Report
from ppcore.errors import SettingsError, did_you_mean
from ppcore.population import Population, reweight
from ppcore.settings import check_between, check_count
from ppcore.stages.resampling import Resample
from ppcore_diffusion.losses import LOSSES, OF
from ppcore_diffusion.transitions import route

BLOCK = 25
LOST = 1e4
CLIP, FIRST, SECOND, TINY = 1.0, 0.9, 0.99, 1e-8


@dataclass(frozen=True)
class Training:
    """How long, how fast and on what to train.

    Parameters
    ----------
    loss : str
        Of :mod:`ppcore_diffusion.losses`.
    iterations : int
        Of Adam; rounded up to blocks of 25, 0 for none.
    batch : int
        Paths of each iteration.
    rate : float
        Largest learning rate; rises over the first twentieth, falls to a hundredth by a cosine.
    replay : int
        Batches of paths that are kept; each iteration then learns from a stored one as well,
        which costs no gradient of the target. 0 for none, and for the reverse KL.
    segments : int
        Parts of the path that "sub_trajectory" weighs by themselves.
    resample : float
        Share of the effective size below which paths are resampled between segments; 0: never.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown.
    """

    loss: str
    iterations: int
    batch: int
    rate: float
    replay: int = 0
    segments: int = 1
    resample: float = 0.0

    def __post_init__(self) -> None:
        if self.loss not in LOSSES:
            hint = did_you_mean(str(self.loss), LOSSES)
            raise SettingsError(f"loss={self.loss!r} is not known. {hint}")
        for name, least in (("iterations", 0), ("batch", 2), ("replay", 0), ("segments", 1)):
            check_count(name, getattr(self, name), least)
        check_between("rate", self.rate, 0, 1e6)
        check_between("resample", self.resample, -1e-9, 1 + 1e-9)
        if self.replay and self.loss == "reverse_kl":
            raise SettingsError(
                "replay stores paths, and loss='reverse_kl' differentiates new ones: set replay=0, "
                "or choose loss='log_variance'."
            )

    def rates(self, dtype: Any) -> np.ndarray:
        """Learning rates of all iterations: float[blocks · 25]."""
        count = -(-self.iterations // BLOCK) * BLOCK
        at = (np.arange(count) + 0.5) / max(count, 1)
        cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * at))
        return (self.rate * np.minimum(1.0, at / 0.05) * cosine).astype(dtype)


@dataclass(frozen=True)
class Trained:
    """What training leaves: the last good weights, losses, spreads of log w, evaluations, notes."""

    weights: Any
    losses: np.ndarray
    spreads: np.ndarray
    evaluations: int
    notes: tuple[str, ...] = ()


def cut(segments: int, threshold: float, steps: int) -> Any:
    """``(k_resample, population, k) -> population`` after the last step of each segment but one."""
    length = steps // segments
    rule = Resample("systematic", threshold) if threshold > 0 and segments > 1 else None

    def between(key: Any, population: Population, k: Any) -> Population:
        if rule is None:
            return population
        chosen = rule.along(key, None, None, population)
        here = ((k + 1) % length == 0) & (k + 1 < steps)
        return jax.tree.map(lambda a, b: jnp.where(here, a, b), chosen, population)

    return between


def paths(
    key: Any, kind: Any, weights: Any, frame: Any, n: int, plan: Training, bare: bool = False
) -> tuple[Any, Any, Any]:
    """``n`` paths: places before and after each step, float[K, n, R] each, and log G: float[K, n].

    With ``bare`` they are not weighed, nor resampled, and log G is 0. log γ_0(x_0) carries the
    gradient of the reference where paths are differentiated.
    """
    k_start, k_noise, k_walk = random.split(key, 3)
    transition, path, betas = route(kind, weights, frame)
    rows, which = path.start(k_start, n, kind.moving)
    steps = betas.shape[0] - 1
    between = cut(plan.segments, plan.resample, steps)

    # Training needs no more than single precision of its noise, which compiles three times faster.
    z = jax.random.normal(k_noise, (steps, n, frame.dim), jnp.float32).astype(rows.dtype)

    def advance(key: Any, population: Population, at: Any) -> tuple[Population, Any]:
        a, b, k, z = at
        moved, log_g = jax.vmap(lambda z, x: transition.moved(z, path, a, b, x, k))(z, population.x)
        weighed = reweight(population, jax.lax.stop_gradient(log_g))
        after = Population(moved, weighed.log_weight, weighed.log_z)
        return between(key, after, k), (population.x, moved, log_g)

    begin = Population(rows, jnp.zeros(n, rows.dtype), jnp.zeros((), rows.dtype))
    xs = betas[:-1], betas[1:], jnp.arange(steps), z
    _, (before, after, log_g) = random.scan(advance, k_walk, begin, xs, steps)
    if bare:
        return before, after, log_g
    # Which part of the mixture a path began in is a discrete choice: its score, times log w.
    log_part = jax.nn.log_softmax(weights["reference"].logits)[which]
    chosen = log_part - jax.lax.stop_gradient(log_part)
    total = jax.lax.stop_gradient(jnp.sum(log_g, axis=0))
    off = jnp.where(jnp.isfinite(total), total - jnp.mean(total, where=jnp.isfinite(total)), 0.0)
    return before, after, log_g.at[-1].add(chosen * off)


def again(kind: Any, weights: Any, frame: Any, before: Any, after: Any) -> Any:
    """log G of stored steps under ``weights``: float[K, n]."""
    if not kind.walk_learned:
        free = {"level", *kind.controls}
        keep = {**jax.lax.stop_gradient(weights["tables"]), "keep": weights["tables"]["keep"]}
        still = {n: v if n in free else jax.lax.stop_gradient(v) for n, v in weights.items()}
        weights = {**still, "tables": keep}
    transition, path, betas = route(kind, weights, frame)

    def one(a: Any, b: Any, k: Any, x: Any, y: Any) -> Any:
        return jax.vmap(lambda x, y: transition.log_g(path, a, b, k, x, y))(x, y)

    steps = jnp.arange(betas.shape[0] - 1)
    return jax.vmap(one)(betas[:-1], betas[1:], steps, before, after)


def _objective(kind: Any, plan: Training, weights: Any, frame: Any, seen: Any) -> tuple[Any, Any]:
    """Loss and log G on stored paths."""
    log_g = again(kind, weights, frame, *seen)
    return OF[plan.loss](log_g, weights["level"], plan.segments), log_g


def learn(key: Any, kind: Any, plan: Training, weights: Any, frame: Any, keep: Any) -> Any:
    """Gradient of one iteration: (gradient, loss, log G, paths)."""
    if plan.loss == "reverse_kl":

        def through(weights: Any) -> tuple[Any, Any]:
            _, _, log_g = paths(key, kind, weights, frame, plan.batch, plan)
            return OF[plan.loss](log_g, weights["level"], plan.segments), log_g

        (value, log_g), gradient = jax.value_and_grad(through, has_aux=True)(weights)
        return gradient, value, log_g, keep
    fixed = jax.lax.stop_gradient(weights)
    # The loss weighs them; only resampling has to know the weights on the way.
    bare = plan.resample <= 0 or plan.segments == 1
    before, after, _ = paths(key, kind, fixed, frame, plan.batch, plan, bare)
    seen = jax.lax.stop_gradient((before, after))
    run = jax.value_and_grad(partial(_objective, kind, plan), has_aux=True)
    if not plan.replay:
        (value, log_g), gradient = run(weights, frame, seen)
        return gradient, value, log_g, keep
    store, count = keep
    place = jnp.mod(count, plan.replay)
    store = jax.tree.map(lambda s, v: s.at[place].set(v), store, seen)
    # The first three keys that come from this one are those of the paths.
    k_old = jax.random.fold_in(key, 3)
    old = jax.random.randint(k_old, (), 0, jnp.minimum(count + 1, plan.replay))
    both = jax.tree.map(lambda s, v: jnp.concatenate([v, s[old]], axis=1), store, seen)
    (value, log_g), gradient = run(weights, frame, both)
    return gradient, value, log_g[:, : plan.batch], (store, count + 1)


@partial(jax.jit, static_argnames=("kind", "plan"))
def block(
    kind: Any, plan: Training, key: Any, carry: Any, frame: Any, rates: Any, first: Any
) -> tuple[Any, Any]:
    """``BLOCK`` iterations: (weights, Adam's moments, store), and (loss, spread, taken) of each."""

    def iterate(carry: Any, at: Any) -> tuple[Any, Any]:
        flat, mean, square, keep = carry
        weights = unravel(flat)
        i, rate = at
        key_i = jax.random.fold_in(key, i)
        gradient, value, log_g, keep = learn(key_i, kind, plan, weights, frame, keep)
        slope, _ = ravel_pytree(gradient)
        size = jnp.linalg.norm(slope)
        taken = jnp.isfinite(value) & jnp.isfinite(size)
        slope = jnp.where(taken, slope * jnp.minimum(1.0, CLIP / (size + TINY)), 0.0)
        new_mean = FIRST * mean + (1 - FIRST) * slope
        new_square = SECOND * square + (1 - SECOND) * slope**2
        first_bias, second_bias = 1 - FIRST ** (i + 1.0), 1 - SECOND ** (i + 1.0)
        change = rate * (new_mean / first_bias) / (jnp.sqrt(new_square / second_bias) + TINY)
        flat = jnp.where(taken, flat - change, flat)
        mean, square = jnp.where(taken, new_mean, mean), jnp.where(taken, new_square, square)
        log_w = jnp.sum(log_g, axis=0)
        spread = jnp.std(log_w, where=jnp.isfinite(log_w))
        return (flat, mean, square, keep), (value, spread, taken)

    weights, mean, square, keep = carry
    flat, unravel = ravel_pytree(weights)
    begin = flat, mean, square, keep
    (flat, *rest), seen = jax.lax.scan(iterate, begin, (first + jnp.arange(BLOCK), rates))
    return (unravel(flat), *rest), seen


def train(key: Any, kind: Any, plan: Training, weights: Any, frame: Any, report: Report) -> Trained:
    """Train ``weights``; they end as the last ones that were good.

    An iteration whose loss or gradient is not finite changes nothing. After every 25 the run counts
    as diverged if most were not taken, a weight is not finite, or log weights spread over 10⁴ nats
    more than at first; it then goes back to where those began and stops.
    """
    rates = plan.rates(np.dtype(jnp.result_type(float)))
    zero = jnp.zeros(sum(np.size(leaf) for leaf in jax.tree.leaves(weights)), rates.dtype)
    carry = weights, zero, zero, _store(kind, plan, weights, frame)
    losses: list[np.ndarray] = []
    spreads: list[np.ndarray] = []
    notes: tuple[str, ...] = ()
    for start in range(0, len(rates), BLOCK):
        rate = rates[start : start + BLOCK]
        made, seen = block(kind, plan, key, carry, frame, rate, np.asarray(start))
        value, spread, taken = (np.asarray(v) for v in seen)
        losses.append(value)
        spreads.append(spread)
        middle = float(np.median(np.where(taken, spread, np.inf)))
        first = float(spreads[0][0])
        far = middle > LOST + (first if np.isfinite(first) else 0.0)
        if taken.mean() < 0.5 or not sound(made[0]) or far:
            notes = (
                f"Training diverged after {start + BLOCK} of {len(rates)} iterations (log weights "
                f"spread over {middle:.3g} nats, {int(taken.sum())} of {BLOCK} iterations were "
                f"finite): the weights of iteration {start} are used. Lower the learning rate "
                f"(rate={plan.rate:g}).",
            )
            break
        carry = made
        fields = {"loss": float(np.mean(value[taken])), "spread": middle}
        report(Progress("training", start + BLOCK, len(rates), fields, "iterations"))
    steps = weights["tables"]["schedule"].shape[0]
    # A gradient through paths differentiates the score once more, at about a gradient's price.
    each = (2 if plan.loss == "reverse_kl" else 1) * plan.batch * (steps + 1)
    none = np.zeros(0)
    return Trained(
        carry[0],
        np.concatenate(losses or [none]),
        np.concatenate(spreads or [none]),
        each * BLOCK * len(losses),
        notes,
    )


def _store(kind: Any, plan: Training, weights: Any, frame: Any) -> Any:
    """Room for stored paths; paths of zeros are replaced before they are read."""
    if not plan.replay:
        return ()
    steps, dim = weights["tables"]["schedule"].shape[0], frame.dim
    width = (4 if kind.moving else 2) * dim + 2
    room = jnp.zeros((plan.replay, steps, plan.batch, width), frame.middle.dtype)
    return (room, room), jnp.zeros((), int)


def sound(weights: Any) -> bool:
    """Whether every weight is finite."""
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(weights))
