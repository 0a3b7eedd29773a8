"""The no-U-turn sampler: multinomial, generalised U-turns, one compiled program."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Invariant
from ppcore.engine import Report, Warm
from ppcore.settings import check_between, check_count, check_metric
from ppcore.target import value_and_gradient
from ppcore.tuning.adapt import Schedule, warm_up
from ppcore.tuning.metric import RANK
from ppcore.tuning.noise import is_traced, noise, rounded, spawned
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.leapfrog import Carry
from ppcore_mcmc.nuts_tree import Tree, advance, at_rest

CHUNK = 100
APART = 1000.0
POOL = 512
MOST_POOLS = 1 << 12
STATS = ("log_density", "acceptance_rate", "energy", "diverging", "tree_depth", "n_gradients")
WHOLE = ("tree_depth", "n_gradients")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NUTSTuning:
    """What the warm-up of :class:`NUTS` freezes.

    Attributes
    ----------
    preconditioner : Preconditioner
        F, shared by all chains.
    step_size : float[]
        ε, in units of the whitened target.
    """

    preconditioner: Preconditioner
    step_size: Any


@partial(jax.jit, static_argnames=("limit",))
def iterate(
    target: Any,
    tuned: NUTSTuning,
    tree: Tree,
    rows: Any,
    noises: tuple[Any, Any],
    until: tuple[Any, Any],
    limit: int,
) -> tuple[Tree, Any]:
    """Leapfrog every chain until each has made ``until[0]`` transitions, or ``until[1]`` times.

    The only program here that contains the model, and its gradient once. A step size of 0 and one
    iteration evaluate log γ and its gradient at ``tree.now``.

    Parameters: ``rows``: float[n + 1, chains, 2d + stats], a row for each transition and one for
    what is thrown away; ``noises``: flat momenta (one vector a transition) and flat uniforms (three
    for each iteration and chain).
    """
    (chains, dim), slots = tree.chosen.x.shape, rows.shape[0] - 1
    transitions, iterations = until
    momenta = noises[0][: slots * chains * dim].reshape(slots, chains, dim)
    uniforms = noises[1][: POOL * chains * 3].reshape(POOL, chains, 3)
    chain = jnp.arange(chains)
    force = tuned.preconditioner.pull(tree.chosen.gradient)
    tree = tree._replace(chosen=tree.chosen._replace(force=force))

    def going(state: tuple[Any, Tree, Any]) -> Any:
        return (state[0] < iterations) & jnp.any(state[1].t < transitions)

    def leap(state: tuple[Any, Tree, Any]) -> tuple[Any, Tree, Any]:
        i, tree, rows = state
        t, active = tree.t, tree.t < transitions
        momentum = momenta[jnp.minimum(t, slots - 1), chain]
        tree, ended, stats = advance(
            target,
            (tuned.preconditioner, tuned.step_size),
            tree,
            momentum,
            uniforms[i],
            active,
            limit,
        )
        columns = [stats[name].astype(rows.dtype)[:, None] for name in STATS]
        row = jnp.concatenate([tree.chosen.x, tree.chosen.gradient, *columns], axis=1)
        return i + 1, tree, rows.at[jnp.where(ended, t, slots), chain].set(row)

    return jax.lax.while_loop(going, leap, (jnp.zeros((), jnp.int32), tree, rows))[1:]


def blank_rows(slots: int, x: Any, xp: Any) -> Any:
    """Room for ``slots`` transitions of chains at ``x`` (float[chains, d]), and one row more."""
    return xp.zeros((slots + 1, x.shape[0], 2 * x.shape[1] + len(STATS)), x.dtype)


def _noise(key: Any, chunk: Any, pool: Any, carry: Carry, slots: int) -> tuple[Any, Any]:
    """Momenta for a chunk (those of pool 0 count) and a pool of uniforms, from one program."""
    chains, dim = carry.x.shape
    sizes = slots * chains * dim, POOL * chains * 3
    return noise(key, chunk * MOST_POOLS + pool, *sizes, carry.x.dtype)


def transitions(
    key: Any, index: int, target: Any, tuned: NUTSTuning, carry: Carry, n: int, limit: int
) -> tuple[Carry, np.ndarray]:
    """``n`` ≤ CHUNK transitions of every chain, driven from the host: rows, float[n, chains, ·]."""
    tree, rows = at_rest(*carry, levels(limit), np), blank_rows(CHUNK, carry.x, np)
    until = np.int32(n), np.int32(POOL)
    momenta, uniforms = _noise(key, np.int32(index), np.int32(0), carry, CHUNK)
    pool = 0
    while True:
        tree, rows = iterate(target, tuned, tree, rows, (momenta, uniforms), until, limit)
        if np.asarray(tree.t).min() >= n:
            return Carry(*tree.chosen[:3]), np.asarray(rows)[:n]
        pool += 1
        _, uniforms = _noise(key, np.int32(index), np.int32(pool), carry, CHUNK)


def traced_transitions(
    key: Any,
    index: Any,
    target: Any,
    tuned: NUTSTuning,
    carry: Carry,
    slots: int,
    n: Any,
    limit: int,
) -> tuple[Carry, Any]:
    """As :func:`transitions`, with the same random numbers, inside a JAX trace."""
    tree, rows = at_rest(*carry, levels(limit)), blank_rows(slots, carry.x, jnp)
    momenta, _ = _noise(key, index, jnp.int32(0), carry, slots)

    def going(state: tuple[Any, Tree, Any]) -> Any:
        return jnp.any(state[1].t < n)

    def drain(state: tuple[Any, Tree, Any]) -> tuple[Any, Tree, Any]:
        pool, tree, rows = state
        _, uniforms = _noise(key, index, pool, carry, slots)
        until = n, POOL
        return pool + 1, *iterate(target, tuned, tree, rows, (momenta, uniforms), until, limit)

    _, tree, rows = jax.lax.while_loop(going, drain, (jnp.zeros((), jnp.int32), tree, rows))
    return Carry(*tree.chosen[:3]), rows[:slots]


class Chains:
    """The chains of a warm-up on the device, seen from the host (an ``adapt.Machine``)."""

    def __init__(self, key: Any, target: Any, chains: int, dtype: Any, limit: int) -> None:
        self.key, self.target, self.dtype, self.limit = key, target, np.dtype(dtype), limit
        self.rounds = self.gradients = 0
        blank = np.zeros((chains, target.dim), dtype)
        self.rows = jax.device_put(blank_rows(CHUNK, blank, np))
        self.carry = Carry(blank, np.zeros(chains, dtype), blank)
        sizes = rounded(CHUNK * blank.size), rounded(POOL * chains * 3)
        self.idle = tuple(jax.device_put(np.zeros(size, dtype)) for size in sizes)

    def evaluate(self, precondition: Preconditioner, x: np.ndarray) -> tuple[Any, Any]:
        """log γ and its gradient at each row of ``x`` (float[N, d]), by the block's program."""
        chains, dim = self.carry.x.shape
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % chains, axis=0)])
        still = NUTSTuning(precondition, self.dtype.type(0))
        blank = np.zeros((chains, dim), self.dtype)
        rest = at_rest(blank, blank[:, 0], blank, levels(self.limit), np)
        rest = rest._replace(start=np.zeros(chains, bool), leaf=np.ones(chains, np.int32))
        until = np.int32(1), np.int32(1)
        ends = [
            iterate(
                self.target,
                still,
                rest._replace(now=rest.now._replace(x=part)),
                self.rows,
                self.idle,
                until,
                self.limit,
            )[0].now
            for part in padded.astype(self.dtype).reshape(-1, chains, dim)
        ]
        self.gradients += len(padded)
        log_density = np.concatenate([np.asarray(e.log_density) for e in ends])[: len(x)]
        return log_density, np.concatenate([np.asarray(e.gradient) for e in ends])[: len(x)]

    def place(self, precondition: Preconditioner, x: np.ndarray) -> None:
        """Put the chains at ``x``: float[chains, d]."""
        log_density, gradient = self.evaluate(precondition, x)
        self.carry = Carry(x.astype(self.dtype), log_density, gradient)

    def advance(
        self, precondition: Preconditioner, step: float, length: float, n: int
    ) -> dict[str, np.ndarray]:
        del length
        tuned = NUTSTuning(precondition, self.dtype.type(step))
        self.carry, rows = transitions(
            self.key, self.rounds, self.target, tuned, self.carry, n, self.limit
        )
        self.rounds += 1
        out = unpack(rows, np)
        self.gradients += int(out["n_gradients"].sum())
        return out

    def copy(self, source: np.ndarray) -> None:
        self.carry = Carry(*(np.asarray(leaf)[source] for leaf in self.carry))


def levels(limit: int) -> int:
    """Levels of sub-trees that the checks of a tree of depth ``limit`` need."""
    return max(limit - 1, 1)


def unpack(rows: Any, xp: Any) -> dict[str, Any]:
    """Named arrays [n, chains, ...] from rows, float[n, chains, 2d + stats]."""
    dim = (rows.shape[-1] - len(STATS)) // 2
    out = {"x": rows[..., :dim], "gradient": rows[..., dim : 2 * dim]}
    for column, name in enumerate(STATS, 2 * dim):
        out[name] = rows[..., column]
    out |= {name: out[name].astype(xp.int32) for name in WHOLE}
    return out | {"diverging": out["diverging"] > 0}


@dataclass(frozen=True)
class NUTS:
    """The no-U-turn sampler with multinomial draws from a trajectory that grows by doubling.

    A transition draws z ~ N(0, I) and doubles a trajectory of the Hamiltonian −log γ(x) + ½ zᵀz in
    random directions until it, or a sub-tree, turns back on itself (ρ·z ≤ 0 at either end, ρ the
    sum of momenta; also across halves); the next state is drawn from its points in proportion to
    exp(−H), with preference for the later doublings. It leaves γ invariant for fixed ``tuned``.

    Parameters
    ----------
    warmup_draws : int
        Draws per chain to adapt with, from scattered starts; half as many from a Laplace start.
    max_warmup_draws : int
        Adaptation goes on until the chains have settled, up to here.
    target_accept : float
        Mean acceptance probability over a trajectory to tune ε for, in (0, 1); half way from it
        to 1 if chains diverge late in warm-up.
    max_tree_depth : int
        At most 2^max_tree_depth − 1 leapfrog steps a transition.
    metric : str
        "auto", "dense", "low_rank" or "diagonal". "auto" is dense, or low_rank above 128
        coordinates; where a dense one serves badly, warm-up tries a diagonal one beside it.
    rank : int
        Directions of a low-rank metric.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Hoffman & Gelman 2014, arXiv:1111.4246; Betancourt 2017, arXiv:1701.02434.

    >>> NUTS(max_tree_depth=8).default_chains
    4
    """

    warmup_draws: int = 600
    max_warmup_draws: int = 1200
    target_accept: float = 0.8
    max_tree_depth: int = 10
    metric: str = "auto"
    rank: int = RANK
    contract: Invariant = field(default=Invariant(reversible=False), init=False)
    compiled: ClassVar[bool] = True
    block_size: ClassVar[int] = CHUNK
    default_chains: int = field(default=4, init=False)
    default_draws: int = field(default=1000, init=False)

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 16)
        check_count("max_warmup_draws", self.max_warmup_draws, self.warmup_draws)
        check_between("target_accept", self.target_accept, 0, 1)
        check_count("max_tree_depth", self.max_tree_depth, 1)
        check_metric(self.metric, self.rank)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts, step size and preconditioner for ``chains`` chains, on the host.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        schedule = Schedule(
            self.warmup_draws, self.max_warmup_draws, 50, self.target_accept, 1.0, False, APART
        )
        machine_key, start_key = spawned(key, 2)
        dtype = jnp.result_type(float)
        machine = Chains(machine_key, target, chains, dtype, self.max_tree_depth)
        end = warm_up(machine, start_key, target, chains, self.metric, self.rank, schedule, report)
        tuned = NUTSTuning(end.precondition, machine.dtype.type(end.step.final))
        x = np.asarray(machine.carry.x)
        return Warm(tuned, x, machine.gradients, tuple(end.notes))

    def init(self, key: Any, target: Any, tuned: NUTSTuning, x: Any) -> Carry:
        """Positions ``x`` (float[chains, d]) with their log densities and gradients."""
        if is_traced(target, tuned, x):
            return Carry(x, *value_and_gradient(target, x))
        x = np.asarray(x)
        machine = Chains(None, target, len(x), x.dtype, self.max_tree_depth)
        machine.place(tuned.preconditioner, x)
        return machine.carry

    def block(
        self, key: Any, target: Any, tuned: NUTSTuning, carry: Carry, n: int
    ) -> tuple[Carry, Any, dict[str, Any]]:
        """Exactly ``n`` transitions of every chain; draws: float[chains, n, d].

        Runs the warm-up's program on chunks of transitions, so that no ``n`` compiles anything.
        """
        limit = self.max_tree_depth
        if is_traced(key, target, tuned, carry):
            if n <= CHUNK:
                carry, rows = traced_transitions(key, 0, target, tuned, carry, n, n, limit)
            else:
                carry, rows = _scanned(key, target, tuned, carry, n, limit)
            return carry, *_by_chain(rows, tuned, jnp)
        parts = []
        for chunk, first in enumerate(range(0, n, CHUNK)):
            here = min(CHUNK, n - first)
            carry, rows = transitions(key, chunk, target, tuned, carry, here, limit)
            parts.append(rows)
        return carry, *_by_chain(np.concatenate(parts), tuned, np)


def _scanned(
    key: Any, target: Any, tuned: NUTSTuning, carry: Carry, n: int, limit: int
) -> tuple[Carry, Any]:
    """Chunk after chunk as one traced loop, with the streams that the host loop would use."""
    chunks = -(-n // CHUNK)

    def chunk(carry: Carry, i: Any) -> tuple[Carry, Any]:
        here = jnp.minimum(CHUNK, n - i * CHUNK)
        return traced_transitions(key, i, target, tuned, carry, CHUNK, here, limit)

    carry, rows = jax.lax.scan(chunk, carry, jnp.arange(chunks, dtype=jnp.int32))
    return carry, rows.reshape(chunks * CHUNK, *rows.shape[2:])[:n]


def _by_chain(rows: Any, tuned: NUTSTuning, xp: Any) -> tuple[Any, dict[str, Any]]:
    """Draws and statistics with the chain axis first, from rows [n, chains, ...]."""
    out = unpack(xp.swapaxes(rows, 0, 1), xp)
    stats = {name: out[name] for name in STATS}
    step_size = xp.broadcast_to(tuned.step_size, stats["energy"].shape)
    return out["x"], stats | {"step_size": step_size}
