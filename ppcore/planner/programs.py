"""The compiled programs that the planner evaluates a target with."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ppcore import registry
from ppcore.compiled import BRIEF, QUICK, jit
from ppcore.target import value_and_gradient

CHAINS = 64
ROWS = {1: 128}
MOST_ROWS, BLOCKS = 1024, 32
"""Rows of a block, by coordinates: a lattice in more than one asks for many; blocks of a call."""

LIGHT = 2500
"""Numbers that an evaluation may work on for its program to be compiled in a hurry."""

WALKERS = ("ensemble", "nuts")
"""Markov chain engines in the order of preference."""


class Counting:
    """An evaluation that counts its rows."""

    def __init__(self, evaluate: Any) -> None:
        self.inner, self.rows = evaluate, 0

    def __call__(self, x: np.ndarray) -> tuple[Any, Any]:
        self.rows += len(x)
        return self.inner(x)  # type: ignore[no-any-return]


def evaluator(target: Any) -> Any:
    """log γ and its gradient at rows: by the chains' own program where the engine offers it."""
    name = next((w for w in WALKERS if w in registry.catalog().engines), None)
    engine = registry.engine(name) if name is not None else None
    if hasattr(engine, "evaluator"):
        return engine.evaluator(target, CHAINS)  # type: ignore[union-attr]
    return Batched(target)


class Values:
    """log γ at any number of rows by one program, which works through them block by block."""

    def __init__(self, target: Any) -> None:
        self.target, self.rows = target, ROWS.get(target.dim, MOST_ROWS)
        small = numbers(target) < LIGHT
        self.program = _values(small)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        n, dim = x.shape
        blocks = -(-n // self.rows)
        made = []
        for start in range(0, blocks, BLOCKS):
            count = min(BLOCKS, blocks - start)
            part = x[start * self.rows : (start + count) * self.rows]
            room = np.empty((BLOCKS * self.rows, dim), np.result_type(float))
            room[: len(part)] = part
            room[len(part) : count * self.rows] = part[-1]
            grid = room.reshape(BLOCKS, self.rows, dim)
            values = np.asarray(self.program(self.target, grid, np.int32(count)))
            made.append(values[:count].reshape(-1))
        return np.concatenate(made)[:n]


def numbers(target: Any) -> int:
    """Elements of all wires of a model's target: what one evaluation works on."""
    diagram = getattr(target, "diagram", None)
    return LIGHT if diagram is None else sum(space.size for space in diagram.wires)


@cache
def _values(small: bool) -> Any:
    return jit(_blocks, QUICK if small else BRIEF)


def _blocks(target: Any, x: Any, count: Any) -> Any:
    """log γ at the first ``count`` blocks of x: float[blocks, rows, d]."""
    import jax
    import jax.numpy as jnp

    def block(i: Any, values: Any) -> Any:
        return values.at[i].set(jax.vmap(target.log_density)(x[i]))

    return jax.lax.fori_loop(0, count, block, jnp.zeros(x.shape[:2], x.dtype))


@cache
def _with_gradient() -> Any:
    return jit(value_and_gradient)


class Batched:
    """log γ and its gradient, ``CHAINS`` rows at a time."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % CHAINS, axis=0)])
        made = [
            _with_gradient()(self.target, part)
            for part in padded.reshape(-1, CHAINS, x.shape[1]).astype(np.result_type(float))
        ]
        value, gradient = (np.concatenate([np.asarray(m[i]) for m in made]) for i in (0, 1))
        return value[: len(x)], gradient[: len(x)]
