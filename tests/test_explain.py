"""explain() and the listing of rewrites."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest

import ppcore as pp
from ppcore import dist, registry
from ppcore.cli import main
from ppcore.errors import SettingsError
from ppcore.hooks import RewriteSpec
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten


@pp.model
def line(x):
    slope = pp.sample("slope", dist.Normal(0, 1))
    scale = pp.sample("scale", dist.HalfNormal(1))
    pp.sample("y", dist.Normal(slope * x, scale))


def posterior() -> Any:
    return line(np.arange(5.0)).observe(y=np.arange(5.0) * 0.4 + [0.1, -0.2, 0.1, 0.3, -0.1])


def test_explain_tells_what_every_rewrite_did() -> None:
    found = posterior().explain()
    names = [r.name for r in found.plan.rewrites]
    assert names == list(registry.rewrites())
    assert {r.name for r in found.plan.rewrites if r.applied} >= {"collapse"}
    assert found.cost_after.coordinates < found.cost_before.coordinates
    text = str(found)
    assert "as written: 2 coordinates" in text and "plan: quadrature" in text
    assert found._repr_html_().count("<figure>") == 2


def test_explain_and_infer_choose_alike() -> None:
    model = posterior()
    assert model.explain().plan.choice == model.infer(seed=0, progress="off").plan.choice


def test_rewrites_are_switched_off_by_name() -> None:
    found = posterior().explain(without=["collapse", "sufficient_statistics"])
    assert not {"collapse", "sufficient_statistics"} & {r.name for r in found.plan.rewrites}
    assert found.cost_after.coordinates == 2
    assert posterior().explain(rewrites=False).plan.rewrites == ()


def test_a_misspelt_rewrite_is_an_error() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'collapse'"):
        posterior().explain(without=["colapse"])


@dataclass(frozen=True)
class Idle:
    """A stranger's rewrite that finds nothing to do."""

    name: ClassVar[str] = "idle"
    summary: ClassVar[str] = "does nothing"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        return NotApplicable(f"{len(problem.latents)} sites are fine as they are")


def test_anybody_can_register_a_rewrite() -> None:
    registry.register(RewriteSpec("idle", Idle, order=5), replace_existing=True)
    try:
        first = posterior().explain().plan.rewrites[0]
        assert (first.name, first.applied) == ("idle", False)
        assert first.line == "2 sites are fine as they are"
    finally:
        registry._registered.pop(("rewrite", "idle"))


def test_the_listing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrites"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(registry.rewrites())
    assert main(["rewrites", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["contract"] == "Equivalent"
