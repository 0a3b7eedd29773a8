"""The table: a row for each engine on each target, over its seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.samplers.plan import Row
from benchmarks.samplers.problems import Problem

HEAD = (
    "| engine | draws | log Ẑ − log Z: mean ± sd | mean abs. | ESS | Sinkhorn (floor) | modes "
    "| mass error | another mean | gradients | seconds | compiling | seeds | goal |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
)
DASH = "—"
MOST_GRADIENTS = {"brownian": 1e7, "sonar": 1e7, "ionosphere": 1e7}
"""Where a goal is set for the number of gradients as well."""


def heading(name: str, problem: Problem) -> str:
    """What is known of a target, in one line."""
    if problem.log_z is None:
        truth = "log Z unknown (log Ẑ is shown)"
    else:
        known = f" ± {problem.known_to:g}" if problem.known_to else ""
        truth = f"log Z = {problem.log_z:g}{known}"
    also = "" if problem.also is None else f"; {problem.also.name} = {problem.also.value:g}"
    return f"### {name}\n\n{truth}{also}; reference {problem.start}.\n"


def cells(row: Row, problem: Problem, done: Sequence[dict[str, Any]]) -> list[str]:
    """One row of the table from the seeds that are done."""
    failed = [one for one in done[-1:] if "n" not in one]
    good = [one for one in done if "n" in one]
    if not good:
        said = next((one.get("absent") or one["error"] for one in failed), "not run")
        return [row.label, f"{row.draws:,}", said.replace("|", "/"), *[""] * 11]
    gradients = _mean(good, "gradients")
    cell = [
        row.label if row.problem == row.target else f"{row.label} ({row.problem})",
        f"{row.draws:,}" if row.chains == 1 else f"{row.chains} × {row.draws:,}",
        *_evidence(problem, good),
        f"{_mean(good, 'ess'):.3f}",
        _pair(good),
        f"{_mean(good, 'modes'):g}/{good[0]['of_modes']}" if "modes" in good[0] else DASH,
        f"{_mean(good, 'mass_error'):.3f}" if "mass_error" in good[0] else DASH,
        f"{_mean(good, 'also'):.4g}" if "also" in good[0] else DASH,
        f"{gradients:.2e}",
        f"{np.median([one['seconds'] - one['compile_seconds'] for one in good]):.1f}",
        f"{max(one['compile_seconds'] for one in good):.1f}",
        str(len(good)) + (f" ({failed[0].get('error', 'absent')})" if failed else ""),
    ]
    return [*cell, ", ".join(goals(row, problem, good))]


def goals(row: Row, problem: Problem, good: Sequence[dict[str, Any]]) -> list[str]:
    """Which of the goals that the target sets are met, in words."""
    found = []
    if problem.goal is not None and problem.log_z is not None and "log_z" in good[0]:
        error = abs(_mean(good, "log_z") - problem.log_z)
        met = error <= problem.goal + problem.known_to
        found.append(f"≤ {problem.goal:g} {_said(met)}")
    if row.target in ("gmm40-2", "gmm40-50", "mos"):
        covered = min(one["modes"] for one in good) == good[0]["of_modes"]
        found.append(f"all modes {_said(covered)}")
    if row.target == "gmm40-2":
        found.append(f"ESS ≥ 0.9 {_said(_mean(good, 'ess') >= 0.9)}")
    most = MOST_GRADIENTS.get(row.target)
    if most is not None:
        found.append(f"≤ {most:.0e} {_said(max(one['gradients'] for one in good) <= most)}")
    return found


def _said(met: bool) -> str:
    return "met" if met else "missed"


def _mean(good: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([one[name] for one in good]))


def _evidence(problem: Problem, good: Sequence[dict[str, Any]]) -> tuple[str, str]:
    if "log_z" not in good[0]:
        return DASH, DASH
    found = np.array([one["log_z"] for one in good])
    spread = f" ± {found.std(ddof=1):.4f}" if len(found) > 1 else ""
    if problem.log_z is None:
        return f"({found.mean():.4f}{spread})", DASH
    errors = found - problem.log_z
    return f"{errors.mean():+.4f}{spread}", f"{np.abs(errors).mean():.4f}"


def _pair(good: Sequence[dict[str, Any]]) -> str:
    if "sinkhorn" not in good[0]:
        return DASH
    return f"{_mean(good, 'sinkhorn'):.3f} ({_mean(good, 'floor'):.3f})"


def line(cell: Sequence[str]) -> str:
    """One row as Markdown."""
    return "| " + " | ".join(cell) + " |"


LEGEND = """\
Each row is {seeds} runs with seeds 0, 1, … in a fresh process with an empty compilation cache.

- **log Ẑ − log Z**: mean and standard deviation over runs; then the mean of absolute values. Where
  log Z is not known, log Ẑ itself stands in parentheses.
- **ESS**: effective over actual draws, 1/(1 + N e²) with e the run's own standard error of log Ẑ:
  for independent weighted draws the usual 1/(N Σ W²), and after resampling what the lineages have
  lost, which equal weights hide; where all particles are weighed once, 1/(N Σ W²) before they are
  resampled. For chains, the least bulk ESS over the number of draws.
- **Sinkhorn**: transport cost with Euclidean distances between 1,024 draws and 1,024 exact draws,
  regularised by 1 % of the mean distance; in parentheses the same between two exact samples.
- **modes**: how many have at least a tenth of their true mass; **mass error**: half the sum of
  absolute errors of their masses, of their sum. For many_well, the two wells of each of 16 pairs.
- **another mean**: of what the line above the table names, whose true value it gives.
- **gradients**: evaluations of the target, with gradient or without; training, pilots and the
  search for modes included.
- **seconds**: median over runs, without compiling; **compiling**: tracing and compiling, most
  over runs (the first run has nearly all of it).
- **goal**: for evidence |mean error| within the bound, plus the standard error of the truth.
"""
