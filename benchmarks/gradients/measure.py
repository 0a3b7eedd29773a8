"""Run an engine until the squares of all coordinates are known to b² < 0.01."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.targets.truth import Squares
from ppcore import precision
from ppcore.run import cache
from ppcore.run.keys import Keys

GOAL = 0.01


@dataclass(frozen=True)
class Outcome:
    """What one engine spent on one target, in gradients of one chain.

    Attributes
    ----------
    sampling : float or None
        Until the median over chains of max_i b_i² first fell below ``GOAL``; None if it did not.
    tuning : float
        Warm-up's, all chains together, divided by their number.
    draws : int
        Of each chain, until then or in all.
    left : float
        The median when the run ended.
    seconds : float
    """

    sampling: float | None
    tuning: float
    draws: int
    left: float
    seconds: float

    @property
    def total(self) -> float | None:
        return None if self.sampling is None else self.sampling + self.tuning


def measure(
    engine: Any, target: Any, truth: Squares, chains: int, seed: int, most: float
) -> Outcome:
    """Warm up, then draw block after block until the goal or ``most`` gradients of a chain.

    b_i² = (mean of x_i² so far − E[x_i²])² / Var[x_i²] of each chain by itself.
    """
    began, keys = time.perf_counter(), Keys(seed)
    cache.enable()
    with precision.scope("float64"):
        warm = engine.warmup(keys.warmup, target, chains, lambda progress: None)
        carry = engine.init(keys.init, target, warm.tuned, warm.x)
        sums, spent, done = np.zeros((chains, target.dim)), np.zeros(chains), 0
        found, size, left = None, engine.block_size, np.inf
        while found is None and np.median(spent) < most:
            key = keys.block(done // size)
            carry, draws, stats = engine.block(key, target, warm.tuned, carry, size)
            sums = sums[:, None] + np.cumsum(np.asarray(draws) ** 2, axis=1)
            cost = spent[:, None] + np.cumsum(np.asarray(stats["n_gradients"]), axis=1)
            means = sums / (done + 1 + np.arange(size))[:, None]
            worst = np.max((means - truth.mean) ** 2 / truth.variance, axis=2)
            middle = np.median(worst, axis=0)
            below = np.flatnonzero(middle < GOAL)
            if below.size:
                found, left = float(np.median(cost[:, below[0]])), float(middle[below[0]])
                done += int(below[0]) + 1
            else:
                left, done = float(middle[-1]), done + size
            sums, spent = sums[:, -1], cost[:, -1]
    seconds = time.perf_counter() - began
    return Outcome(found, warm.gradients / chains, done, left, seconds)
