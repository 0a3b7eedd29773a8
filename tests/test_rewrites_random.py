"""On random linear and hierarchical models a rewritten posterior is the one of the model."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from rewritten import rewritten, same_density, same_joint, same_posterior

import ppcore as pp
from ppcore import dist, precision
from ppcore.planner.recovered import Recovered
from ppcore.planner.rewriting import prepare
from ppcore.rewrite.collapse import Collapse
from ppcore.rewrite.sufficient_statistics import SufficientStatistics

ROWS, COLUMNS, GROUPS = 30, 3, 6

# What a random model is made of; few structures, so that few programs are compiled.
STRUCTURES = (
    {"effects": "centred", "scale": "random", "intercept": "normal", "nested": False},
    {"effects": "non-centred", "scale": "known", "intercept": "flat", "nested": False},
    {"effects": "none", "scale": "random", "intercept": "heavy", "nested": False},
    {"effects": "centred", "scale": "random", "intercept": "flat", "nested": True},
)


@pp.model
def linear(x, group, error, structure):
    intercept = {
        "normal": dist.Normal(1.0, 10.0),
        "flat": dist.ImproperUniform(dist.constraints.real, (), ()),
        "heavy": dist.StudentT(3, 0, 5),
    }[structure["intercept"]]
    mean = pp.sample("intercept", intercept)
    beta = pp.sample("beta", dist.Normal(0, 2).expand([COLUMNS]))
    location = mean + x @ beta
    tau = pp.sample("tau", dist.HalfNormal(2))
    if structure["effects"] == "centred":
        with pp.plate("group", GROUPS):
            location = location + pp.sample("effect", dist.Normal(0, tau))[group]
    elif structure["effects"] == "non-centred":
        with pp.plate("group", GROUPS):
            location = location + (tau * pp.sample("z", dist.Normal(0, 1)))[group]
    scale = error
    if structure["scale"] == "random":
        scale = error * pp.sample("sigma", dist.Gamma(2, 1))
    if structure["nested"]:
        pp.sample("extra", dist.Normal(beta, tau).to_event(1))
    pp.sample("y", dist.Normal(location, scale))


@st.composite
def posteriors(draw: Any) -> Any:
    """A model with data: correlated columns of any unit, unbalanced groups, some of them empty."""
    structure = draw(st.sampled_from(STRUCTURES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    units = 10.0 ** np.array(draw(st.lists(st.integers(-2, 2), min_size=3, max_size=3)))
    shared = draw(st.sampled_from((0.0, 0.9, 0.999)))
    base = rng.normal(size=(ROWS, 1))
    x = (shared * base + np.sqrt(1 - shared**2) * rng.normal(size=(ROWS, COLUMNS))) * units
    group = rng.integers(0, draw(st.integers(1, GROUPS)), ROWS)
    error = rng.uniform(0.5, 2.0, ROWS)
    y = rng.normal(size=ROWS) * draw(st.sampled_from((0.1, 1.0, 30.0)))
    data = {"y": y} | ({"extra": rng.normal(size=COLUMNS)} if structure["nested"] else {})
    return linear(x, group, error, structure).observe(data)


@settings(max_examples=40)
@given(posteriors())
def test_statistics_and_collapse_change_nothing(model: Any) -> None:
    before, after, found = rewritten(model, SufficientStatistics())
    assert same_density(before, after, n=2) < 1e-8
    _, after, found = rewritten(model, SufficientStatistics(), Collapse())
    assert after.dim <= 3
    assert same_joint(before, after, found.recoveries[-1], n=1) < 1e-8


# Counts and labels, whose coefficients no closed form integrates out.
FAMILIES = ("poisson", "bernoulli", "both")


@pp.model
def generalised(x, group, family):
    mean = pp.sample("mean", dist.Normal(30.0, 0.2))
    tau = pp.sample("tau", dist.HalfNormal(1))
    with pp.plate("group", GROUPS):
        effect = pp.sample("effect", dist.Normal(mean, tau))
    beta = pp.sample("beta", dist.Normal(0, 2).expand([COLUMNS]))
    unused = pp.sample("unused", dist.Normal(tau, 1.0))
    pp.deterministic("sum", unused + mean)
    predictor = effect[group] - 30.0 + x @ beta
    if family != "bernoulli":
        pp.sample("count", dist.Poisson(np.exp(0.1 * predictor)))
    if family != "poisson":
        pp.sample("label", dist.Bernoulli(logits=predictor))


@st.composite
def counted(draw: Any) -> Any:
    """The same with counts and labels; rows of which several are alike."""
    family = draw(st.sampled_from(FAMILIES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = rng.normal(size=(ROWS, COLUMNS)).round(draw(st.sampled_from((0, 6))))
    group = rng.integers(0, draw(st.integers(1, GROUPS)), ROWS)
    data = {}
    if family != "bernoulli":
        data["count"] = rng.poisson(2.0, ROWS)
    if family != "poisson":
        data["label"] = rng.integers(0, 2, ROWS)
    return generalised(x, group, family).observe(data)


@settings(max_examples=12)
@given(st.one_of(posteriors(), counted()))
def test_all_that_the_planner_rewrites_changes_nothing(model: Any) -> None:
    with precision.scope("float64"):
        prepared = prepare(model)
        if None in Recovered.of(prepared).sizes:  # a half-normal site that informs nothing is drawn
            prepared = prepare(model, ("simplify",))
    assert any(line.applied for line in prepared.applied)
    assert same_posterior(prepared) < 1e-8
