"""The comparison as a table, with geometric means against the best peer of each posterior."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.posteriordb.verdict import TARGET, geometric_mean, seconds_to

PEERS = ("numpyro", "blackjax", "nutpie")
OURS = "planner"
LINEAR = ("earnings", "kidiq", "mesquite", "nes", "diamonds", "sblr", "kilpisjarvi", "arK")
HIERARCHICAL = ("eight_schools_centered", "radon", "irt", "gp_pois_regr", "garch", "hmm")
NEAR = 1.05
"""Where no peer passes the gate, one below this R-hat is shown, but not counted."""

Cell = dict[str, Any]

COLUMNS = (
    "posterior",
    "contender",
    "cache",
    f"s to {TARGET}",
    "fresh s",
    "second s",
    "ESS/s",
    "ESS",
    "gradients",
    "gap/sd",
    "z",
    "R-hat",
    "gate",
    "note",
)
WIDTHS = (34, 9, 5, 9, 8, 9, 10, 9, 11, 7, 6, 6, 5)
LEGEND = (
    f"s to {TARGET}: seconds from the start of a fresh process, imports and compilation included, "
    f"until the smallest bulk ESS over parameters and their squares reaches {TARGET} (drawing "
    "scaled from the ESS of the whole run; the rest is paid once).",
    "fresh s, second s: the first run in a fresh process, and the next one of the same model with "
    "another seed, nothing compiled or rewritten. ESS/s: ESS over second s. gradients: while "
    "drawing, all chains.",
    "gap/sd: max |mean − reference| / reference sd, squares included; z: the same in Monte Carlo "
    "standard errors of both. gate: R-hat < 1.01 and z within 3 standard errors (Šidák's bound for "
    "as many means). cache: cold is an empty folder for each cell, the same settings for all.",
)


def line(cells: Sequence[str]) -> str:
    """One row for a terminal."""
    pairs = zip(cells, WIDTHS, strict=False)
    return " ".join(
        [*(c[:n].ljust(n) if i < 3 else c.rjust(n) for i, (c, n) in enumerate(pairs)), *cells[13:]]
    )


def row(cell: Cell) -> list[str]:
    """The cells of the table's row."""
    name = cell["posterior"]
    short = name if len(name) <= WIDTHS[0] else name.split("-", 1)[1]
    start = [short, cell["contender"], cell["cache"]]
    if "error" in cell:
        return [*start, *["–"] * 9, "fail", cell["error"][:100]]
    return [
        *start,
        f"{time_to(cell):.2f}",
        f"{cell['fresh_seconds']:.2f}",
        f"{cell['second_seconds']:.3f}",
        f"{rate(cell):,.0f}",
        f"{cell['ess']:,.0f}",
        "–" if cell["gradients"] is None else f"{cell['gradients']:,}",
        "–" if cell["gap"] is None else f"{cell['gap']:.3f}",
        "–" if cell["z"] is None else f"{cell['z']:.1f}",
        f"{cell['rhat']:.3f}",
        "ok" if cell["passes"] else "out",
        " ".join(cell["note"].split())[:160],
    ]


def time_to(cell: Cell) -> float:
    """Seconds to the target size in a fresh process."""
    return seconds_to(TARGET, cell, cell["ess"])


def rate(cell: Cell) -> float:
    """Effective draws a second once compiled."""
    return float(cell["ess"] / max(cell["second_seconds"], 1e-9))


def summary(cells: Sequence[Cell], mode: str) -> list[str]:
    """Ratios to the best peer, posterior by posterior and in geometric mean."""
    done = [c for c in cells if "error" not in c]
    said = [f"Summary, {mode} cache: {OURS} against the best peer that passes the gate"]
    times: dict[str, float] = {}
    rates: dict[str, float] = {}
    for name in dict.fromkeys(c["posterior"] for c in cells):
        ours = next((c for c in done if (c["posterior"], c["contender"]) == (name, OURS)), None)
        peers = [c for c in done if c["posterior"] == name and c["contender"] in PEERS]
        passing = [c for c in peers if c["passes"]]
        sound = passing or [c for c in peers if c["rhat"] < NEAR]
        if ours is None or not sound:
            why = f"no peer below an R-hat of {NEAR}" if peers else "no peer finished"
            said.append(f"  {name}: not compared ({why if ours else 'no result'})")
            continue
        quick, fast = min(sound, key=time_to), max(sound, key=rate)
        time_ratio, rate_ratio = time_to(quick) / time_to(ours), rate(ours) / rate(fast)
        # A peer that misses the gate is no measure of speed, and neither are we.
        mark = "" if ours["passes"] else "  (ours is outside the gate: not counted)"
        mark += "" if passing else "  (no peer passes the gate: not counted)"
        said.append(
            f"  {name}: {time_ratio:.1f}x less time to {TARGET} than {quick['contender']}, "
            f"{rate_ratio:.1f}x the ESS/s of {fast['contender']}{mark}"
        )
        if ours["passes"] and passing:
            times[name], rates[name] = time_ratio, rate_ratio
    groups = {
        "all": lambda n: True,
        "Gaussian linear": lambda n: n.startswith(LINEAR),
        "hierarchical and other": lambda n: any(h in n for h in HIERARCHICAL),
    }
    for label, chosen in groups.items():
        t, r = ([v for n, v in x.items() if chosen(n)] for x in (times, rates))
        if t:
            said.append(
                f"  {label} ({len(t)}): time {geometric_mean(t):.1f}x (worst {min(t):.2f}x), "
                f"ESS/s {geometric_mean(r):.1f}x (worst {min(r):.2f}x)"
            )
    for contender in dict.fromkeys(c["contender"] for c in cells):
        mine = [c for c in cells if c["contender"] == contender]
        sound = [c for c in mine if c.get("passes")]
        if sound:
            said.append(
                f"  {contender}: {len(sound)} of {len(mine)} pass the gate; geometric mean of "
                f"s to {TARGET} {geometric_mean([time_to(c) for c in sound]):.2f}, of ESS/s "
                f"{geometric_mean([rate(c) for c in sound]):,.0f}"
            )
    return said


def write(path: Path, head: Sequence[str], cells: Sequence[Cell], modes: Sequence[str]) -> None:
    """The whole comparison as Markdown."""
    lines = ["# posteriordb: the planner beside engines and peers", "", *(f"- {h}" for h in head)]
    for mode in modes:
        found = summary([c for c in cells if c["cache"] == mode], mode)
        lines += ["", f"## {found[0]}", "", *(f"- {t.strip()}" for t in found[1:])]
    table = [COLUMNS, ["---"] * len(COLUMNS), *(row(c) for c in cells)]
    lines += ["", "## Every cell", ""]
    lines += ["| " + " | ".join(t.replace("|", "\\|") for t in cells_) + " |" for cells_ in table]
    path.write_text("\n".join([*lines, "", *LEGEND, ""]))
