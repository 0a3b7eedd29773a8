"""One compiled loop for regressions on batches that the host prepares: Adam, watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.engine import Progress, Report
from ppcore.settings import check_between, check_count

BLOCK = 50
CLIP = 10.0
DECAY_1, DECAY_2, FLOOR = 0.9, 0.99, 1e-8
Loss = Callable[[Any, Any], Any]
Rows = Callable[[np.random.Generator, int], Any]
Tidy = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast.

    Parameters
    ----------
    steps : int
        Of Adam; rounded up to whole blocks of 50.
    batch : int
        Pairs of each step.
    rate : float
        Largest learning rate; rises over the first twentieth, falls to a hundredth by a cosine.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.
    """

    steps: int = 1000
    batch: int = 256
    rate: float = 5e-3

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        check_count("batch", self.batch, 2)
        check_between("rate", self.rate, 0, 1e6)

    def rates(self, dtype: Any) -> np.ndarray:
        """Learning rates of all steps: float[blocks · 50]."""
        count = -(-self.steps // BLOCK) * BLOCK
        at = (np.arange(count) + 0.5) / count
        cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * at))
        return np.asarray(self.rate * np.minimum(1.0, at / 0.05) * cosine, dtype)


@dataclass(frozen=True)
class Fitted:
    """What a regression leaves: the last ``model`` that was good, the losses, and what happened."""

    model: Any
    losses: np.ndarray
    notes: tuple[str, ...] = ()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Moments:
    """Adam's running moments of the gradient, and the number of steps that were taken."""

    first: Any
    second: Any
    taken: Any


def as_it_is(model: Any, limit: Any) -> Any:
    """No constraint on the model."""
    return model


def regress(
    rng: np.random.Generator,
    model: Any,
    loss: Loss,
    rows: Rows,
    schedule: Schedule,
    report: Report,
    tidy: Tidy = as_it_is,
    limit: float = 0.0,
) -> Fitted:
    """Fit ``model`` to what ``rows`` prepares; it ends with the last parameters that were good.

    A step whose loss or gradient is not finite changes nothing. If in 50 steps most were not taken,
    or a parameter is not finite, the run goes back to where they began, stops, and says so.

    Parameters
    ----------
    model : pytree
        All its float leaves are trained.
    loss : callable
        ``(model, row) -> float[]``; module level, since it is static.
    rows : callable
        ``(rng, count) -> pytree`` with a leading axis of ``count`` steps.
    tidy : callable
        ``(model, limit) -> model`` after every 50 steps: a projection; static.
    """
    rates = schedule.rates(np.dtype(jnp.result_type(float)))
    good, state = model, _begin(model)
    losses: list[np.ndarray] = []
    for start in range(0, len(rates), BLOCK):
        at = rates[start : start + BLOCK]
        made, state, (value, taken) = _block(
            loss, tidy, good, state, rows(rng, BLOCK), at, np.asarray(limit, at.dtype)
        )
        value, taken = np.asarray(value), np.asarray(taken)
        losses.append(value)
        if taken.mean() < 0.5 or not sound(made):
            note = (
                f"Training diverged after {start + BLOCK} of {len(rates)} steps "
                f"({int(taken.sum())} of the last {BLOCK} were finite): the parameters of step "
                f"{start} are used. Lower the learning rate (rate={schedule.rate:g})."
            )
            return Fitted(good, np.concatenate(losses), (note,))
        good = made
        last = {"loss": float(np.mean(value[taken]))}
        report(Progress("training", start + BLOCK, len(rates), last, "steps"))
    return Fitted(good, np.concatenate(losses))


def sound(model: Any) -> bool:
    """Whether every parameter is finite."""
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(model))


def _begin(model: Any) -> Moments:
    zero = jax.tree.map(lambda p: np.zeros(np.shape(p), np.asarray(p).dtype), model)
    return Moments(zero, zero, np.int32(0))


@partial(jax.jit, static_argnums=(0, 1))
def _block(
    loss: Loss, tidy: Tidy, model: Any, state: Moments, rows: Any, rates: Any, limit: Any
) -> tuple[Any, Moments, tuple[Any, Any]]:
    def step(carry: tuple[Any, Moments], at: tuple[Any, Any]) -> tuple[Any, Any]:
        model, state = carry
        row, rate = at
        value, gradient = jax.value_and_grad(loss)(model, row)
        size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
        taken = jnp.isfinite(value) & jnp.isfinite(size)
        shrink = jnp.where(taken, jnp.minimum(1.0, CLIP / jnp.maximum(size, CLIP)), 0.0)
        gradient = jax.tree.map(lambda g: jnp.where(taken, shrink * g, 0.0), gradient)
        new = _adam(model, state, gradient, rate)
        kept = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, (model, state))
        return kept, (value, taken)

    (model, state), seen = jax.lax.scan(step, (model, state), (rows, rates))
    return tidy(model, limit), state, seen


def _adam(model: Any, state: Moments, gradient: Any, rate: Any) -> tuple[Any, Moments]:
    """m ← β₁m + (1 − β₁)g, s ← β₂s + (1 − β₂)g², θ ← θ − rate · m̂/(√ŝ + 10⁻⁸).

    Source: Kingma & Ba 2015, arXiv:1412.6980.
    """
    taken = state.taken + 1
    first = jax.tree.map(lambda m, g: DECAY_1 * m + (1 - DECAY_1) * g, state.first, gradient)
    second = jax.tree.map(lambda s, g: DECAY_2 * s + (1 - DECAY_2) * g**2, state.second, gradient)

    def moved(p: Any, m: Any, s: Any) -> Any:
        m = m / (1 - DECAY_1 ** taken.astype(p.dtype))
        s = s / (1 - DECAY_2 ** taken.astype(p.dtype))
        return p - (rate * m / (jnp.sqrt(s) + FLOOR)).astype(p.dtype)

    return jax.tree.map(moved, model, first, second), Moments(first, second, taken)
