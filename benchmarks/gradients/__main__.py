"""``python -m benchmarks.gradients``: gradients to b² < 0.01, beside the published numbers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gradients.measure import GOAL, Outcome, measure
from benchmarks.machine import header
from benchmarks.targets import brownian, credit, curved, gaussian
from ppcore import registry
from ppcore.errors import did_you_mean

ENGINES = ("nuts", "chees", "meads", "mams", "ensemble", "late_adjusted", "mclmc")
TARGETS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "gaussian": gaussian.gaussian,
    "ill_gaussian": gaussian.ill_gaussian,
    "banana": curved.banana,
    "rosenbrock36": curved.rosenbrock36,
    "brownian": lambda: (brownian.brownian(), brownian.squares()),
    "credit": lambda: (credit.credit(), credit.squares()),
}
# NUTS and adjusted microcanonical, tuning excluded: Robnik, Cohn-Gordon & Seljak 2025,
# arXiv:2503.01707.
PUBLISHED = {
    "gaussian": (19_652, 3_249),
    "banana": (95_519, 14_078),
    "rosenbrock36": (161_359, 94_184),
    "brownian": (29_816, 13_528),
    "credit": (88_975, 55_748),
}
LEGEND = (
    f"Gradients of one chain until the worst coordinate's b² < {GOAL:g}, median over the chains.",
    "b² = (mean of x² so far - E[x²])² / Var[x²]. Cells: sampling + tuning = total; tuning is the",
    "warm-up's gradients of all chains, divided by their number. `> n`: not reached with n.",
    "Published (tuning excluded): arXiv:2503.01707. Targets of one name need not be identical:",
    "`gaussian` here has a condition number of 100, and `credit` is a synthetic data set of the",
    "shape of German credit. mclmc is biased: it may never reach the goal.",
)
PACKAGES = ("ppcore", "jax", "jaxlib", "numpy")


def main() -> int:
    options = _options()
    settings = {"chains": options.chains, "seed": options.seed, "most": f"{options.most:g}"}
    head = header(PACKAGES, settings)
    print("\n".join(head), *LEGEND, "", sep="\n", flush=True)
    found: dict[tuple[str, str], Outcome] = {}
    for target in options.targets:
        problem, truth = TARGETS[target]()
        for name in options.engines:
            engine = registry.engine(name, {})
            outcome = measure(engine, problem, truth, options.chains, options.seed, options.most)
            found[target, name] = outcome
            print(
                f"{target:14} {name:14} {cell(outcome, options.most):>28}  "
                f"{outcome.draws} draws, b² {outcome.left:.3g}, {outcome.seconds:.1f} s",
                flush=True,
            )
    text = table(options.targets, options.engines, found, options.most)
    print("", text, sep="\n")
    if options.markdown:
        lines = ["# Gradients to b² < 0.01", "", *(f"- {line}" for line in head), ""]
        options.markdown.write_text("\n".join([*lines, *LEGEND, "", text, ""]))
    return 0


def cell(outcome: Outcome, most: float) -> str:
    """``sampling + tuning = total`` of an outcome.

    >>> cell(Outcome(1000.0, 200.0, 50, 0.009, 1.0), 1e6)
    '1,000 + 200 = 1,200'
    """
    if outcome.sampling is None or outcome.total is None:
        return f"> {most:,.0f}"
    return f"{outcome.sampling:,.0f} + {outcome.tuning:,.0f} = {outcome.total:,.0f}"


def table(
    targets: list[str], engines: list[str], found: dict[tuple[str, str], Outcome], most: float
) -> str:
    """A Markdown table with a row for each target."""
    names = ["target", *engines, "published NUTS", "published MAMS"]
    rows = [names, ["---"] * len(names)]
    for target in targets:
        published = [f"{n:,}" for n in PUBLISHED.get(target, ())] or ["-", "-"]
        cells = [cell(found[target, e], most) for e in engines]
        rows.append([target, *cells, *published])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.gradients", description=__doc__)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), metavar="NAME")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), metavar="NAME")
    parser.add_argument("--chains", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--most", type=float, default=3e5, help="gradients of a chain to stop at")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there too")
    options = parser.parse_args()
    for name in options.targets:
        if name not in TARGETS:
            raise SystemExit(f"No target is called {name!r}. {did_you_mean(name, TARGETS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
