"""``python -m benchmarks.posteriordb --data PATH``: ppcore and its peers on each posterior.

With ``--engine NAME``, one engine of ppcore alone, judged against the reference in more detail.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks.machine import header
from benchmarks.posteriordb.catalogue import CATALOGUE
from benchmarks.posteriordb.compare import add_options, compare
from benchmarks.posteriordb.database import Database, DatabaseError
from benchmarks.posteriordb.report import COLUMNS, LEGEND, Row, line, markdown, tally
from benchmarks.posteriordb.worker import Request
from ppcore.errors import did_you_mean

PACKAGES = ("ppcore", "jax", "jaxlib", "numpyro", "numpy", "arviz-stats")


def main() -> int:
    options = _options()
    try:
        database = Database(options.data.resolve())
    except DatabaseError as error:
        raise SystemExit(str(error)) from None
    names = _names(database, options.only)
    if options.engine is None:
        return compare(database, names, options)
    if options.cache == "both":
        raise SystemExit("--cache both belongs to the comparison; with --engine, name one.")
    settings = {
        "engine": options.engine,
        "chains": options.chains or "the engine's default",
        "draws": options.draws or "the engine's default",
        "seed": options.seed,
        "compilation cache": f"{options.cache} ({_CACHES[options.cache]})",
    }
    head = header(PACKAGES, settings)
    width = max(map(len, names))
    print("\n".join(head), *LEGEND, "", line(COLUMNS, width), sep="\n", flush=True)
    rows = []
    for name in names:
        rows.append(Row(name, database.has_reference(name), _measure(database, name, options)))
        print(line(rows[-1].cells(), width), flush=True)
    print("", *tally(rows), sep="\n")
    if options.markdown:
        title = f"posteriordb with {options.engine}"
        options.markdown.write_text(markdown(title, head, rows))
    return 0


_CACHES = {
    "cold": "an empty folder for each posterior",
    "warm": "filled by a run of the same posterior just before",
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.posteriordb", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a `posterior_database` folder")
    parser.add_argument("--engine", help="fit with this engine alone, instead of comparing")
    parser.add_argument(
        "--posteriors",
        "--only",
        dest="only",
        nargs="+",
        default=[],
        metavar="NAME",
        help="whole or part names",
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--draws", type=int, help="draws of each chain")
    parser.add_argument("--chains", type=int)
    parser.add_argument(
        "--cache",
        choices=(*_CACHES, "both"),
        default="cold",
        help="the compilation cache: " + "; ".join(f"{k}: {v}" for k, v in _CACHES.items()),
    )
    parser.add_argument("--timeout", type=float, default=90, help="seconds for each process")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    add_options(parser)
    return parser.parse_args()


def _names(database: Database, only: list[str]) -> list[str]:
    """The posteriors to run: those with a model, whose name contains one of ``only``."""
    for name in database.names:
        if name not in CATALOGUE:
            print(f"{name}: no model in the catalogue, so it is left out", file=sys.stderr)
    names = [n for n in database.names if n in CATALOGUE]
    for part in only:
        if not any(part in n for n in names):
            raise SystemExit(f"No posterior is called {part!r}. {did_you_mean(part, names)}")
    return [n for n in names if not only or any(part in n for part in only)]


def _measure(database: Database, name: str, options: argparse.Namespace) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        if options.cache == "warm":
            _run(database, name, options, Path(folder))
        return _run(database, name, options, Path(folder))


def _run(database: Database, name: str, options: argparse.Namespace, folder: Path) -> dict:
    """One fresh process; its outcome, or why there is none."""
    out = folder / "outcome.json"
    out.unlink(missing_ok=True)
    root = str(Path(__file__).parents[2])
    paths = [root, *(p for p in sys.path if p)]
    env = os.environ | {"PPCORE_CACHE_DIR": str(folder), "PYTHONPATH": os.pathsep.join(paths)}
    request = Request(
        str(database.path),
        name,
        options.engine,
        options.seed,
        options.draws,
        options.chains,
        time.time(),
        str(out),
    )
    command = [sys.executable, "-m", "benchmarks.posteriordb.worker", json.dumps(asdict(request))]
    try:
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=options.timeout
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not finished after {options.timeout:g} s"}
    if not out.exists():
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"error": f"the process ended with status {done.returncode}: {last[0]}"}
    return json.loads(out.read_text())  # type: ignore[no-any-return]


if __name__ == "__main__":
    sys.exit(main())
