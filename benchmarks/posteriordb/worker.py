"""One posterior in a process of its own: ``python -m benchmarks.posteriordb.worker REQUEST``.

REQUEST is a JSON object (see :class:`Request`); the outcome is written to its ``out`` as JSON.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Request:
    """What to run; ``began`` is when the process was asked for, in seconds since the epoch."""

    database: str
    name: str
    engine: str
    seed: int
    draws: int | None
    chains: int | None
    began: float
    out: str


def main() -> None:
    request = Request(**json.loads(sys.argv[1]))
    try:
        outcome = run(request)
    except Exception as error:
        # A posterior that fails is a row of the table; the others are still run.
        outcome = {"error": f"{type(error).__name__}: {error}"}
    Path(request.out).write_text(json.dumps(outcome))


def run(request: Request) -> dict[str, Any]:
    """Fit twice, time both, and judge the draws of the first fit."""
    from benchmarks.posteriordb.catalogue import CATALOGUE
    from benchmarks.posteriordb.database import Database

    _import_all()
    imported = time.time()
    warnings.simplefilter("ignore")
    database, posterior = Database(Path(request.database)), CATALOGUE[request.name]
    model = posterior.build(database.data(request.name))
    declared = time.time()
    fit, draws = _fit(model, posterior, request, request.seed)
    done = time.time()
    _fit(model, posterior, request, request.seed + 1)
    again = time.time()

    from benchmarks.posteriordb.score import score

    reference = database.reference(request.name)
    if reference is not None:
        reference = posterior.on_scale(reference)
    judged = score(draws, reference)
    record = fit.attrs
    return {
        "score": asdict(judged),
        "shortfalls": judged.shortfalls(),
        "chains": record["chains"],
        "draws": record["draws"],
        "gradients": record["gradients"],
        "divergences": record["health"]["divergences"],
        "notes": record["notes"],
        "warnings": record["warnings"],
        "settings": record["engine_settings"],
        "import_seconds": imported - request.began,
        "first_draw_seconds": declared - request.began + record["timings"]["first_draw_seconds"],
        "total_seconds": done - request.began,
        "second_seconds": again - done,
    }


def _import_all() -> None:
    """What a fit imports in any case, so that imports are told from the rest."""
    import jax  # noqa: F401
    import numpyro.distributions  # noqa: F401


def _fit(model: Any, posterior: Any, request: Request, seed: int) -> tuple[Any, Any]:
    """A fit, and its draws in the model's own coordinates."""
    fit = model.infer(
        request.engine,
        draws=request.draws,
        chains=request.chains,
        seed=seed,
        progress="off",
    )
    return fit, posterior.elements({site: fit.draws(site) for site in posterior.sites})


if __name__ == "__main__":
    main()
