"""``python -m benchmarks.first_call``: the first and the second fit of eight schools."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.first_call.contenders import CONTENDERS
from benchmarks.machine import header, installed

PACKAGES = ("ppcore", "jax", "jaxlib", "numpyro", "blackjax", "nutpie", "pymc", "numba", "numpy")
COLUMNS = (
    ("contender", 20),
    ("settings", 24),
    ("cache", 5),
    ("import s", 9),
    ("first s", 8),
    ("second s", 9),
    ("draws", 7),
    ("ESS", 7),
    ("R-hat", 6),
    ("ESS/s first", 12),
    ("ESS/s second", 13),
)
LEGEND = (
    "Medians of seconds. import: from the start of a process until libraries are imported; first: "
    "from that start to the draws of the first fit; second: the next fit alone, another seed.",
    "ESS: the smallest bulk size over parameters and their squares; R-hat: the largest.",
    "cache: of compiled programs, on disk. cold: none, or an empty folder; warm: filled by a "
    "process just before.",
)


def main() -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.first_call", description=__doc__)
    parser.add_argument("--repetitions", type=int, default=3, help="fresh processes for each line")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", choices=("cold", "warm", "both"), default="both")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="parts of names")
    options = parser.parse_args()
    names = [n for n in CONTENDERS if not options.only or any(p in n for p in options.only)]
    present = [n for n in names if all(installed(p) for p in CONTENDERS[n].needs)]
    settings = {"repetitions": options.repetitions, "first seed": options.seed}
    print(*header(PACKAGES, settings), *LEGEND, sep="\n")
    for name in names:
        if name not in present:
            print(f"{name}: not installed ({', '.join(CONTENDERS[name].needs)})")
    print("", _line([c for c, _ in COLUMNS]), sep="\n", flush=True)
    modes = ("cold", "warm") if options.cache == "both" else (options.cache,)
    for mode in modes:
        for name, outcomes in _repeat(present, mode, options).items():
            print(_line(_cells(name, mode, outcomes)), flush=True)
    return 0


def _repeat(names: list[str], mode: str, options: argparse.Namespace) -> dict[str, list[dict]]:
    """All contenders in turn, again and again, so that a slow minute falls on each alike."""
    outcomes: dict[str, list[dict]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as root:
        for turn in range(options.repetitions):
            for name in names:
                place = (
                    Path(root) / name.replace(" ", "_") / ("warm" if mode == "warm" else str(turn))
                )
                if mode == "warm" and turn == 0:
                    _run(name, mode, place, options.seed)
                outcomes[name].append(_run(name, mode, place, options.seed + 2 * turn))
    return outcomes


def _run(name: str, mode: str, cache: Path, seed: int) -> dict:
    """One fresh process; its outcome, or ``error``."""
    cache.mkdir(parents=True, exist_ok=True)
    out = cache / "outcome.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.first_call.worker"]
    command += [name, repr(time.time()), str(seed), str(out)]
    done = subprocess.run(
        command, env=_environment(name, mode, cache), capture_output=True, text=True
    )
    if not out.exists():
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def _environment(name: str, mode: str, cache: Path) -> dict[str, str]:
    """Every library's disk cache in ``cache``; JAX's, which is off by default, only if warm."""
    root = str(Path(__file__).parents[2])
    own = {
        "PYTHONPATH": os.pathsep.join([root, *(p for p in sys.path if p)]),
        "PPCORE_CACHE_DIR": str(cache),
        "PYTENSOR_FLAGS": f"base_compiledir={cache}",
        "NUMBA_CACHE_DIR": str(cache),
    }
    if mode == "warm" and not name.startswith("ppcore"):
        own["JAX_COMPILATION_CACHE_DIR"] = str(cache)
        own["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    return dict(os.environ) | own | CONTENDERS[name].environment


def _cells(name: str, mode: str, outcomes: list[dict]) -> list[str]:
    errors = [o["error"] for o in outcomes if "error" in o]
    if errors:
        return [name, "failed", mode, errors[0]]
    middle = {key: median(o[key] for o in outcomes) for key in outcomes[0]}
    return [
        name,
        CONTENDERS[name].settings,
        mode,
        *(f"{middle[k]:.2f}" for k in ("import", "first", "second")),
        f"{middle['draws']:,.0f}",
        f"{middle['ess']:,.0f}",
        f"{middle['rhat']:.3f}",
        f"{middle['ess'] / middle['first']:,.0f}",
        f"{middle['ess'] / middle['second']:,.0f}",
    ]


def _line(cells: list[str]) -> str:
    pairs = zip(cells, COLUMNS, strict=False)
    return " ".join(c.ljust(n) if i < 2 else c.rjust(n) for i, (c, (_, n)) in enumerate(pairs))


if __name__ == "__main__":
    sys.exit(main())
