"""Latent Gaussian paths integrated out by recursion: the joint density is the model's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rewritten import rewritten, same_joint

import ppcore as pp
from ppcore import dist
from ppcore.rewrite.markov_recursion import MarkovRecursion
from ppcore.rewrite.protocol import NotApplicable, Problem

Y = np.random.default_rng(0).normal(size=8).cumsum()


@pp.model
def autoregression(length):
    """An AR(1) path seen with noise."""
    phi = pp.sample("phi", dist.Uniform(-1, 1))
    tau = pp.sample("tau", dist.HalfNormal(1))
    sigma = pp.sample("sigma", dist.HalfNormal(1))

    def step(z, _):
        z = pp.sample("z", dist.Normal(phi * z, tau))
        pp.sample("y", dist.Normal(z, sigma))
        return z, z

    _, path = pp.scan(step, np.zeros(()), length=length)
    pp.deterministic("last", path[-1])


@pp.model
def trend(x):
    """A level and a slope, a regression on x with a random coefficient, two observations a step."""
    tau = pp.sample("tau", dist.HalfNormal(1).expand([2]))
    beta = pp.sample("beta", dist.Normal(0, 1))
    start = pp.sample("start", dist.Normal(0, 1))

    def step(state, x):
        level, slope = state
        slope = pp.sample("slope", dist.Normal(slope, tau[0]))
        level = pp.sample("level", dist.Normal(level + slope + beta * x, tau[1]))
        pp.sample("y", dist.Normal(level, 0.5))
        pp.sample("w", dist.Normal(np.stack([level, slope]), 2.0).to_event(1))
        return (level, slope), None

    pp.scan(step, (start, np.zeros(())), x)


def models() -> dict[str, Any]:
    rng = np.random.default_rng(1)
    seen = {"y": Y, "w": rng.normal(size=(8, 2))}
    return {
        "autoregression": autoregression(8).observe(y=Y),
        "trend": trend(rng.normal(size=8)).observe(seen),
    }


@pytest.mark.parametrize("name", ["autoregression", "trend"])
def test_the_path_leaves_and_returns_by_its_law(name: str) -> None:
    before, after, found = rewritten(models()[name], MarkovRecursion())
    assert found.log[0][1], found.log
    assert after.dim == {"autoregression": 3, "trend": 4}[name]
    assert same_joint(before, after, found.recoveries[0]) < 1e-8


def test_what_is_no_such_chain_is_left_and_said_why() -> None:
    @pp.model
    def counts(length):
        tau = pp.sample("tau", dist.HalfNormal(1))

        def step(z, _):
            z = pp.sample("z", dist.Normal(z, tau))
            pp.sample("n", dist.Poisson(np.exp(z)))
            return z, None

        pp.scan(step, np.zeros(()), length=length)

    @pp.model
    def outside(length):
        tau = pp.sample("tau", dist.HalfNormal(1))

        def step(z, _):
            z = pp.sample("z", dist.Normal(z, tau))
            return z, z

        _, path = pp.scan(step, np.zeros(()), length=length)
        pp.sample("y", dist.Normal(path, 1.0))

    for model, why in (
        (counts(3).observe(n=np.ones(3, int)), "Poisson"),
        (outside(8).observe(y=Y), "outside"),
    ):
        made = MarkovRecursion().apply(Problem.of(model.target()))
        assert isinstance(made, NotApplicable) and why in made.reason


def test_the_planner_uses_it() -> None:
    plan = autoregression(8).observe(y=Y).explain().plan
    assert "markov_recursion" in [r.name for r in plan.rewrites if r.applied]
    assert plan.choice in ("quadrature", "importance")
