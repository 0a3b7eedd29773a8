"""One cell in a fresh process: ``python -m benchmarks.frontends.worker CASE WAY SEED LIMIT OUT``.

WAY is ``pyro eager``, ``pyro jit``, or an engine of ppcore. Times count from when the libraries are
imported; LIMIT is in seconds and holds for Pyro's chain.
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

CASES = (
    "eight schools",
    "logistic regression",
    "hierarchical regression",
    "hidden Markov model",
    "baseball",
)
GOAL = 400
WARMUP = 300
AT_LEAST = 100
# Draws and chains that are worth somewhat more than the goal.
SIZES = {"nuts": (300, 4), "smc": (1000, 2), "flow": (2000, 1)}
SETTINGS: dict[str, dict[str, Any]] = {"flow": {"layers": 2, "steps": 200, "batch": 128}}


def ess(draws: dict[str, np.ndarray]) -> float:
    """The smallest bulk effective size over all elements of float[chains, draws, …]."""
    from arviz_stats.base import array_stats

    columns = [v.reshape(*v.shape[:2], -1) for v in draws.values()]
    found = [
        float(array_stats.ess(v[..., i], method="bulk", chain_axis=0, draw_axis=1))
        for v in columns
        for i in range(v.shape[-1])
        if np.ptp(v[..., i]) > 0
    ]
    return min((e for e in found if math.isfinite(e)), default=0.0)


class Enough(Exception):
    """Pyro's chain has reached the goal or the limit."""


def pyro_nuts(case: Any, jit: bool, seed: int, limit: float) -> dict[str, Any]:
    """Pyro's NUTS, one chain, stopped as soon as its draws are worth the goal.

    Where the limit comes first, the sampling time is scaled to the goal.
    """
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS
    from pyro.infer.mcmc.util import initialize_model
    from pyro.ops.integrator import potential_grad

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    pyro.set_rng_seed(seed)
    arguments = case.data()
    options = {"max_plate_nesting": 1, "jit_compile": jit}
    began = time.perf_counter()
    kernel = NUTS(case.program, ignore_jit_warnings=True, **options)
    kept: dict[str, list[Any]] = {}
    times = {"warm": began, "last": began, "judging": 0.0}

    def see(kernel: Any, x: Any, stage: str, i: int) -> None:
        times["last"] = now = time.perf_counter() - times["judging"]
        if stage.lower().startswith("warm"):
            times["warm"] = now
            if now - began > limit:
                raise Enough
            return
        for name, value in x.items():
            kept.setdefault(name, []).append(value.detach().numpy().copy())
        count = len(next(iter(kept.values())))
        if now - began > limit:
            raise Enough
        if count >= AT_LEAST and count % 25 == 0:
            size = ess(_stacked(kept))
            times["judging"] += time.perf_counter() - times["judging"] - now
            if size >= GOAL:
                raise Enough

    mcmc = MCMC(
        kernel,
        num_samples=100_000,
        warmup_steps=WARMUP,
        hook_fn=see,
        disable_progbar=True,
    )
    try:
        mcmc.run(*arguments)
    except Enough:
        pass
    size = max(ess(_stacked(kept)), 1.0) if kept else 0.0
    sampling = times["last"] - times["warm"]
    total = times["warm"] - began + sampling * max(1.0, GOAL / size) if kept else limit
    start, potential, *_ = initialize_model(
        case.program, arguments, jit_compile=jit, skip_jit_warnings=True, max_plate_nesting=1
    )
    gradient = _per_call(lambda: potential_grad(potential, start), 2.0)
    return {
        "gradient": gradient,
        "seconds": total,
        "ess": size,
        "reached": size >= GOAL,
        "unwarmed": not kept,
        "draws": len(next(iter(kept.values()), [])),
    }


def _stacked(kept: dict[str, list[Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack(values)[None] for name, values in kept.items()}


def _per_call(run: Any, seconds: float) -> float:
    """Median seconds of a call, the first few left out."""
    for _ in range(3):
        run()
    taken: list[float] = []
    while sum(taken) < seconds and len(taken) < 1000:
        began = time.perf_counter()
        run()
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def ppcore_engine(case: Any, engine: str, seed: int) -> dict[str, Any]:
    """``pp.from_pyro(...).infer(engine)``, with everything that has to be compiled."""
    import jax
    import torch

    import ppcore as pp
    from ppcore import precision
    from ppcore.target import value_and_gradient

    torch.set_default_dtype(torch.float64)
    arguments = case.data()
    draws, chains = SIZES[engine]
    began = time.perf_counter()
    model = pp.from_pyro(case.program, *arguments)
    read = time.perf_counter() - began

    def fit(seed: int) -> float:
        own = SETTINGS.get(engine, {})
        made = model.infer(engine, seed=seed, draws=draws, chains=chains, progress="off", **own)
        return ess({site: np.asarray(made.draws(site)) for site in case.sites})

    size = max(fit(seed), 1.0)
    total, scale = time.perf_counter() - began, max(1.0, GOAL / size)
    found: dict[str, Any] = {
        "seconds": total * scale,
        "ess": size,
        "read": read,
        "reached": size >= GOAL,
    }
    if engine == "flow":
        return found
    began = time.perf_counter()
    second = max(fit(seed + 1), 1.0)
    found["again"] = (time.perf_counter() - began) * max(1.0, GOAL / second)
    if engine != "nuts":
        return found

    @jax.jit
    def follow(target: Any, x: Any) -> Any:
        """As many gradients one after the other: what a leapfrog step costs in a program."""

        def step(at: Any, _: Any) -> Any:
            return at + 1e-6 * value_and_gradient(target, at)[1], None

        return jax.lax.scan(step, x, None, length=200)[0]

    with precision.scope("float64"):
        target = jax.tree.map(jax.numpy.asarray, model.target())
        x = jax.numpy.zeros((1, target.dim))
        follow(target, x).block_until_ready()
        found["gradient"] = _per_call(lambda: follow(target, x).block_until_ready(), 1.0) / 200
    return found


def main() -> None:
    name, way, seed, limit, out = sys.argv[1:6]
    warnings.simplefilter("ignore")
    import arviz_stats.base  # noqa: F401
    import pyro  # noqa: F401

    from benchmarks.frontends.programs import PROGRAMS

    case = PROGRAMS[name]
    if way.startswith("pyro"):
        found = pyro_nuts(case, way.endswith("jit"), int(seed), float(limit))
    else:
        import jax  # noqa: F401
        import numpyro.distributions  # noqa: F401

        found = ppcore_engine(case, way, int(seed))
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
