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
from collections.abc import Iterator
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
        for outcome in run(request):
            _write(Path(request.out), outcome)
    except Exception as error:
        # A cell that fails is an entry of the table; the others are still run.
        if not Path(request.out).exists():
            said = f"{type(error).__name__}: {error}".splitlines()[0]
            _write(Path(request.out), {"error": said})


def _write(out: Path, outcome: dict[str, Any]) -> None:
    """As a whole or not at all: the process may be stopped at any time."""
    draft = out.with_suffix(".draft")
    draft.write_text(json.dumps(outcome))
    draft.replace(out)


def run(request: Request) -> Iterator[dict[str, Any]]:
    """Fit twice, with two seeds, and time both; what is known after each.

    Until the second is done, the time of the first stands for it, which is no less.
    """
    import numpy as np

    from benchmarks.posteriordb.database import Database

    module, _, attribute = CONTENDERS[request.contender].partition(":")
    data = Database(Path(request.database)).data(request.name)
    prepared = getattr(importlib.import_module(module), attribute)(request.name, data)
    start = time.time()
    first = prepared.fit(request.seed)
    done = time.time()
    np.savez(request.draws, **first.sites)
    known = {
        "fresh_seconds": done - request.began - prepared.excused,
        "gradients": first.gradients,
        "note": first.note,
    }
    note = f"{first.note} (a second run was not finished: its time is that of the first)"
    yield known | {"second_seconds": done - start, "share": first.share, "note": note}
    before = time.time()
    second = prepared.fit(request.seed + 1)
    seconds = time.time() - before
    # Of two measurements of the same work the smaller; compilation is only in the first.
    drawing = min(first.share * (done - start), second.share * seconds)
    yield known | {
        "second_seconds": seconds,
        "share": second.share,
        "drawing_seconds": drawing,
    }


if __name__ == "__main__":
    main()
