"""An amortised engine as a subject: it learns the conjugate check model, and is then held to it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from ppcore import precision
from ppcore.testing.models.conjugate import CONJUGATE, DATA

SEED = 20_260_201
SIMULATIONS = 30_000


@dataclass(frozen=True, eq=False)
class Taught:
    """``draw(key, target, n)`` by densities learnt from the joint of the conjugate normal model.

    One for each number of data, learnt when it is first asked for; data are exchangeable rows.
    """

    engine: Any
    learnt: dict[int, Any] = field(default_factory=dict)

    def draw(self, key: Any, target: Any, n: int) -> Any:
        """``n`` draws of the learnt posterior given the target's data; float[n, d]."""
        rows = int(target.y.shape[0])
        if rows not in self.learnt:
            # In a thread of its own: the caller is tracing, and what is learnt outlives the trace.
            with ThreadPoolExecutor(1) as alone:
                self.learnt[rows] = alone.submit(self._learn, rows).result()
        return self.learnt[rows].sample(key, target.y.ravel(), n)

    def _learn(self, rows: int) -> Any:
        def pair(key: Any) -> Any:
            k_joint, k_more = jax.random.split(key)
            x, target = CONJUGATE.simulate_joint(k_joint)
            if rows > DATA:
                assert CONJUGATE.extend is not None
                target = CONJUGATE.extend(k_more, target, x)
            return x, target.y[:rows].ravel()

        with precision.scope("float64"):
            keys = jax.random.split(jax.random.key(SEED + rows), SIMULATIONS)
            x, y = (np.asarray(v) for v in jax.jit(jax.vmap(pair))(keys))
            key = jax.random.key(rows)
            return self.engine.learn(key, x, y, rows, lambda _: None).density
