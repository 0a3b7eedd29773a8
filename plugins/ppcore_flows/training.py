"""One compiled training loop for every loss: Adam on blocks of steps, watched from the host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ppcore.engine import Progress, Report
from ppcore.errors import UnsupportedError
from ppcore.settings import check_between, check_count

BLOCK = 50
LOST = 1e4
CLIP = 10.0
OPTIMISER = optax.chain(optax.clip_by_global_norm(CLIP), optax.scale_by_adam(0.9, 0.99))
Loss = Callable[[Any, Any, Any, int], tuple[Any, tuple[Any, Any]]]


@dataclass(frozen=True)
class Training:
    """How long and how fast to train.

    Parameters
    ----------
    steps : int
        Of Adam; rounded up to whole blocks of 50.
    batch : int
        Draws of each step.
    rate : float
        Largest learning rate; rises over the first twentieth, falls to a hundredth by a cosine.
    anneal : float
        Share of the steps over which the inverse temperature rises from 0 to 1.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.
    """

    steps: int = 600
    batch: int = 256
    rate: float = 5e-3
    anneal: float = 0.5

    def __post_init__(self) -> None:
        check_count("steps", self.steps, 1)
        check_count("batch", self.batch, 2)
        check_between("rate", self.rate, 0, 1e6)
        check_between("anneal", self.anneal, -1e-9, 1)

    def plan(self, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
        """Inverse temperatures and learning rates of all steps: float[blocks · 50] each."""
        count = -(-self.steps // BLOCK) * BLOCK
        at = (np.arange(count) + 0.5) / count
        betas = np.minimum(1.0, at / max(self.anneal, 1e-9))
        cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * at))
        rates = self.rate * np.minimum(1.0, at / 0.05) * cosine
        return betas.astype(dtype), rates.astype(dtype)


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    Attributes
    ----------
    density : pytree
        The last parameters that were good.
    losses, spreads : float[steps]
        As the loss reports them, at the temperature of each step.
    evaluations : int
        Evaluations of the target.
    notes : tuple of str
        Whether training diverged, and where it was stopped.
    """

    density: Any
    losses: np.ndarray
    spreads: np.ndarray
    evaluations: int
    notes: tuple[str, ...] = ()


def train(
    key: Any,
    density: Any,
    law: Any,
    loss: Loss,
    training: Training,
    report: Report,
    cost: int,
    annealed: bool = False,
) -> Trained:
    """Train ``density`` on ``law``; it ends with the last parameters that were good.

    Everything is compiled once for a loss, a batch and the shapes of density and law: data,
    temperatures and rates are arguments. A step whose loss or gradient is not finite changes
    nothing. After every 50 steps the run counts as diverged if most steps were not taken, a
    parameter is not finite, or the log weights spread over 10⁴ nats more than at first; it then
    goes back to where those steps began and stops.

    Parameters
    ----------
    density : pytree
        What is trained: all its float leaves.
    law : Target or Population
        As the loss asks; with ``annealed`` it is ``law.tempered(b)``.
    loss : callable
        Of :mod:`ppcore_flows.losses`.
    cost : int
        Evaluations of the target in a step.
    """
    betas, rates = training.plan(np.dtype(jnp.result_type(float)))

    def advance(q: Any, state: Any, start: int) -> tuple[Any, Any, Any]:
        at = slice(start, start + BLOCK)
        plan = (betas[at], rates[at], start)
        return block(loss, training.batch, annealed, key, q, state, law, plan)  # type: ignore[no-any-return]

    return watched(advance, density, started(density), len(betas), training.rate, report, cost)


def watched(
    advance: Callable[[Any, Any, int], tuple[Any, Any, Any]],
    density: Any,
    state: Any,
    count: int,
    rate: float,
    report: Report,
    cost: int,
) -> Trained:
    """Blocks of 50 steps until ``count``, or until one makes things worse; see :func:`train`.

    ``advance(density, state, start)`` gives both anew, and (loss, spread, taken) of each step.
    """
    good = density
    losses: list[np.ndarray] = []
    spreads: list[np.ndarray] = []
    notes = tuple[str, ...]()
    for start in range(0, count, BLOCK):
        made, state, seen = advance(good, state, start)
        value, spread, taken = (np.asarray(v) for v in seen)
        losses.append(value)
        spreads.append(spread)
        middle = float(np.median(np.where(taken, spread, np.inf)))
        first = float(spreads[0][0])
        far = middle > LOST + (first if np.isfinite(first) else 0.0)
        if taken.mean() < 0.5 or not sound(made) or far:
            notes = (
                f"Training diverged after {start + BLOCK} of {count} steps (log weights "
                f"spread over {middle:.3g} nats, {int(taken.sum())} of {BLOCK} steps were finite): "
                f"the parameters of step {start} are used. Lower the learning rate "
                f"(rate={rate:g}) or raise the share of annealing.",
            )
            break
        good = made
        last = float(np.mean(value[taken]))
        report(Progress("training", start + BLOCK, count, {"loss": last}, "steps"))
    spent = cost * BLOCK * len(losses)
    return Trained(good, np.concatenate(losses), np.concatenate(spreads), spent, notes)


def descend(
    loss: Loss, batch: int, annealed: bool, key: Any, density: Any, state: Any, law: Any, plan: Any
) -> tuple[Any, Any, tuple[Any, Any, Any]]:
    """Steps of Adam, one for each entry of ``plan`` = (betas, rates, number of the first): the
    density, Adam's state, and (loss, spread, taken) of each step."""
    betas, rates, start = plan

    def step(carry: tuple[Any, Any], at: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        q, state = carry
        i, beta, rate = at
        now = law.tempered(beta) if annealed else law
        run = jax.grad(lambda q: loss(q, jax.random.fold_in(key, i), now, batch), has_aux=True)
        gradient, (value, spread) = run(q)
        q, state, taken = moved(q, state, gradient, value, rate)
        return (q, state), (value, spread, taken)

    steps = start + jnp.arange(betas.shape[0])
    (density, state), seen = jax.lax.scan(step, (density, state), (steps, betas, rates))
    return density, state, seen


block = jax.jit(descend, static_argnames=("loss", "batch", "annealed"))


def moved(q: Any, state: Any, gradient: Any, value: Any, rate: Any) -> tuple[Any, Any, Any]:
    """One step of Adam, and whether it was taken: not where loss or gradient is not finite."""
    sizes = [jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)]
    taken = jnp.isfinite(value) & jnp.isfinite(sum(sizes))
    calm = jax.tree.map(lambda g: jnp.where(taken, g, 0.0), gradient)
    change, after = OPTIMISER.update(calm, state)
    there = jax.tree.map(lambda p, c: p - (rate * c).astype(p.dtype), q, change)
    q, state = jax.tree.map(lambda a, b: jnp.where(taken, a, b), (there, after), (q, state))
    return q, state, taken


@jax.jit
def started(density: Any) -> Any:
    """Adam's state before the first step."""
    return OPTIMISER.init(density)


def sound(density: Any) -> bool:
    """Whether every parameter is finite."""
    return all(bool(np.isfinite(np.asarray(leaf)).all()) for leaf in jax.tree.leaves(density))


def require_smooth(target: Any, name: str) -> None:
    """Raise :class:`ppcore.errors.UnsupportedError` where ``target`` cannot train a flow."""
    kept = tuple(getattr(target, "finite_sites", ()))
    if not getattr(target, "has_gradient", True):
        what = f" (finite sites {', '.join(map(repr, kept))} are kept)" if kept else ""
        raise UnsupportedError(
            f"{name} trains a map of R^d by the gradient of the log density, and "
            f"{type(target).__name__} has none{what}. Sum the finite sites out, or use an engine "
            "that needs no gradient, such as 'random_walk' or 'amis'."
        )
    if int(target.dim) < 1:
        raise UnsupportedError(f"{name} needs at least one unknown; this target has dimension 0.")
