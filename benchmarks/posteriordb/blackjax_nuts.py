"""BlackJAX: NUTS after window adaptation, all chains vectorised in one compiled program.

It samples the log density of ppcore's model without rewrites, which spares its users nothing that
they would not write themselves; the time to import and declare that model is not counted.
"""

from __future__ import annotations

import time
from typing import Any

import blackjax
import jax
import numpy as np

from benchmarks.posteriordb.drawn import CHAINS, CORRELATED, DRAWS, WARMUP, Drawn, Prepared


def prepare(name: str, data: dict[str, Any]) -> Prepared:
    """BlackJAX on a posterior."""
    began = time.perf_counter()
    from benchmarks.posteriordb.catalogue import CATALOGUE

    jax.config.update("jax_enable_x64", True)
    posterior = CATALOGUE[name]
    target = posterior.build(data).target()
    excused = time.perf_counter() - began
    diagonal = name not in CORRELATED

    def chain(target: Any, key: Any) -> Any:
        start, adapt, sample = jax.random.split(key, 3)
        x = jax.random.uniform(start, (target.dim,), minval=-2.0, maxval=2.0)
        warmup = blackjax.window_adaptation(
            blackjax.nuts, target.log_density, is_mass_matrix_diagonal=diagonal
        )
        (state, tuned), _ = warmup.run(adapt, x, num_steps=WARMUP)
        step = blackjax.nuts(target.log_density, **tuned).step

        def advance(state: Any, key: Any) -> Any:
            state, info = step(key, state)
            return state, (target.constrain(state.position), info.num_integration_steps)

        return jax.lax.scan(advance, state, jax.random.split(sample, DRAWS))[1]

    program = jax.jit(jax.vmap(chain, (None, 0)))
    metric = "diagonal metric" if diagonal else "dense metric"

    def fit(seed: int) -> Drawn:
        values, steps = program(target, jax.random.split(jax.random.key(seed), CHAINS))
        sites = {n: np.asarray(values[n]) for n in posterior.sites}
        share, note = DRAWS / (DRAWS + WARMUP), f"ppcore's log density, {metric}"
        return Drawn(sites, share, int(np.asarray(steps).sum()), note)

    return Prepared(fit, excused)
