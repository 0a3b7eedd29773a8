"""The kill matrix as Markdown and HTML."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from ppcore.testing.checks import CHECKS
from ppcore.testing.zoo import animals
from ppcore.testing.zoo.matrix import (
    Sighting,
    columns,
    describe_claim,
    headline,
    verdicts,
    zoo_plan,
)

MARKS = {"kill": "✗", "pass": "·", "": ""}
INTRODUCTION = (
    "Every row is an engine, stage, map or rewrite with the contract it claims; every column a "
    "check that the contract calls for. ✗ rejects, · passes, blank does not apply or was not run "
    "(checks of the protocol are run on controls and on animals that break the protocol). One "
    "error budget of {budget:g} covers the whole run: {tests} statistical tests at {alpha:.1e} "
    "each, {replicates} joint draws per model, seed {seed}. Written by `ppcore check --zoo`."
)


def write(found: Mapping[str, Sighting], folder: Path) -> tuple[Path, Path]:
    """``kill_matrix.md`` and ``kill_matrix.html`` in ``folder``; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "kill_matrix.md", folder / "kill_matrix.html"
    paths[0].write_text(markdown(found), encoding="utf-8")
    paths[1].write_text(page(found), encoding="utf-8")
    return paths


def introduction() -> str:
    """What the table shows, with the error budget of its run."""
    plan = zoo_plan()
    tests = plan.tests or 1
    return INTRODUCTION.format(
        budget=plan.budget,
        tests=tests,
        alpha=plan.budget / tests,
        replicates=plan.replicates,
        seed=plan.seed,
    )


def groups(found: Mapping[str, Sighting]) -> dict[str, list[str]]:
    """Titles of the three tables and the animals in each."""
    cage = {name: animals()[name] for name in found}
    return {
        "Mutants declared detectable": [
            n for n, a in cage.items() if not a.control and a.detectable
        ],
        "Mutants declared undetectable": [
            n for n, a in cage.items() if not a.control and not a.detectable
        ],
        "Controls": [n for n, a in cage.items() if a.control],
    }


def markdown(found: Mapping[str, Sighting]) -> str:
    """The whole page as Markdown."""
    checks, said = columns(found), verdicts(found)
    lines = ["# Kill matrix", "", headline(found), "", introduction(), ""]
    for title, names in groups(found).items():
        used = [c for c in checks if any(found[n].cell(c) for n in names)]
        lines += [f"## {title}", "", _row(["animal", "what it is", "claims", *used, "verdict"])]
        lines.append(_row(["---"] * 3 + [":-:"] * len(used) + ["---"]))
        for n in names:
            animal = animals()[n]
            note = animal.note if animal.detectable else f"{animal.note}: {animal.why_not}"
            marks = [MARKS[found[n].cell(c)] for c in used]
            lines.append(_row([f"`{n}`", note, describe_claim(animal), *marks, said[n]]))
        lines.append("")
    lines += ["## Checks", ""]
    lines += [f"- `{c.name}`: {c.law}" for c in CHECKS if c.name in checks]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem;
  color: #1d2330; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 2rem }
th, td { padding: .2rem .5rem; border-bottom: 1px solid #e3e6ec; text-align: left;
  vertical-align: top }
thead th { position: sticky; top: 0; background: #fff }
th.check { writing-mode: vertical-rl; transform: rotate(180deg); font-weight: 500;
  white-space: nowrap; padding: .5rem .1rem }
td.mark { text-align: center; width: 1.6rem }
td.kill { background: #c62f3c; color: #fff } td.pass { background: #e4f2e7; color: #2f7d46 }
code { font-size: .92em } .claims { color: #5b6372 }
"""


def page(found: Mapping[str, Sighting]) -> str:
    """The whole page as HTML, standing alone."""
    checks, said = columns(found), verdicts(found)
    laws = {c.name: c.law for c in CHECKS}
    out = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Kill matrix</title>",
        f"<style>{STYLE}</style><h1>Kill matrix</h1>",
        f"<p><strong>{html.escape(headline(found))}</strong></p>",
        f"<p>{html.escape(introduction()).replace('`', '')}</p>",
    ]
    for title, names in groups(found).items():
        used = [c for c in checks if any(found[n].cell(c) for n in names)]
        heads = "".join(f"<th class='check' title='{html.escape(laws[c])}'>{c}</th>" for c in used)
        out.append(
            f"<h2>{title}</h2><table><thead><tr><th>animal</th><th>what it is</th>"
            f"<th>claims</th>{heads}<th>verdict</th></tr></thead><tbody>"
        )
        out += [_html_row(found[n], used, said[n]) for n in names]
        out.append("</tbody></table>")
    return "\n".join(out) + "</html>\n"


def _html_row(sighting: Sighting, used: list[str], verdict: str) -> str:
    animal = animals()[sighting.name]
    cells = []
    for check in used:
        mark = sighting.cell(check)
        why = next((r.message for r in sighting.results if r.check == check and not r.ok), "")
        cells.append(
            f"<td class='mark {mark}' title='{html.escape(why, quote=True)}'>{MARKS[mark]}</td>"
        )
    note = animal.note if animal.detectable else f"{animal.note}: {animal.why_not}"
    return (
        f"<tr><td><code>{sighting.name}</code></td><td>{html.escape(note)}</td>"
        f"<td class='claims'>{html.escape(describe_claim(animal))}</td>{''.join(cells)}"
        f"<td>{verdict}</td></tr>"
    )
