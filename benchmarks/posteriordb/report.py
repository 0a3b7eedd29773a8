"""The table of a benchmark, for a terminal and in Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.posteriordb.score import MEAN_BOUND, RHAT_BOUND

COLUMNS = (
    "posterior",
    "mean",
    "square",
    "R-hat",
    "ESS",
    "gradients",
    "import s",
    "first draw s",
    "total s",
    "second s",
    "",
)
LEGEND = (
    f"mean, square: max |mean − reference mean| / reference sd of parameters and of their "
    f"squares; within bounds: both below {MEAN_BOUND} and R-hat below {RHAT_BOUND}.",
    "R-hat and ESS (bulk): the worst over parameters and their squares. gradients: of all chains, "
    "warm-up included.",
    "Seconds count from the start of a fresh process: until everything is imported, until the "
    "first block of draws is there, until all draws are; second: the next fit in that process.",
)


# A warning's first sentence is what is wrong; the rest is advice.
_FULL_STOP = re.compile(r"\. (?=[A-Z])")


@dataclass(frozen=True)
class Row:
    """One posterior's outcome, as the worker wrote it, and whether it has reference draws."""

    name: str
    has_reference: bool
    outcome: dict[str, Any]

    @property
    def within(self) -> bool:
        return "error" not in self.outcome and not self.outcome["shortfalls"]

    def cells(self) -> list[str]:
        o = self.outcome
        if "error" in o:
            return [self.name, *["–"] * (len(COLUMNS) - 2), "failed"]
        s = o["score"]
        gap = ["–" if s[k] is None else f"{s[k][0]:.3f}" for k in ("mean", "square")]
        seconds = (o[f"{k}_seconds"] for k in ("import", "first_draw", "total", "second"))
        return [
            self.name,
            *gap,
            f"{s['rhat'][0]:.3f}",
            f"{s['ess'][0]:,.0f}",
            f"{sum(o['gradients'].values()):,}",
            *(f"{t:.2f}" for t in seconds),
            "ok" if self.within else "out",
        ]

    def reason(self) -> str:
        """Why it is out of bounds: the numbers, then what the engine said."""
        if "error" in self.outcome:
            return str(self.outcome["error"])
        said = list(self.outcome["shortfalls"])
        if self.outcome["divergences"]:
            said.append(f"{self.outcome['divergences']} divergences")
        said.append(
            f"ESS {self.outcome['score']['ess'][0]:,.0f} ({self.outcome['score']['ess'][1]})"
        )
        told = [f"note: {n}" for n in self.outcome["notes"]]
        told += [f"warning: {_FULL_STOP.split(w)[0]}" for w in self.outcome["warnings"]]
        return " / ".join(["; ".join(said), *told])


def line(cells: Sequence[str], width: int) -> str:
    """One row for a terminal."""
    sizes = (width, 6, 6, 6, 8, 12, 8, 12, 8, 8, 6)
    first, *rest = zip(cells, sizes, strict=True)
    return " ".join([first[0].ljust(first[1]), *(c.rjust(n) for c, n in rest)])


def tally(rows: Sequence[Row]) -> list[str]:
    """How many are within bounds, and why the others are not."""
    judged = [r for r in rows if r.has_reference]
    free = [r for r in rows if not r.has_reference]
    said = [f"{sum(r.within for r in judged)} of {len(judged)} with reference draws within bounds"]
    if free:
        within = sum(r.within for r in free)
        said.append(
            f"{within} of {len(free)} without reference draws with R-hat below {RHAT_BOUND}"
        )
    return [*said, *(f"out: {r.name}: {r.reason()}" for r in rows if not r.within)]


def markdown(title: str, head: Sequence[str], rows: Sequence[Row]) -> str:
    """The whole report as Markdown."""
    table = [COLUMNS, ["---"] * len(COLUMNS), *(r.cells() for r in rows)]
    lines = [f"# {title}", "", *(f"- {h}" for h in head), ""]
    lines += ["| " + " | ".join(cells) + " |" for cells in table]
    lines += ["", *(f"- {t}" for t in tally(rows)), "", *LEGEND, ""]
    return "\n".join(lines)
