"""Many chains in lockstep: the machinery that the many-chain engines share.

A *method* is one transition of all chains as a pure function; everything else is here. The one
compiled program that contains the model runs a chunk of transitions on numbers drawn outside of
it, and serves the warm-up, the evaluation of start positions and the draws alike.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.engine import Report, Warm
from ppcore.target import value_and_gradient
from ppcore.tuning.adapt import Adapted, Schedule, warm_up
from ppcore.tuning.noise import is_traced, noise, rounded, spawned
from ppcore.tuning.preconditioner import Dense, Preconditioner

CHUNK = 16
APART = 100.0
MOST_STEPS = 1024
MOST_THIN = 8
DIVERGENCE = 1000.0
WATCHED = 512
"""Chains whose draws the warm-up keeps and learns from; the others only move with them."""
BEGINNING = 2**31 - 1
"""The stream of a key that auxiliary variables start from; chunks count up from 0."""

SCALARS = ("log_density", "acceptance_rate", "energy", "step_size")
# How a draw that is several transitions reports them; all else is that of the last.
GATHER = {"acceptance_rate": "mean", "diverging": "any", "n_gradients": "sum"}


class Randomness(NamedTuple):
    """What one transition consumes: z: float[chains, D], N(0, 1); own: float[k, chains] and
    shared: float[s], U(0, 1), for each chain and for all of them."""

    z: Any
    own: Any
    shared: Any


class Method(Protocol):
    """One transition of many chains, as a static object without data.

    Attributes
    ----------
    own, shared : int
        Uniform numbers of each chain, and of all chains together, for a transition.
    vectors : tuple of str
        What ``move`` reports as float[chains, D], "x" and "gradient" first.
    single : bool
        A transition is one gradient, so that a draw is several of them.
    """

    own: ClassVar[int]
    shared: ClassVar[int]
    vectors: ClassVar[tuple[str, ...]]
    single: ClassVar[bool]

    def carry(self, x: Any, log_density: Any, gradient: Any, z: Any, u: Any) -> Any:
        """The state at positions ``x``: float[chains, D], with auxiliary variables from ``z``:
        float[chains, D], N(0, 1), and ``u``: float[chains], U(0, 1)."""
        ...

    def move(self, target: Any, tuned: Any, carry: Any, by: Randomness) -> tuple[Any, Any]:
        """``(carry, row)``; a step of size 0 evaluates at ``carry.x`` and always moves."""
        ...

    def tuning(self, precondition: Preconditioner, step: Any, length: Any, thin: Any) -> Any:
        """The parameters, with fields ``step_size`` and ``thin``."""
        ...

    def lift(self, target: Any) -> Any:
        """The target that the chains walk on: ``target``, or one with more coordinates."""
        ...


def slots(method: Method, chains: int, dim: int) -> int:
    """Transitions in a chunk: more where one is a single gradient of few numbers."""
    if not method.single:
        return CHUNK
    return max(CHUNK, min(128, 1 << (max(1, (1 << 16) // (chains * dim)).bit_length() - 1)))


@partial(jax.jit, static_argnames=("method", "n"))
def chunk(
    method: Method,
    n: int,
    target: Any,
    tuned: Any,
    carry: Any,
    normals: Any,
    uniforms: Any,
    active: Any,
) -> tuple[Any, dict[str, Any]]:
    """The first ``active`` of ``n`` transitions; the only program that contains the model.

    ``normals``, ``uniforms``: flat, n·chains·D and n·(own·chains + shared) numbers or more.
    Slots beyond ``active`` are left empty.
    """
    chains, dim = carry.x.shape
    width = method.own * chains + method.shared
    z = normals[: n * chains * dim].reshape(n, chains, dim)
    u = uniforms[: n * width].reshape(n, width)

    def draw(i: Any, state: tuple[Any, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        carry, rows = state
        own = u[i, : method.own * chains].reshape(method.own, chains)
        by = Randomness(z[i], own, u[i, method.own * chains :])
        carry, row = method.move(target, tuned, carry, by)
        return carry, {name: rows[name].at[i].set(value) for name, value in row.items()}

    dtype = carry.x.dtype
    rows = {name: jnp.zeros((n, chains, dim), dtype) for name in method.vectors}
    rows |= {name: jnp.zeros((n, chains), dtype) for name in SCALARS}
    rows["diverging"] = jnp.zeros((n, chains), bool)
    rows["n_gradients"] = jnp.zeros((n, chains), jnp.int32)
    return jax.lax.fori_loop(0, active, draw, (carry, rows))


def transitions(
    method: Method, key: Any, index: Any, target: Any, tuned: Any, carry: Any, active: Any
) -> tuple[Any, dict[str, Any]]:
    """A chunk of transitions on the numbers of stream ``index`` of ``key``."""
    chains, dim = carry.x.shape
    n = slots(method, chains, dim)
    width = method.own * chains + method.shared
    normals, uniforms = noise(key, index, n * chains * dim, n * width, carry.x.dtype)
    return chunk(method, n, target, tuned, carry, normals, uniforms, active)


def _scatter(kept: dict[str, Any], rows: dict[str, Any], g: Any, total: Any, thin: Any) -> Any:
    """Put transitions number ``g`` (int[n]; those from ``total`` on are void) into their draws."""
    void = kept["x"].shape[0]
    draw = jnp.where(g < total, g // thin, void)
    last = jnp.where((g + 1) % thin == 0, draw, void)
    return {
        name: value.at[draw].add(rows[name].astype(value.dtype), mode="drop")
        if name in GATHER
        else value.at[last].set(rows[name], mode="drop")
        for name, value in kept.items()
    }


def _kept_shapes(n: int, chains: int, dim: int, dtype: Any) -> dict[str, Any]:
    scalars = dict.fromkeys(SCALARS, ((n, chains), dtype))
    counts = dict.fromkeys(("diverging", "n_gradients"), ((n, chains), np.int32))
    return {"x": ((n, chains, dim), dtype)} | scalars | counts


def traced_draws(
    method: Method, key: Any, target: Any, tuned: Any, carry: Any, n: int
) -> tuple[Any, dict[str, Any]]:
    """``n`` draws inside a JAX trace, from the streams that the host's loop would use."""
    chains, dim = carry.x.shape
    size = slots(method, chains, dim)
    thin = jnp.asarray(tuned.thin, jnp.int32)
    total = n * thin

    def body(i: Any, state: tuple[Any, dict[str, Any]]) -> tuple[Any, dict[str, Any]]:
        carry, kept = state
        active = jnp.minimum(size, total - i * size)
        carry, rows = transitions(method, key, i, target, tuned, carry, active)
        g = (i * size + jnp.arange(size)).astype(jnp.int32)
        return carry, _scatter(kept, rows, g, total, thin)

    shapes = _kept_shapes(n, chains, dim, carry.x.dtype)
    kept = {name: jnp.zeros(*of) for name, of in shapes.items()}
    carry, kept = jax.lax.fori_loop(0, -(-total // size), body, (carry, kept))
    return carry, _averaged(kept, thin)


def host_draws(
    method: Method,
    key: Any,
    first: int,
    target: Any,
    tuned: Any,
    carry: Any,
    n: int,
    names: tuple[str, ...] = (),
) -> tuple[Any, dict[str, Any], int]:
    """``n`` draws by one call of the program a chunk: ``(carry, rows, streams used)``.

    ``names``: vectors to keep beside the positions.
    """
    chains, dim = carry.x.shape
    size, thin = slots(method, chains, dim), int(tuned.thin)
    shapes = _kept_shapes(n, chains, dim, carry.x.dtype)
    shapes |= {name: shapes["x"] for name in names}
    kept = {name: np.zeros(*of) for name, of in shapes.items()}
    total = n * thin
    chunks = -(-total // size)
    for i in range(chunks):
        active = min(size, total - i * size)
        index = np.int32(first + i)
        carry, rows = transitions(method, key, index, target, tuned, carry, np.int32(active))
        g = i * size + np.arange(active)
        ends = (g + 1) % thin == 0
        for name, value in kept.items():
            found = np.asarray(rows[name])[:active]
            if name in GATHER:
                np.add.at(value, g // thin, found)
            else:
                value[g[ends] // thin] = found[ends]
    return carry, _averaged(kept, thin), chunks


def _averaged(kept: dict[str, Any], thin: Any) -> dict[str, Any]:
    rate = kept["acceptance_rate"]
    return kept | {
        "acceptance_rate": (rate / thin).astype(rate.dtype),
        "diverging": kept["diverging"] > 0,
    }


class Chains:
    """The chains of a warm-up on the device, seen from the host (an ``adapt.Machine``).

    ``names``: vectors that ``advance`` returns beside x, of the first ``WATCHED`` chains.
    """

    names: tuple[str, ...] = ("gradient",)

    def __init__(self, method: Method, key: Any, target: Any, chains: int, dtype: Any) -> None:
        self.method, self.key, self.target, self.dtype = method, key, target, np.dtype(dtype)
        self.chains, self.rounds, self.gradients = chains, 0, 0
        n = slots(method, chains, target.dim)
        size = rounded(n * chains * target.dim)
        ones = rounded(n * (method.own * chains + method.shared))
        self.idle = np.zeros(size, dtype), np.ones(ones, dtype)
        self.carry = self._still(np.zeros((chains, target.dim), dtype))

    def _still(self, x: np.ndarray) -> Any:
        """A carry that an evaluation starts from: no momentum, nothing known."""
        blank = np.zeros(len(x), x.dtype)
        return self.method.carry(x, blank, np.zeros_like(x), np.zeros_like(x), blank + 0.5)

    def evaluate(self, precondition: Preconditioner, x: np.ndarray) -> tuple[Any, Any]:
        """log γ and its gradient at each row of ``x`` (float[N, D]), by the block's program."""
        dim, zero = self.target.dim, self.dtype.type(0)
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % self.chains, axis=0)])
        tuned = self.method.tuning(precondition, zero, zero, np.int32(1))
        n = slots(self.method, self.chains, dim)
        parts = padded.astype(self.dtype).reshape(-1, self.chains, dim)
        ends = [
            chunk(self.method, n, self.target, tuned, self._still(p), *self.idle, np.int32(1))[0]
            for p in parts
        ]
        self.gradients += len(padded)
        log_density = np.concatenate([np.asarray(e.log_density) for e in ends])[: len(x)]
        return log_density, np.concatenate([np.asarray(e.gradient) for e in ends])[: len(x)]

    def place(self, precondition: Preconditioner, x: np.ndarray) -> None:
        """Put the chains at ``x``: float[chains, D]."""
        log_density, gradient = self.evaluate(precondition, x)
        z, u = auxiliary(self.key, x.shape, self.dtype)
        self.carry = self.method.carry(x.astype(self.dtype), log_density, gradient, z, u)

    def tuning(self, precondition: Preconditioner, step: float, length: float) -> Any:
        """The parameters to draw with next."""
        real = self.dtype.type
        thin = np.int32(stride(self.method, step, length))
        return self.method.tuning(precondition, real(step), real(length), thin)

    def advance(
        self, precondition: Preconditioner, step: float, length: float, n: int
    ) -> dict[str, np.ndarray]:
        tuned = self.tuning(precondition, step, length)
        self.carry, rows, used = host_draws(
            self.method, self.key, self.rounds, self.target, tuned, self.carry, n, self.names
        )
        self.rounds += used
        self.gradients += int(rows["n_gradients"].sum())
        return rows | {name: rows[name][:, :WATCHED].copy() for name in ("x", *self.names)}

    def copy(self, source: np.ndarray) -> None:
        self.carry = type(self.carry)(*(np.asarray(leaf)[source] for leaf in self.carry))


def stride(method: Method, step: float, length: float) -> int:
    """Transitions to a draw: as many as make up ``length`` where each is one step, else 1."""
    return int(np.clip(round(length / step), 1, MOST_STEPS)) if method.single else 1


def steps_for(length: Any, step_size: Any) -> Any:
    """The number of steps of a trajectory, between 1 and ``MOST_STEPS``; 1 for steps of size 0."""
    safe = jnp.where(step_size > 0, step_size, 1.0)
    count = jnp.clip(jnp.round(length / safe), 1, MOST_STEPS)
    return jnp.where(step_size > 0, count, 1).astype(jnp.int32)


def auxiliary(key: Any, shape: tuple[int, ...], dtype: Any) -> tuple[Any, Any]:
    """N(0, 1) numbers of ``shape`` = (chains, D) and U(0, 1) numbers, one a chain."""
    chains, dim = shape
    z, u = noise(key, np.int32(BEGINNING), chains * dim, chains, dtype)
    return z[: chains * dim].reshape(chains, dim), u[:chains]


def whiten(precondition: Preconditioner, x: np.ndarray) -> np.ndarray:
    """F⁻¹ x for each row of ``x``: float[N, D], on the host.

    >>> from ppcore.tuning.preconditioner import LowRank
    >>> flat = LowRank(np.array([2.0, 1.0]), np.array([[1.0], [0.0]]), np.array([3.0]))
    >>> whiten(flat, flat.push(np.ones((1, 2))))
    array([[1., 1.]])
    """
    if isinstance(precondition, Dense):
        return np.asarray(np.linalg.solve(np.asarray(precondition.factor, float), x.T).T)
    y = x / np.asarray(precondition.scale, float)
    basis, stretch = np.asarray(precondition.basis, float), np.asarray(precondition.stretch, float)
    return np.asarray(y + ((y @ basis) * (1 / stretch - 1)) @ basis.T)


class Lockstep:
    """What the engines share: ``init`` and ``block`` of a method, and how to warm up.

    Subclasses are frozen dataclasses that set ``method`` and define ``warmup``.
    """

    method: ClassVar[Method]
    compiled: ClassVar[bool] = True
    block_size: ClassVar[int] = 5 * CHUNK

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        """Positions ``x`` (float[chains, d]) with what the method carries beside them."""
        whole, traced = self.method.lift(target), is_traced(key, target, tuned, x)
        xp = jnp if traced else np
        x = xp.asarray(x)
        z, u = auxiliary(key, (x.shape[0], whole.dim), x.dtype)
        if whole.dim > x.shape[1]:
            x, z = xp.concatenate([x, xp.asarray(z)[:, x.shape[1] :]], axis=1), z[:, ::-1]
        if traced:
            return self.method.carry(x, *value_and_gradient(whole, x), z, u)
        machine = Chains(self.method, key, whole, len(x), x.dtype)
        log_density, gradient = machine.evaluate(tuned.preconditioner, x)
        return self.method.carry(x, log_density, gradient, z, u)

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Any, n: int
    ) -> tuple[Any, Any, dict[str, Any]]:
        """``n`` draws of every chain, ``tuned.thin`` transitions each; draws: float[chains, n, d].

        Runs the warm-up's program on chunks of transitions, so that no ``n`` compiles anything.
        """
        whole = self.method.lift(target)
        if is_traced(key, target, tuned, carry):
            carry, rows = traced_draws(self.method, key, whole, tuned, carry, n)
            xp: Any = jnp
        else:
            carry, rows, _ = host_draws(self.method, key, 0, whole, tuned, carry, n)
            xp = np
        x = xp.swapaxes(rows.pop("x"), 0, 1)[..., : target.dim]
        return carry, x, {name: xp.swapaxes(value, 0, 1) for name, value in rows.items()}


def tune(
    make: Callable[[Any, Any], Chains],
    key: Any,
    target: Any,
    metric: tuple[str, int],
    schedule: Schedule,
    report: Report,
) -> tuple[Any, Adapted]:
    """The shared warm-up of the chains that ``make(key, target)`` builds."""
    machine_key, start_key = spawned(key, 2)
    machine = make(machine_key, target)
    end = warm_up(machine, start_key, target, machine.chains, *metric, schedule, report)
    return machine, end


def warm(machine: Chains, end: Adapted, tuned: Any, dim: int) -> Warm:
    """The end of a warm-up, with the positions' first ``dim`` coordinates."""
    x = np.asarray(machine.carry.x)[:, :dim]
    return Warm(tuned, x, machine.gradients, tuple(end.notes))
