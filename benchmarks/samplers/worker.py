"""One engine on one target in a process of its own: ``... .worker REQUEST``.

REQUEST is a JSON object (see :class:`Request`). One line of JSON is printed for each seed.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """What to run."""

    problem: str
    engine: str
    settings: dict[str, Any]
    draws: int
    chains: int
    seeds: list[int]
    data: str | None
    precision: str


def main() -> None:
    request = Request(**json.loads(sys.argv[1]))
    warnings.simplefilter("ignore")
    try:
        run(request)
    except Exception as error:
        # A cell that fails is an entry of the table; the others are still run.
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        print(json.dumps({"seed": None, "error": said}), flush=True)


def run(request: Request) -> None:
    """Every seed in turn, in one process, so that only the first compiles."""
    import jax

    from benchmarks.samplers.judge import judged
    from benchmarks.samplers.problems import PROBLEMS
    from ppcore import registry
    from ppcore.errors import PluginError
    from ppcore.fit import infer

    compiling = Compiling()
    jax.monitoring.register_event_duration_secs_listener(compiling)
    problem = PROBLEMS[request.problem]
    target = problem.target(None if request.data is None else Path(request.data))
    if target is None:
        print(json.dumps({"seed": None, "absent": f"no {problem.file} (--data)"}), flush=True)
        return
    if reason := missing(request.engine):
        print(json.dumps({"seed": None, "absent": reason}), flush=True)
        return
    try:
        engine = registry.engine(request.engine, request.settings)
    except PluginError as error:
        print(json.dumps({"seed": None, "absent": str(error)}), flush=True)
        return
    for seed in request.seeds:
        compiling.seconds, began = 0.0, time.perf_counter()
        fit = infer(
            target,
            engine,
            draws=request.draws,
            chains=request.chains,
            seed=seed,
            progress="off",
            precision=request.precision,
        )
        seconds, compiled = time.perf_counter() - began, compiling.seconds
        outcome = {
            "seed": seed,
            **judged(problem, fit, seed),
            "gradients": int(sum(fit.attrs["gradients"].values())),
            "seconds": seconds,
            "compile_seconds": min(compiled, seconds),
            "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})",
            "notes": fit.attrs["notes"],
            "warnings": fit.attrs["warnings"],
        }
        print(json.dumps(outcome), flush=True)


def missing(name: str) -> str | None:
    """Why no engine of that name can run here, or None."""
    from ppcore import registry

    known = registry.catalog().engines
    if name not in known:
        return f"no engine {name!r} is installed"
    return registry.unavailable(known[name])


class Compiling:
    """Seconds that JAX spent tracing, lowering and compiling."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self, event: str, seconds: float, **about: Any) -> None:
        if event.startswith("/jax/core/compile/"):
            self.seconds += seconds


if __name__ == "__main__":
    main()
