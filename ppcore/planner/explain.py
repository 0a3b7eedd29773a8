"""What the planner would do with a model, as an object to print or show in a notebook."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore import precision, registry
from ppcore.diagram import Diagram
from ppcore.planner.choose import choose
from ppcore.planner.plan import Plan
from ppcore.planner.rewriting import SPLIT, Prepared, prepare
from ppcore.run import cache
from ppcore.run.keys import Keys


@dataclass(frozen=True, eq=False)
class Cost:
    """What one evaluation of the log density works on.

    Attributes
    ----------
    coordinates : int
    boxes : int
        Of the diagram, those inside scans once.
    numbers : int
        Elements of all wires: data, sites and what is computed from them, scans in full.
    """

    coordinates: int
    boxes: int
    numbers: int

    def __str__(self) -> str:
        return f"{self.coordinates} coordinates, {self.boxes} boxes, {self.numbers:,} numbers"


@dataclass(frozen=True, eq=False)
class Explanation:
    """A model before and after its rewrites, and the plan.

    Attributes
    ----------
    before, after : Diagram
        Conditioned on the evidence.
    cost_before, cost_after : Cost
    plan : Plan
        What ``infer()`` with seed 0 would choose; found by pilots, without drawing.
    """

    before: Diagram
    after: Diagram
    cost_before: Cost
    cost_after: Cost
    plan: Plan

    def __str__(self) -> str:
        lines = [f"as written: {self.cost_before}"]
        for rewrite in self.plan.rewrites:
            lines.append(f"  {'+' if rewrite.applied else '-'} {rewrite.name}: {rewrite.line}")
        lines.append(f"rewritten:  {self.cost_after}")
        lines += [f"passed over: {why}" for why in self.plan.passed_over]
        lines.append(f"plan: {self.plan.choice}: {self.plan.reason}")
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from ppcore.diagram.draw import draw_svg

        drawn = "".join(
            f"<figure>{draw_svg(diagram, 'sites')}<figcaption>{title}</figcaption></figure>"
            for title, diagram in (("as written", self.before), ("rewritten", self.after))
        )
        return f"<div><pre>{html.escape(str(self))}</pre>{drawn}</div>"


def explain(model: Any, rewrites: bool = True, without: Sequence[str] = ()) -> Explanation:
    """What :func:`ppcore.fit.infer` without an engine would do with ``model``.

    Raises :class:`~ppcore.errors.SettingsError` for a name in ``without`` that is no rewrite, and
    :class:`~ppcore.errors.StartError` where pilots find no finite log density.
    """
    everything = (*registry.catalog().rewrites, SPLIT)
    registry.rewrites(without, more=(SPLIT,))
    cache.enable()
    with precision.scope("float64"):
        prepared = prepare(model, tuple(without) if rewrites else everything)
        plan = choose(prepared, np.random.default_rng([0, 1]), Keys(0).warmup).plan
    before, after = prepared.origin.diagram, prepared.target.diagram
    return Explanation(before, after, *_costs(prepared), plan)


def _costs(prepared: Prepared) -> tuple[Cost, Cost]:
    pair = (prepared.origin, prepared.target)
    return tuple(Cost(t.dim, *_size(t.diagram)) for t in pair)  # type: ignore[return-value]


def _size(diagram: Diagram) -> tuple[int, int]:
    """Boxes, and elements of all wires."""
    boxes, numbers = 0, sum(space.size for space in diagram.dom)
    for node in diagram.nodes:
        box = node.box
        boxes += 1
        numbers += sum(space.size for space in box.cod)
        if box.body is not None:
            inner, elements = _size(box.body)
            boxes += inner
            numbers += elements * (box.spec.length if box.op == "scan" else 1)
    return boxes, numbers
