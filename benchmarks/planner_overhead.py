"""What the planner costs where it cannot help: ``python -m benchmarks.planner_overhead``.

Each model is one that no rewrite improves and no certificate passes, so that the planner ends at
the ``ensemble`` that ``infer("ensemble", rewrites=False)`` would have run at once. Every cell is a
fresh process with an empty compilation cache; the two ways alternate, and medians are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import ppcore as pp
from benchmarks.machine import header
from ppcore import dist

ALLOWED = 0.05


@pp.model
def robust(x):
    """Student-t regression with a saturating predictor, 50 coefficients."""
    beta = pp.sample("beta", dist.Normal(0, 1).expand([x.shape[1]]))
    pp.sample("y", dist.StudentT(4, np.tanh(x) @ np.tanh(beta), 0.5))


@pp.model
def drift(length):
    """Volatility that wanders: 60 steps of a latent walk inside the scale."""
    step = pp.sample("step", dist.Normal(0, 1).expand([length]))
    pp.sample("y", dist.StudentT(5, 0.0, np.exp(0.2 * np.cumsum(np.tanh(step)))))


@pp.model
def heavy(x):
    """Thirty Cauchy coefficients that ten rows see: tails that no proposal covers."""
    beta = pp.sample("beta", dist.Cauchy(0, 1).expand([x.shape[1]]))
    pp.sample("y", dist.StudentT(2, x @ beta, 1.0))


def _robust() -> Any:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 50))
    return robust(x).observe(y=x[:, 0] + rng.normal(size=200))


def _drift() -> Any:
    return drift(60).observe(y=np.random.default_rng(0).normal(size=60))


def _heavy() -> Any:
    rng = np.random.default_rng(0)
    return heavy(rng.normal(size=(10, 30))).observe(y=5 * rng.normal(size=10))


MODELS: dict[str, Callable[[], Any]] = {
    "robust": _robust,
    "drift": _drift,
    "heavy": _heavy,
}
WAYS = ("ensemble", "planner")


def cell(name: str, way: str) -> dict[str, Any]:
    """Seconds of a first fit in this process, of a second, and what was chosen."""
    model = MODELS[name]()
    settings = {} if way == "planner" else {"rewrites": False}
    engine = None if way == "planner" else way
    taken = []
    for seed in (1, 2):
        began = time.perf_counter()
        fit = model.infer(engine, seed=seed, progress="off", **settings)
        fit.draws(model.latents[0])
        taken.append(time.perf_counter() - began)
    chosen = fit.plan.choice if way == "planner" else way
    applied = [r.name for r in fit.plan.rewrites if r.applied] if way == "planner" else []
    return {"first": taken[0], "second": taken[1], "choice": chosen, "rewrites": applied}


def fresh(name: str, way: str, timeout: float) -> dict[str, Any]:
    """:func:`cell` in a process of its own, with an empty cache."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(__file__).parents[1]
        paths = [str(root), *(p for p in sys.path if p)]
        env = os.environ | {"PPCORE_CACHE_DIR": folder, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.planner_overhead"]
        done = subprocess.run(
            [*command, "--cell", name, way],
            env=env,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=True,
        )
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument("--cell", nargs=2, metavar=("MODEL", "WAY"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        print(json.dumps(cell(*options.cell)))
        return
    print("\n".join(header(("ppcore", "jax"), {"repeats": options.repeats, "cache": "cold"})))
    print(
        "first: seconds of the first fit of a process. compilation: the ensemble's first less its "
        "second. cost: the planner's first less the ensemble's, and its share of compilation "
        f"(allowed: {ALLOWED:.0%}). Medians.",
        f"{'model':<10}{'ensemble':>10}{'planner':>10}{'compilation':>13}{'cost':>9}{'share':>8}"
        "  choice",
        sep="\n",
        flush=True,
    )
    for name in options.only:
        found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for _ in range(options.repeats):
            for way in WAYS:
                found[way].append(fresh(name, way, options.timeout))
        plain, planned = (median(c["first"] for c in found[way]) for way in WAYS)
        compiling = median(c["first"] - c["second"] for c in found["ensemble"])
        cost = planned - plain
        last = found["planner"][-1]
        said = last["choice"] + "".join(f", {r}" for r in last["rewrites"])
        print(
            f"{name:<10}{plain:>9.2f}s{planned:>9.2f}s{compiling:>12.2f}s{cost:>8.2f}s"
            f"{cost / compiling:>8.0%}  {said}",
            flush=True,
        )


if __name__ == "__main__":
    main()
