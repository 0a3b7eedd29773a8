"""One run of checks on one subject: seeds, shared simulations, and the error per test."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.engine import Progress
from ppcore.testing.models import CheckModel, feature_scale, raw_features, simulate
from ppcore.testing.subject import Subject

STEPS = (1, 2, 3, 4, 5, 20)
LENGTH = 20
BATCH = 2000
WALKERS = 8
QUICK = {"xla_backend_optimization_level": 0}


class OutputError(Exception):
    """An engine returned something that is not what its protocol says."""


@dataclass(frozen=True)
class Paths:
    """Stationary paths of ``R`` joint draws, summarised by bounded features.

    Attributes
    ----------
    start : float[R, F]
        F(θ₀, y).
    steps : float[R, 6, F]
        F(θ_K, y) for K in ``STEPS``.
    x_start, x_end : float[R, d]
        θ₀ and θ₂₀.
    """

    start: Any
    steps: Any
    x_start: Any
    x_end: Any


class Session:
    """Seeds and simulations that the checks of one subject share.

    Parameters
    ----------
    subject : Subject
    models : sequence of CheckModel
    seed : int
    alpha : float
        Error probability granted to each statistical test.
    replicates : int
        Joint draws per model, in batches of 2,000; a test stops early once it rejects.
    optimise : bool
        Whether the compiler should work for speed; a zoo compiles more than it computes.
    """

    def __init__(
        self,
        subject: Subject,
        models: tuple[CheckModel, ...],
        seed: int,
        alpha: float,
        replicates: int,
        optimise: bool = True,
    ) -> None:
        self.subject = subject
        self.models = models
        self.seed = seed
        self.alpha = alpha
        self.replicates = replicates
        self.optimise = optimise
        self.shelf: dict[str, Any] = {}
        self._tuned: dict[str, Any] = {}
        self._paths: dict[tuple[str, int, int], Paths] = {}
        self._programs: dict[Any, Callable[..., Any]] = {}

    @property
    def host(self) -> bool:
        """Whether the engine runs on the host, so that nothing can trace it."""
        return bool(getattr(self.subject.engine, "host", False))

    @property
    def batches(self) -> int:
        return max(1, self.replicates // BATCH)

    @property
    def batch_size(self) -> int:
        return min(BATCH, self.replicates)

    def key(self, *names: object) -> Any:
        """A typed key for a purpose; distinct purposes get independent keys."""
        word = "/".join(map(str, names)).encode()
        return jax.random.fold_in(jax.random.key(self.seed), zlib.crc32(word))

    def typical(self, model: CheckModel) -> Any:
        """One target with typical data: what an engine warms up on."""
        keys = jax.random.split(self.key("typical", model.name), 2)
        _, targets = simulate(model, keys)
        return take(targets, model, 0)

    def tuned(self, model: CheckModel) -> Any:
        """Parameters from one warm-up on typical data, fixed afterwards."""
        if model.name not in self._tuned:
            engine, target = self.subject.engine, self.typical(model)
            if getattr(engine, "fitted", False):
                # What describes one posterior as a whole says nothing of another data set's; what
                # describes the prior covers all of them.
                target = target.tempered(jnp.zeros((), jnp.result_type(float)))
            warm = engine.warmup(
                self.key("warmup", model.name),
                target,
                max(1, int(engine.default_chains)),
                _silent,
            )
            self._tuned[model.name] = warm.tuned
        return self._tuned[model.name]

    def paths(self, model: CheckModel, batch: int, direction: int = 0) -> Paths:
        """Paths of the engine from joint draws; ``direction`` 1 is a second, independent path
        from the same starts."""
        at = (model.name, batch, direction)
        if at not in self._paths:
            self._paths[at] = self._simulate(model, batch, direction)
        return self._paths[at]

    def _simulate(self, model: CheckModel, batch: int, direction: int) -> Paths:
        keys = jax.random.split(self.key("joint", model.name, batch), self.batch_size)
        x, targets = simulate(model, keys)
        path_keys = jax.random.split(
            self.key("path", model.name, batch, direction), self.batch_size
        )
        starts, place = self._starts(model, x, targets, batch)
        chosen = self._program(model)(path_keys, starts, place, targets, self.tuned(model))
        states = jnp.concatenate([x[:, None], chosen], axis=1)
        features = np.asarray(feature_scale(model)(raw_features(model, states, targets)))
        return Paths(features[:, 0], features[:, 1:], np.asarray(x), np.asarray(chosen[:, -1]))

    def _starts(self, model: CheckModel, x: Any, targets: Any, batch: int) -> tuple[Any, Any]:
        """Start positions, float[R, chains, d], and which chain starts at θ₀, int[R].

        One chain, at θ₀, unless chains move each other (``engine.coupled``): then the others start
        at exact draws of the same posterior, and θ₀ is at the front or at the back by turns.
        """
        n = len(x)
        if not getattr(self.subject.engine, "coupled", False):
            return x[:, None], np.zeros(n, int)
        posterior = model.posterior
        assert posterior is not None
        place = (WALKERS - 1) * (np.arange(n) % 2)
        keys = jax.random.split(self.key("walkers", model.name, batch), n)
        exact = jax.jit(jax.vmap(lambda k, t: posterior(k, t, WALKERS), (0, model.axes)))
        others = exact(keys, targets)
        return others.at[np.arange(n), place].set(x), place

    def _program(self, model: CheckModel) -> Callable[..., Any]:
        """One compiled program per engine and kind of target; a family of models shares it."""
        at = (model.raw_features, model.axes, model.dim)
        if at not in self._programs:
            path = make_path(self.subject.engine)
            batched = jax.vmap(path, (0, 0, 0, model.axes, None))
            self._programs[at] = one_by_one(path, model) if self.host else self.jit(batched)
        return self._programs[at]

    def jit(self, fn: Callable[..., Any]) -> Any:
        """``jax.jit``, with fast or thorough compilation as the session was told; an engine that
        runs on the host is called as it is."""
        if self.host:
            return fn
        return jax.jit(fn, compiler_options=None if self.optimise else QUICK)

    def each_batch(self, model: CheckModel) -> Iterator[Paths]:
        """Batches of paths, one after another."""
        for batch in range(self.batches):
            yield self.paths(model, batch)


def make_path(engine: Any) -> Callable[..., Any]:
    """``(key, x, i, target, tuned) -> x_K for K in STEPS``: float[6, d] of chain i of those that
    start at x: float[chains, d]."""
    where = np.array(STEPS) - 1

    def path(key: Any, x: Any, i: Any, target: Any, tuned: Any) -> Any:
        k_init, k_block = jax.random.split(key)
        carry = engine.init(k_init, target, tuned, x)
        _, draws, _ = engine.block(k_block, target, tuned, carry, LENGTH)
        want = (x.shape[0], LENGTH, x.shape[1])
        if jnp.shape(draws) != want:
            raise OutputError(
                f"block(n={LENGTH}) returned draws of shape {jnp.shape(draws)}; expected "
                f"[chains, n, d] = {want}."
            )
        return draws[i][where]

    return path


def one_by_one(path: Callable[..., Any], model: CheckModel) -> Callable[..., Any]:
    """``path`` over a batch by a loop, for an engine that cannot be traced."""

    def over(keys: Any, x: Any, place: Any, targets: Any, tuned: Any) -> Any:
        targets = jax.tree.map(np.asarray, targets)
        at = zip(keys, x, place, (take(targets, model, i) for i in range(len(x))), strict=True)
        return jnp.asarray(np.stack([path(*one, tuned) for one in at]))

    return over


def take(targets: Any, model: CheckModel, i: int) -> Any:
    """Target number ``i`` of a batch."""
    if model.axes == 0:
        return jax.tree.map(lambda a: a[i], targets)
    axes = iter(jax.tree.leaves(model.axes, is_leaf=lambda a: a is None))
    return jax.tree.map(lambda leaf: leaf if next(axes) is None else leaf[i], targets)


def _silent(_: Progress) -> None:
    return None
