"""Run the table; see the package's docstring."""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path

import numpy as np

from benchmarks.evidence.cases import CASES, Case
from ppcore import registry
from ppcore.fit import infer
from ppcore.report import SamplingWarning

HEAD = (
    "| target | truth | mean log Ẑ | sd | s.e. | error | own s.e. | gradients | temperatures "
    "| seconds | goal |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def measure(name: str, case: Case, seeds: int, folder: Path | None) -> str | None:
    """One row of the table, or None without data."""
    target = case.target(folder)
    if target is None:
        return None
    engine = registry.engine("smc", dict(case.settings))
    found, own, gradients, temperatures, seconds = [], [], [], [], []
    for seed in range(seeds):
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SamplingWarning)
            fit = infer(target, engine, draws=case.particles, chains=1, seed=seed, progress="off")
        seconds.append(time.perf_counter() - began)
        found.append(fit.log_evidence.value)
        own.append(fit.log_evidence.error or np.nan)
        gradients.append(sum(fit.attrs["gradients"].values()))
        temperatures.append(len(fit.attrs["weights"]["steps"][0]["temperature"]))
        print(
            f"  {name} seed {seed}: {found[-1]:.4f} ({found[-1] - case.truth:+.4f}), own s.e. "
            f"{own[-1]:.3f}, {gradients[-1]:,} gradients, {temperatures[-1]} temperatures, "
            f"{seconds[-1]:.1f} s",
            flush=True,
        )
    mean, sd = float(np.mean(found)), float(np.std(found, ddof=1)) if seeds > 1 else np.nan
    known = [e for e in own if np.isfinite(e)]
    own_error = float(np.mean(known)) if known else np.nan
    error, standard = mean - case.truth, sd / seeds**0.5
    met = abs(error) <= 2 * standard + 1e-9
    if case.goal is not None:
        met = abs(error) <= case.goal
    met = met and max(gradients) <= 5e6
    goal = "within 2 s.e." if case.goal is None else f"≤ {case.goal:g}"
    return (
        f"| {name} | {case.truth:g} | {mean:.4f} | {sd:.4f} | {standard:.4f} | {error:+.4f} | "
        f"{own_error:.4f} | {int(np.mean(gradients)):,} | {np.mean(temperatures):.0f} | "
        f"{np.median(seconds):.1f} | {goal}: {'met' if met else 'missed'} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence")
    parser.add_argument("--targets", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows, absent = [], []
    for name in arguments.targets:
        row = measure(name, CASES[name], arguments.seeds, arguments.data)
        if row is None:
            absent.append(name)
            continue
        rows.append(row)
        print(row, flush=True)
    text = "\n".join([HEAD, *rows])
    print(f"\n{text}")
    if absent:
        print(f"\nWithout data (--data), and so left out: {', '.join(absent)}.")
    if arguments.out:
        arguments.out.write_text(page(text, arguments.seeds))


def page(table: str, seeds: int) -> str:
    """The table with what it means."""
    return (
        "# Log evidence by plain tempered SMC\n\n"
        f"`python -m benchmarks.evidence --data FOLDER --out benchmarks/evidence.md`: {seeds} "
        "seeds, one run of the engine `smc` each. Gradients count all evaluations of the target, "
        "tuning included; seconds are medians over seeds, compilation left to the first. “sd” is "
        "over seeds, “own s.e.” what the lineages of one run say. The goal is about the mean over "
        f"seeds, with at most 5,000,000 gradients a run.\n\n{table}\n"
    )


if __name__ == "__main__":
    main()
