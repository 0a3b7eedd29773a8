"""Every contender on every posterior: fresh processes, results kept cell by cell, a summary."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import header, load
from benchmarks.posteriordb.catalogue import CATALOGUE, Posterior
from benchmarks.posteriordb.cell import CONTENDERS, Request
from benchmarks.posteriordb.database import Database, split
from benchmarks.posteriordb.drawn import CHAINS
from benchmarks.posteriordb.summary import COLUMNS, LEGEND, line, row, summary, write
from benchmarks.posteriordb.verdict import judge
from ppcore.errors import did_you_mean

PACKAGES = ("ppcore", "jax", "jaxlib", "numpyro", "blackjax", "nutpie", "pymc", "numpy")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of a comparison."""
    parser.add_argument(
        "--contenders",
        default=",".join(CONTENDERS),
        help="comma-separated, in the order to run for each posterior: %(default)s",
    )
    parser.add_argument("--peer-python", type=Path, help="interpreter of the nutpie cells")
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("posteriordb.jsonl"),
        help="one line a cell; a later call leaves out what is there (%(default)s)",
    )
    parser.add_argument("--fresh", action="store_true", help="forget the cells of --results first")
    parser.add_argument("--retry", action="store_true", help="run the cells that failed again")


def compare(database: Database, names: list[str], options: argparse.Namespace) -> int:
    """Run what is missing of ``names`` × contenders, print every cell, write the report."""
    contenders = [c.strip() for c in options.contenders.split(",") if c.strip()]
    for contender in contenders:
        if contender not in CONTENDERS:
            raise SystemExit(f"No contender {contender!r}. {did_you_mean(contender, CONTENDERS)}")
    for folder in ("ppcore", "plugins", "benchmarks"):
        # The byte code that an installer writes for the peers, a source tree may lack.
        compileall.compile_dir(Path(__file__).parents[2] / folder, quiet=1)
    settings = {"seed": options.seed, "cache": options.cache, "timeout": f"{options.timeout:g} s"}
    head = header(PACKAGES, settings)
    print("\n".join(head), *LEGEND, "", line(COLUMNS), sep="\n", flush=True)
    if options.fresh:
        options.results.unlink(missing_ok=True)
    kept = _read(options.results)
    modes = ("cold", "warm") if options.cache == "both" else (options.cache,)
    wanted = [(n, c, m) for n in names for c in contenders for m in modes]
    began = time.time()
    for at, (name, contender, mode) in enumerate(wanted):
        found = kept.get((name, contender, mode))
        if found is None or (options.retry and "error" in found):
            found = _cell(database, name, contender, mode, options)
            kept[name, contender, mode] = found
            with options.results.open("a") as file:
                file.write(json.dumps(found) + "\n")
        print(
            line(row(found)), f"[{at + 1}/{len(wanted)}, {time.time() - began:.0f} s]", flush=True
        )
    cells = [kept[key] for key in wanted]
    for mode in modes:
        print("", *summary([c for c in cells if c["cache"] == mode], mode), sep="\n")
    if options.markdown:
        write(options.markdown, head, cells, modes)
    return 0


def _read(path: Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The cells of a results file; the last of each counts."""
    if not path.exists():
        return {}
    cells = [json.loads(text) for text in path.read_text().splitlines() if text.strip()]
    return {(c["posterior"], c["contender"], c["cache"]): c for c in cells}


def _cell(
    database: Database, name: str, contender: str, mode: str, options: argparse.Namespace
) -> dict[str, Any]:
    """One fresh process, judged; with ``mode`` "warm", after another that filled the cache."""
    about = {"posterior": name, "contender": contender, "cache": mode, "load": load()}
    with tempfile.TemporaryDirectory() as folder:
        if mode == "warm":
            _run(database, name, contender, Path(folder), options)
        outcome = _run(database, name, contender, Path(folder), options)
        if "error" in outcome:
            return about | outcome
        with np.load(Path(folder) / "draws.npz") as stored:
            sites = {site: stored[site] for site in stored.files}
    try:
        verdict = judge(*_elements(database, CATALOGUE[name], name, sites))
    except Exception as error:
        return about | outcome | {"error": f"cannot be judged: {type(error).__name__}: {error}"}
    return about | outcome | asdict(verdict) | {"passes": verdict.passes}


def _elements(
    database: Database, posterior: Posterior, name: str, sites: dict[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray] | None]:
    """Draws and reference by element, on the scale they are judged on."""
    made: dict[str, np.ndarray] = {}
    for site in posterior.sites:
        made |= split(site, np.asarray(sites[site], float))
    reference = database.reference(name)
    return posterior.on_scale(made), None if reference is None else posterior.on_scale(reference)


def _run(
    database: Database, name: str, contender: str, folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """One fresh process; its outcome, or why there is none."""
    out, draws = folder / "outcome.json", folder / "draws.npz"
    out.unlink(missing_ok=True)
    other = contender == "nutpie" and options.peer_python
    python = str(options.peer_python) if other else sys.executable
    place, began = str(database.path), time.time()
    request = Request(place, name, contender, options.seed, began, str(out), str(draws))
    command = [python, "-m", "benchmarks.posteriordb.cell", json.dumps(asdict(request))]
    try:
        done = subprocess.run(
            command,
            env=_environment(contender, folder, bool(other)),
            capture_output=True,
            text=True,
            timeout=options.timeout,
        )
    except subprocess.TimeoutExpired:
        if not out.exists():
            return {"error": f"not finished after {options.timeout:g} s"}
        done = None
    if done is not None and not out.exists():
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        return {"error": f"the process ended with status {done.returncode}: {last[0]}"}
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def _environment(contender: str, folder: Path, other: bool) -> dict[str, str]:
    """Every library's disk cache in ``folder``, with the settings that ppcore gives its own."""
    root = Path(__file__).parents[2]
    paths = [str(root), str(root / "plugins")]
    cache = folder / "cache"
    cache.mkdir(exist_ok=True)
    own = {
        "PYTHONPATH": os.pathsep.join(paths if other else [*paths, *(p for p in sys.path if p)]),
        "PPCORE_CACHE_DIR": str(cache),
        "PYTENSOR_FLAGS": f"base_compiledir={cache}",
        "NUMBA_CACHE_DIR": str(cache),
    }
    if contender in ("numpyro", "blackjax"):
        own["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        own["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    if contender == "numpyro":
        # With fewer host devices than chains NumPyro draws them one after the other.
        own["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={CHAINS}"
    return dict(os.environ) | own
