"""One contender in a fresh process: ``python -m benchmarks.first_call.worker NAME BEGAN SEED OUT``.

BEGAN is when the process was asked for, in seconds since the epoch.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from pathlib import Path

from benchmarks.first_call.contenders import CONTENDERS


def main() -> None:
    name, began, seed, out = sys.argv[1], float(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    warnings.simplefilter("ignore")
    fit = CONTENDERS[name].prepare()
    imported = time.time()
    draws = fit(seed)
    first = time.time()
    fit(seed + 1)
    second = time.time()

    from benchmarks.posteriordb.database import split
    from benchmarks.posteriordb.score import score

    elements = (split(site, values) for site, values in draws.items())
    judged = score({name: v for part in elements for name, v in part.items()}, None)
    outcome = {
        "import": imported - began,
        "first": first - began,
        "second": second - first,
        "ess": judged.ess[0],
        "rhat": judged.rhat[0],
        "draws": int(draws["mu"].size),
    }
    out.write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
