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
    "| target | starts from | particles | truth | mean log Ẑ | error | s.e. | sd | own s.e. "
    "| temperatures | gradients: mean | most | seconds | goal |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)


def measure(name: str, case: Case, seeds: int, folder: Path | None) -> str | None:
    """One row of the table, or None without data."""
    target = case.target(folder)
    if target is None:
        return None
    engine = registry.engine("smc", {"pilot": True, **case.settings})
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
    parts = [("2 s.e.", abs(error) <= 2 * float(np.hypot(standard, case.known_to)))]
    if case.goal is not None:
        parts.append((f"≤ {case.goal:g}", abs(error) <= case.goal))
    parts.append(("≤ 5e6", max(gradients) <= 5e6))
    goal = ", ".join(f"{what}: {'met' if met else 'missed'}" for what, met in parts)
    others = {k: v for k, v in case.settings.items() if k != "reference"}
    start = ", ".join([case.start, *(f"{k}={v}" for k, v in others.items())])
    truth = f"{case.truth:g}" + (f" ± {case.known_to:g}" if case.known_to else "")
    return (
        f"| {name} | {start} | {case.particles:,} | {truth} | {mean:.4f} | {error:+.4f} | "
        f"{standard:.4f} | {sd:.4f} | {own_error:.4f} | {np.mean(temperatures):.0f} | "
        f"{int(np.mean(gradients)):,} | {max(gradients):,} | {np.median(seconds):.1f} | {goal} |"
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
        "seeds, one run of the engine `smc(pilot=True)` each, with the default settings unless "
        "the second column says otherwise: a pilot population finds temperatures, steps and "
        "numbers of moves and is thrown away, the evidence comes from fresh particles that "
        "change none of them, so that E[Ẑ] = Z. Gradients count all evaluations of the target, "
        "pilot and search for a mode included; seconds are medians over seeds on two shared "
        "cores, compilation left to the first. “s.e.” is sd/√seeds over seeds, “own s.e.” what "
        "the lineages of one run say. The error of the mean is to be within two standard errors "
        "(that of the truth, where it comes from a long run, added in squares), below the bound "
        "where one is given, with at most 5,000,000 gradients in every run.\n\n"
        f"{table}\n{remarks()}"
    )


def remarks() -> str:
    """What the table cannot say."""
    return (
        "\n- No Gaussian or Student-t reference knows of the funnel's neck (x₀ < −4, 9 % of the "
        "mass), and no particle gets there before the weights have been told: `funnel-t` shows "
        "the evidence that is lost. `funnel` starts from a mixture over scales, which has mass "
        "in the neck and in the mouth; the funnel's own law of x₀ is part of it.\n"
        "- Two standard errors from ten seeds are exceeded by an unbiased estimate in one row of "
        "thirteen. It happened: many_well with 2,048 particles and default settings gave −0.096 ± "
        "0.038 on these seeds, and −0.007 ± 0.033 on sixteen others; the row shows other settings "
        "of about the same cost.\n"
        "- `seeds` is sampled in non-centred coordinates, which change no evidence.\n"
        "- The truths of sonar, ionosphere, seeds and lgcp come from long SMC runs, "
        "known to the error stated.\n"
    )


if __name__ == "__main__":
    main()
