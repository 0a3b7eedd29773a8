"""Maximum likelihood of all members at once, an epoch in one compiled program."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.engine import Progress, Report
from ppcore.settings import check_between, check_count
from ppcore_amortised.conditional import Shape, create, log_density

CLIP, SLOW, FAST = 5.0, 0.999, 0.9
CHUNK = 2048


@dataclass(frozen=True)
class Training:
    """How long and how fast to train.

    Parameters
    ----------
    epochs : int
        At most.
    batch : int
        Simulations of each step.
    rate : float
        First learning rate of Adam; multiplied by ``fall`` when the held-out loss has not
        improved for ``patience`` epochs, up to ``falls`` times, and then training ends.
    patience, falls : int
    fall : float
    decay : float
        Of the weights, in each step, in units of the rate.
    held_out : float
        Share of the simulations that judge; each member holds out others.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.
    """

    epochs: int = 300
    batch: int = 128
    rate: float = 1e-3
    patience: int = 8
    falls: int = 2
    fall: float = 0.2
    decay: float = 1e-2
    held_out: float = 0.1

    def __post_init__(self) -> None:
        for name in ("epochs", "patience", "batch"):
            check_count(name, getattr(self, name), 1)
        check_count("falls", self.falls, 0)
        check_between("rate", self.rate, 0, 1)
        check_between("fall", self.fall, 0, 1)
        check_between("decay", self.decay, -1e-12, 10)
        check_between("held_out", self.held_out, 0, 0.9)


@dataclass(frozen=True)
class Trained:
    """What training leaves.

    Attributes
    ----------
    networks : pytree
        Of every member, those with the least held-out loss; NumPy arrays, single precision.
    losses, held_out : float[epochs, M]
        −E log q(x | y) in standard units, on the simulations trained on and held out.
    notes : tuple of str
        What went wrong.
    """

    networks: Any
    losses: np.ndarray
    held_out: np.ndarray
    notes: tuple[str, ...] = ()


def train(
    rng: np.random.Generator, shape: Shape, x: Any, y: Any, plan: Training, report: Report
) -> Trained:
    """Maximise E log q(x | y) over simulations in standard units: float[n, d], float[n, m].

    The minimum over all densities is the posterior itself. A step whose gradient is not finite
    changes nothing; a member counts as diverged if most steps of an epoch were not taken or its
    parameters are not finite. It then goes back to its best, at a lower rate.

    Source: Papamakarios & Murray 2016, arXiv:1605.06376; Greenberg, Nonnenmacher & Macke 2019,
    arXiv:1905.07488; Kingma & Ba 2015, arXiv:1412.6980; Loshchilov & Hutter 2019,
    arXiv:1711.05101 (decay).
    """
    members, n = shape.members, len(x)
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    made = [create(rng, shape) for _ in range(members)]
    nets = jax.tree.map(lambda *v: jnp.asarray(np.stack(v), jnp.float32), *made)
    state = State.begin(nets)
    held, kept = _split(rng, n, members, plan.held_out)
    batch = min(plan.batch, kept.shape[1])
    rates, waited = np.full(members, plan.rate, np.float32), np.zeros(members, int)
    fallen, broken = np.zeros(members, int), np.zeros(members, int)
    best_loss = np.asarray(judge(shape, nets, x, y, held))
    best = nets
    losses, scores = [], []
    for epoch in range(plan.epochs):
        order = _order(rng, kept, batch)
        nets, state, loss, taken, score = run_epoch(
            shape, nets, state, x, y, order, held, jnp.asarray(rates), np.float32(plan.decay)
        )
        score, taken = np.asarray(score), np.asarray(taken)
        losses.append(np.asarray(loss))
        scores.append(score)
        lost = ~np.isfinite(score) | (taken < 0.5)
        better = ~lost & (score < best_loss)
        best = select(jnp.asarray(better), nets, best)
        best_loss = np.where(better, score, best_loss)
        broken += lost
        waited = np.where(better, 0, waited + 1)
        back = (waited >= plan.patience) | lost
        if back.any():
            nets = select(jnp.asarray(back), best, nets)
            state = select(jnp.asarray(back), State.begin(best), state)
            rates = np.where(back & (fallen <= plan.falls), rates * plan.fall, rates)
            rates = rates.astype(np.float32)
            fallen, waited = fallen + back, np.where(back, 0, waited)
        rates = np.where(fallen > plan.falls, 0.0, rates).astype(np.float32)
        told = {"loss": float(np.mean(losses[-1])), "held_out": float(np.mean(best_loss))}
        report(Progress("training", epoch + 1, plan.epochs, told, "epochs"))
        if (fallen > plan.falls).all():
            break
    notes = _notes(np.array(scores), broken, fallen, plan)
    kept_nets = jax.tree.map(np.asarray, best)
    return Trained(kept_nets, np.array(losses), np.array(scores), notes)


def _notes(
    scores: np.ndarray, broken: np.ndarray, fallen: np.ndarray, plan: Training
) -> tuple[str, ...]:
    notes = []
    if broken.any():
        notes.append(
            f"Training diverged in {int((broken > 0).sum())} of {len(broken)} networks: each went "
            f"back to its best parameters, at a lower rate. Lower rate={plan.rate:g}, or look for "
            "simulations that are not finite or far from all others."
        )
    if (fallen <= plan.falls).any():
        notes.append(
            f"Training was still improving after {len(scores)} epochs: raise epochs={plan.epochs}."
        )
    return tuple(notes)


def _split(
    rng: np.random.Generator, n: int, members: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Indices held out and kept by each member: int[M, h], int[M, n − h]; folds where they fit."""
    h = min(max(1, round(share * n)), n - 1)
    order = rng.permutation(n)
    turned = np.stack([np.roll(order, -m * h) for m in range(members)])
    return turned[:, :h], turned[:, h:]


def _order(rng: np.random.Generator, kept: np.ndarray, batch: int) -> np.ndarray:
    """One epoch's batches of every member: int[steps, M, batch]."""
    mixed = rng.permuted(kept, axis=1)
    steps = mixed.shape[1] // batch
    return mixed[:, : steps * batch].reshape(len(kept), steps, batch).swapaxes(0, 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class State:
    """Adam's running means of gradients and of their squares, and steps taken, for each member."""

    mean: Any
    square: Any
    count: Any

    @classmethod
    def begin(cls, nets: Any) -> State:
        """Before the first step."""
        zero = jax.tree.map(jnp.zeros_like, nets)
        members = jax.tree.leaves(nets)[0].shape[0]
        return cls(zero, zero, jnp.zeros(members, jnp.float32))


@jax.jit
def select(which: Any, one: Any, other: Any) -> Any:
    """``one`` where ``which``: bool[M] says so, ``other`` elsewhere; leaves have a first axis M."""

    def pick(a: Any, b: Any) -> Any:
        return jnp.where(which.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(pick, one, other)


def _adam(net: Any, state: State, gradient: Any, rate: Any, decay: Any) -> tuple[Any, State, Any]:
    """One step of one member, and whether it was taken."""
    size = jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(gradient)))
    taken = jnp.isfinite(size)
    scale = jnp.where(taken, jnp.minimum(1.0, CLIP / (size + 1e-12)), 0.0)
    g = jax.tree.map(lambda v: jnp.where(taken, v, 0.0) * scale, gradient)
    count = state.count + 1
    mean = jax.tree.map(lambda m, v: FAST * m + (1 - FAST) * v, state.mean, g)
    square = jax.tree.map(lambda s, v: SLOW * s + (1 - SLOW) * v**2, state.square, g)
    c1, c2 = 1 - FAST**count, 1 - SLOW**count

    def moved(p: Any, m: Any, s: Any) -> Any:
        shrink = decay if p.ndim > 1 else 0.0
        return p - rate * (m / c1 / (jnp.sqrt(s / c2) + 1e-8) + shrink * p)

    new = (jax.tree.map(moved, net, mean, square), State(mean, square, count))
    kept = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, (net, state))
    return (*kept, taken)


@partial(jax.jit, static_argnames="shape")
def run_epoch(
    shape: Shape,
    nets: Any,
    state: State,
    x: Any,
    y: Any,
    order: Any,
    held: Any,
    rates: Any,
    decay: Any,
) -> tuple[Any, State, Any, Any, Any]:
    """All batches once: networks, state, mean loss, share of steps taken, held-out loss."""

    def loss(net: Any, rows: Any) -> Any:
        return -jnp.mean(log_density(shape, net, x[rows], y[rows]))

    def member(net: Any, state: State, rows: Any, rate: Any) -> Any:
        value, gradient = jax.value_and_grad(loss)(net, rows)
        return (*_adam(net, state, gradient, rate, decay), value)

    def step(carry: Any, rows: Any) -> Any:
        nets, states = carry
        nets, states, taken, value = jax.vmap(member)(nets, states, rows, rates)
        return (nets, states), (taken, value)

    (nets, state), (taken, values) = jax.lax.scan(step, (nets, state), order)
    mean = jnp.mean(jnp.where(jnp.isfinite(values), values, 0.0), axis=0)
    return (
        nets,
        state,
        mean,
        jnp.mean(taken.astype(jnp.float32), axis=0),
        judge(shape, nets, x, y, held),
    )


@partial(jax.jit, static_argnames="shape")
def judge(shape: Shape, nets: Any, x: Any, y: Any, rows: Any) -> Any:
    """Loss of every member on its rows: float[M]; in pieces, so that memory stays small."""

    def member(net: Any, own: Any) -> Any:
        return -jnp.mean(
            jax.lax.map(lambda i: log_density(shape, net, x[i], y[i]), own, batch_size=CHUNK)
        )

    return jax.vmap(member)(nets, rows)
