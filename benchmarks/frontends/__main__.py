"""``python -m benchmarks.frontends --out benchmarks/frontends.md``, a quarter of an hour."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.frontends.worker import CASES, GOAL, SETTINGS, SIZES, WARMUP
from benchmarks.machine import header

PACKAGES = ("ppcore", "jax", "numpyro", "pyro-ppl", "torch", "numpy")
ENGINES = tuple(SIZES)
WAYS = ("pyro eager", "pyro jit", "nuts cold", "nuts warm", "smc cold", "smc warm", "flow cold")
PATIENCE = 120.0
"""Seconds that a process of ppcore's may take."""
TRAINING = ", ".join(f"{name} {value}" for name, value in SETTINGS["flow"].items())
LEGEND = f"""\
Seconds until the draws are worth {GOAL} by the smallest bulk effective size, from a fresh process's
imports on; compilation is included. Cells of ppcore: first process / later process / next fit in
the later process. The first has an empty folder of compiled programs, the later one what the first
left there. `nuts` takes {SIZES["nuts"][1]} chains of {SIZES["nuts"][0]} draws after its warm-up,
`smc` {SIZES["smc"][1]} runs of {SIZES["smc"][0]} particles, `flow` {SIZES["flow"][0]} draws after a
short training ({TRAINING}; first process only). Draws that are worth less than
{GOAL} are marked `*`, and their time is scaled up in proportion.

Pyro: its own NUTS on the same program, one chain on one thread, double precision, {WARMUP} draws of
warm-up, stopped when its draws are worth {GOAL}; with `jit_compile` on and off. After the limit of
time (`*`) the time of sampling is scaled up in proportion; a warm-up that does not end in time
counts as the limit, and `>` says so.

Per gradient: one value and gradient, by Pyro as its NUTS calls it, by ppcore inside a compiled loop
of one chain. Times faster: Pyro's better way over ppcore's `nuts`."""


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.frontends", description=__doc__)
    parser.add_argument("--only", nargs="+", default=[], metavar="PART", help="parts of names")
    parser.add_argument("--ways", nargs="+", default=[], metavar="PART", help="parts of names")
    parser.add_argument("--limit", type=float, default=45.0, help="seconds for each of Pyro's")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the tables there, as Markdown")
    options = parser.parse_args()
    cases = [c for c in CASES if not options.only or any(p in c for p in options.only)]
    ways = [w for w in WAYS if not options.ways or any(p in w for p in options.ways)]
    about = header(PACKAGES, {"seed": options.seed, "limit": f"{options.limit:.0f} s"})
    print(*about, sep="\n", flush=True)
    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as root:
        for case in cases:
            found[case] = {}
            for way in ways:
                cache = Path(root) / f"{case} {way.split()[0]}"
                found[case][way] = _run(case, way, options.seed, options.limit, cache)
                print(f"{case}, {way}: {json.dumps(found[case][way])}", flush=True)
    text = report(about, found)
    print("", text, sep="\n")
    if options.out is not None:
        options.out.write_text(text)
    return 0


def _run(case: str, way: str, seed: int, limit: float, cache: Path) -> dict[str, Any]:
    """One fresh process; what it found, or ``error``."""
    cache.mkdir(parents=True, exist_ok=True)
    out = cache / "found.json"
    out.unlink(missing_ok=True)
    named = way if way.startswith("pyro") else way.split()[0]
    command = [sys.executable, "-m", "benchmarks.frontends.worker"]
    command += [case, named, str(seed), repr(limit), str(out)]
    root = str(Path(__file__).parents[2])
    environment = dict(os.environ) | {
        "PYTHONPATH": os.pathsep.join([root, *(p for p in sys.path if p)]),
        "PPCORE_CACHE_DIR": str(cache),
    }
    longest = 4 * limit if way.startswith("pyro") else PATIENCE
    try:
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=longest
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done after {longest:.0f} s"}
    if out.exists():
        return json.loads(out.read_text())  # type: ignore[no-any-return]
    return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}


def report(about: list[str], found: dict[str, dict[str, Any]]) -> str:
    """The tables, as Markdown."""
    lines = ["# Pyro programs, by ppcore and by Pyro", "", *(f"- {line}" for line in about), ""]
    lines += [LEGEND, "", "## Time per gradient", ""]
    lines += _table(("program", "Pyro eager", "Pyro jit", "ppcore", "times faster"))
    for case, ways in found.items():
        eager, jit, ours = (_gradient(ways, w) for w in ("pyro eager", "pyro jit", "nuts cold"))
        best = min((g for g in (eager, jit) if g), default=None)
        cells = [_micro(g) for g in (eager, jit, ours)]
        lines.append(_row([case, *cells, f"{best / ours:,.0f}" if best and ours else "-"]))
    lines += ["", f"## Seconds to {GOAL} effective draws", ""]
    lines += _table(("program", "Pyro eager", "Pyro jit", *ENGINES, "times faster"))
    for case, ways in found.items():
        theirs = [_seconds(ways.get(w, {})) for w in ("pyro eager", "pyro jit")]
        ours = [_three(ways, engine) for engine in ENGINES]
        lines.append(_row([case, *theirs, *ours, _ratios(ways)]))
    errors = [
        f"- {case}, {way}: {cell['error']}"
        for case, ways in found.items()
        for way, cell in ways.items()
        if "error" in cell
    ]
    return "\n".join([*lines, *(["", "Failed:", "", *errors] if errors else [])]) + "\n"


def _table(columns: tuple[str, ...]) -> list[str]:
    return [_row(list(columns)), _row(["---"] * len(columns))]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _gradient(ways: dict[str, Any], way: str) -> float | None:
    found = ways.get(way, {}).get("gradient")
    return None if found is None else float(found)


def _micro(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e6:,.3g} µs"


def _seconds(cell: dict[str, Any], key: str = "seconds") -> str:
    if key not in cell:
        return "failed" if "error" in cell else "-"
    mark = "" if cell["reached"] else "*"
    return f"{'>' * bool(cell.get('unwarmed'))}{cell[key]:,.2f}{mark}"


def _three(ways: dict[str, Any], engine: str) -> str:
    cold, warm = ways.get(f"{engine} cold", {}), ways.get(f"{engine} warm", {})
    cells = [_seconds(cold)]
    cells += [_seconds(warm), _seconds(warm, "again")] if warm else []
    return " / ".join(cells)


def _ratios(ways: dict[str, Any]) -> str:
    theirs = [ways.get(w, {}).get("seconds") for w in ("pyro eager", "pyro jit")]
    best = min((s for s in theirs if s), default=None)
    cold, warm = ways.get("nuts cold", {}), ways.get("nuts warm", {})
    ours = [cold.get("seconds"), warm.get("seconds"), warm.get("again")]
    return " / ".join(f"{best / s:,.1f}" if best and s else "-" for s in ours)


if __name__ == "__main__":
    sys.exit(main())
