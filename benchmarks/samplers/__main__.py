"""Run the table; see the package's docstring."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.machine import header
from benchmarks.samplers import table
from benchmarks.samplers.plan import Row, rows
from benchmarks.samplers.problems import PROBLEMS
from benchmarks.samplers.worker import Request

PACKAGES = ("ppcore", "jax", "jaxlib", "numpy", "flowjax", "equinox", "optax", "torch", "zuko")


def main() -> None:
    options = _options()
    try:
        chosen = rows(options.targets, options.engines, options.every)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    results = Results(options.results)
    settings = {
        "seeds": options.seeds,
        "limit for all seeds of a row": f"{options.timeout:g} s",
        "precision": options.precision,
    }
    head = header(PACKAGES, settings)
    print("\n".join(head), flush=True)
    for row in chosen:
        _complete(row, results, options)
        print(table.line([row.target, *_cells(row, results, options.seeds)]), flush=True)
    text = page(chosen, results, options.seeds, [*head, *results.devices()])
    print(f"\n{text}")
    if options.markdown:
        options.markdown.write_text(text)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.samplers", description=__doc__)
    parser.add_argument("--targets", nargs="+", metavar="NAME")
    parser.add_argument("--engines", nargs="+", metavar="LABEL", help="rows of settings.toml")
    parser.add_argument(
        "--every", action="store_true", help="also engines that a target does not list"
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder of the data files")
    parser.add_argument("--timeout", type=float, default=300, help="seconds for a row, all seeds")
    parser.add_argument("--precision", default="float64", choices=("float32", "float64"))
    parser.add_argument("--results", type=Path, metavar="FILE", help="lines of JSON, kept")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--again", action="store_true", help="also run what failed before")
    return parser.parse_args()


class Results:
    """Lines of JSON, one for each row and seed, that outlive the process."""

    def __init__(self, file: Path | None) -> None:
        self.file, self.lines = file, []
        if file is not None and file.exists():
            self.lines = [json.loads(line) for line in file.read_text().splitlines()]

    def of(self, row: Row) -> list[dict[str, Any]]:
        """What is known of a row with its present settings."""
        return [one for one in self.lines if one["row"] == asdict(row)]

    def forget_failures(self, row: Row) -> None:
        """Leave out of the table why a row failed before; the file keeps it."""
        failed = [one for one in self.of(row) if "n" not in one]
        self.lines = [one for one in self.lines if one not in failed]

    def add(self, row: Row, outcome: dict[str, Any]) -> None:
        self.lines.append({"row": asdict(row), **outcome})
        if self.file is not None and "absent" not in outcome:
            with self.file.open("a") as stream:
                stream.write(json.dumps(self.lines[-1]) + "\n")

    def devices(self) -> list[str]:
        """A line for each device that a row ran on."""
        found = dict.fromkeys(one["device"] for one in self.lines if "device" in one)
        return [f"device: {name}" for name in found]


def _complete(row: Row, results: Results, options: argparse.Namespace) -> None:
    """Run the seeds of a row that are not there yet, each written as soon as it is done."""
    if options.again:
        results.forget_failures(row)
    known = results.of(row)
    if any("error" in one for one in known):
        return
    there = {one["seed"] for one in known if "n" in one}
    seeds = [seed for seed in range(options.seeds) if seed not in there]
    if not seeds:
        return
    request = Request(
        row.problem,
        row.engine,
        dict(row.settings),
        row.draws,
        row.chains,
        seeds,
        None if options.data is None else str(options.data),
        options.precision,
    )
    began, done = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as cache:
        process = _started(request, cache)
        watch = threading.Timer(options.timeout, process.kill)
        watch.start()
        said: list[str] = []
        reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
        reader.start()
        for text in process.stdout or ():
            if text.startswith("{"):
                outcome = json.loads(text)
                results.add(row, outcome)
                done += 1
                print(f"  {row.target}, {row.label}: {_brief(outcome)}", flush=True)
        process.wait()
        watch.cancel()
        reader.join()
    if done < len(seeds) and not any({"error", "absent"} & set(one) for one in results.of(row)):
        late = time.monotonic() - began >= options.timeout
        last = said[-1].strip() if said else "no message"
        why = f"stopped after {options.timeout:g} s" if late else f"the process ended: {last}"
        results.add(row, {"seed": None, "error": why})


def _started(request: Request, cache: str) -> subprocess.Popen[str]:
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, *(p for p in sys.path if p)])
    env = os.environ | {"PPCORE_CACHE_DIR": cache, "PYTHONPATH": paths}
    command = [sys.executable, "-m", "benchmarks.samplers.worker", json.dumps(asdict(request))]
    return subprocess.Popen(
        command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def _brief(outcome: dict[str, Any]) -> str:
    if "n" not in outcome:
        return str(outcome.get("absent") or outcome["error"])
    shown = ("log_z", "ess", "sinkhorn", "modes", "mass_error", "also", "gradients", "seconds")
    parts = [f"{name} {outcome[name]:.5g}" for name in shown if name in outcome]
    return f"seed {outcome['seed']}: " + ", ".join(parts) + f"; {outcome['device']}"


def _cells(row: Row, results: Results, seeds: int) -> list[str]:
    done = [one for one in results.of(row) if one["seed"] is None or one["seed"] < seeds]
    return table.cells(row, PROBLEMS[row.problem], done)


def page(chosen: list[Row], results: Results, seeds: int, head: list[str]) -> str:
    """All tables with what they mean."""
    parts = ["# Samplers on hard targets\n", "\n".join(f"- {line}" for line in head) + "\n"]
    parts.append(table.LEGEND.format(seeds=seeds))
    for target in dict.fromkeys(row.target for row in chosen):
        parts.append(table.heading(target, PROBLEMS[target]))
        parts.extend(table.HEAD)
        mine = [row for row in chosen if row.target == target]
        parts.extend(table.line(_cells(row, results, seeds)) for row in mine)
        parts.append("")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
