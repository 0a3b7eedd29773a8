"""One contender on one posterior, in a process of its own: ``... .cell REQUEST``.

REQUEST is a JSON object (see :class:`Request`). The draws of the first run go to ``draws`` (npz),
the timings to ``out`` (JSON), so that judging them takes none of the measured time.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTENDERS = {
    "planner": "benchmarks.posteriordb.ours:prepare_planner",
    "ensemble": "benchmarks.posteriordb.ours:prepare_ensemble",
    "nuts": "benchmarks.posteriordb.ours:prepare_nuts",
    "numpyro": "benchmarks.posteriordb.numpyro_models:prepare",
    "blackjax": "benchmarks.posteriordb.blackjax_nuts:prepare",
    "nutpie": "benchmarks.posteriordb.pymc_models:prepare",
}
"""Name -> what prepares it."""


@dataclass(frozen=True)
class Request:
    """What to run; ``began`` is when the process was asked for, in seconds since the epoch."""

    database: str
    name: str
    contender: str
    seed: int
    began: float
    out: str
    draws: str


def main() -> None:
    request = Request(**json.loads(sys.argv[1]))
    warnings.simplefilter("ignore")
    try:
        outcome = run(request)
    except Exception as error:
        # A cell that fails is an entry of the table; the others are still run.
        outcome = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    Path(request.out).write_text(json.dumps(outcome))


def run(request: Request) -> dict[str, Any]:
    """Fit twice, with two seeds, and time both."""
    import numpy as np

    from benchmarks.posteriordb.database import Database

    module, _, attribute = CONTENDERS[request.contender].partition(":")
    data = Database(Path(request.database)).data(request.name)
    prepared = getattr(importlib.import_module(module), attribute)(request.name, data)
    first = prepared.fit(request.seed)
    done = time.time()
    second = prepared.fit(request.seed + 1)
    again = time.time()
    np.savez(request.draws, **first.sites)
    return {
        "fresh_seconds": done - request.began - prepared.excused,
        "second_seconds": again - done,
        "share": second.share,
        "gradients": first.gradients,
        "note": first.note,
    }


if __name__ == "__main__":
    main()
