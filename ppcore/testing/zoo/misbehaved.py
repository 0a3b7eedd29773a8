"""Mutants that break the protocol rather than a law: outputs, seeds, traces, state, settings."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.testing.reference.kernel_engine import KernelEngine
from ppcore.testing.reference.metropolis import Position, RandomWalk
from ppcore.testing.subject import Subject
from ppcore.testing.zoo.entry import Animal

STEP = {"step_size": 0.5}
QUICK = ("normal",)


class OwnNoise(RandomWalk):
    """Draws its proposals from a generator of its own while tracing."""

    def propose(self, key: Any, x: Any, params: Any) -> Any:
        return x + params["step_size"] * np.random.default_rng().normal(size=x.shape)


class KeyIgnored(RandomWalk):
    def propose(self, key: Any, x: Any, params: Any) -> Any:
        return super().propose(jax.random.key(3), x, params)

    def accept(self, key: Any, log_ratio: Any) -> Any:
        return super().accept(jax.random.key(4), log_ratio)


class FirstTarget(KernelEngine):
    """Holds on to the target of its warm-up: new data change nothing."""

    def warmup(self, key: Any, target: Any, chains: int, report: Any) -> Any:
        object.__setattr__(self, "held", target)
        return super().warmup(key, target, chains, report)

    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
        return super().block(key, self.held, tuned, carry, n)  # type: ignore[attr-defined]


class Counting(KernelEngine):
    """Keeps a count in the object: a run resumed elsewhere goes on differently."""

    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
        count = next(_counter)
        return super().block(jax.random.fold_in(key, count), target, tuned, carry, n)


_counter = itertools.count()


class Raises(KernelEngine):
    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
        raise ValueError("no such luck")


class NotANumber(KernelEngine):
    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
        carry, draws, stats = super().block(key, target, tuned, carry, n)
        return carry, draws.at[:, -1].set(jnp.nan), stats


class DrawsFirst(KernelEngine):
    """[n, chains, d] in place of [chains, n, d]."""

    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
        carry, draws, stats = super().block(key, target, tuned, carry, n)
        return carry, jnp.swapaxes(draws, 0, 1), stats


class SinglePrecision(KernelEngine):
    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
        carry, draws, stats = super().block(key, target, tuned, carry, n)
        return carry, draws.astype(jnp.float32), stats


class CarryChanges(KernelEngine):
    """Carries a count that starts as a float and comes back an integer."""

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        return super().init(key, target, tuned, x), jnp.zeros(())

    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
        state, draws, stats = super().block(key, target, tuned, carry[0], n)
        return (state, jnp.asarray(n)), draws, stats


@dataclass(frozen=True)
class LooksAtValues(RandomWalk):
    """Branches in Python on a traced value."""

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        moved, info = super().step(key, target, state, params)
        if moved.x[0] > 1e9:
            return Position(state.x), info
        return moved, info


class OpenSettings(KernelEngine):
    """Swallows any setting."""

    def __init__(self, kernel: Any = None, params: Any = None, **more: Any) -> None:
        super().__init__(kernel or RandomWalk(), params or STEP)


def behaving(name: str, engine: Any) -> Subject:
    """An engine whose manners are under test."""
    return Subject(name, RandomWalk().contract, engine=engine, models=QUICK)


MUTANTS = (
    Animal(
        behaving("own_noise", KernelEngine(OwnNoise(), STEP)),
        "draws from a generator of its own",
        killers=("seed", "invariance"),
    ),
    Animal(
        behaving("key_ignored", KernelEngine(KeyIgnored(), STEP)),
        "ignores the key",
        killers=("seed",),
    ),
    Animal(
        behaving("first_target", FirstTarget(RandomWalk(), STEP)),
        "holds on to the target of its warm-up",
        killers=("invariance",),
    ),
    Animal(
        behaving("hidden_count", Counting(RandomWalk(), STEP)),
        "keeps state outside its carry",
        killers=("resume", "seed"),
    ),
    Animal(behaving("raises", Raises(RandomWalk(), STEP)), "raises", killers=("outputs",)),
    Animal(
        behaving("not_a_number", NotANumber(RandomWalk(), STEP)),
        "returns NaN",
        killers=("outputs",),
    ),
    Animal(
        behaving("draws_first", DrawsFirst(RandomWalk(), STEP)),
        "returns draws with their axes swapped",
        killers=("outputs",),
    ),
    Animal(
        behaving("single_precision", SinglePrecision(RandomWalk(), STEP)),
        "returns float32 for float64",
        killers=("outputs",),
    ),
    Animal(
        behaving("carry_changes", CarryChanges(RandomWalk(), STEP)),
        "its carry changes dtype",
        killers=("outputs", "one_trace"),
    ),
    Animal(
        behaving("looks_at_values", KernelEngine(LooksAtValues(), STEP)),
        "branches on a traced value",
        killers=("outputs",),
    ),
    Animal(
        behaving("open_settings", OpenSettings()),
        "accepts settings it does not know",
        killers=("settings",),
    ),
)
