"""Simplify, reparameterise and components keep posterior and evidence: densities, exactly."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ppcore as pp
from ppcore import dist, precision
from ppcore.model_target import ModelTarget
from ppcore.rewrite.components import Join, components
from ppcore.rewrite.coordinates import changed, location_scale
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewriting, rewrite
from ppcore.rewrite.reparameterise import Reparameterise, hierarchical
from ppcore.rewrite.simplify import Simplify
from ppcore.rewrite.standardise import Standardise

SIGMA = np.array([15.0, 10.0, 16.0, 11.0])
Y = np.array([28.0, 8.0, -3.0, 7.0])


@pp.model
def schools(sigma):
    mu = pp.sample("mu", dist.Normal(0, 5))
    tau = pp.sample("tau", dist.HalfCauchy(5))
    with pp.plate("school", len(sigma)):
        theta = pp.sample("theta", dist.Normal(mu, tau))
        pp.sample("y", dist.Normal(theta, sigma))


@pp.model
def rates(groups):
    a = pp.sample("a", dist.Normal(0, 1))
    with pp.plate("group", groups):
        rate = pp.sample("rate", dist.LogNormal(a, 0.5))
        pp.sample("n", dist.Poisson(rate))


def target_of(done: Rewriting) -> ModelTarget:
    return ModelTarget(done.problem.diagram, (), done.problem.data, ())


def same_density(model: Any, done: Rewriting, seed: int = 0) -> None:
    """log γ′(x′) = log γ(T x′) + log |det ∂T| + constant, at random points."""
    origin, after = model.target(), target_of(done)
    rng = np.random.default_rng(seed)

    def back(x: Any) -> Any:
        return done.recover(jax.random.key(0), x)

    gaps = []
    for _ in range(3):
        x = rng.normal(size=after.dim)
        jacobian = jnp.linalg.slogdet(jax.jacfwd(back)(x))[1]
        gaps.append(float(after.log_density(x) - origin.log_density(back(x)) - jacobian))
    assert np.allclose(gaps, -done.log_constant, atol=1e-8)


@pytest.mark.parametrize("model", [schools(SIGMA).observe(y=Y), rates(3).observe(n=[0, 4, 90])])
def test_reparameterised_densities_are_those_of_the_model(model: Any) -> None:
    with precision.scope("float64"):
        done = rewrite(Problem.of(model.target()), [Reparameterise()])
        assert done.log[0][1], done.log
        same_density(model, done)


@pp.model
def poisson(x):
    beta = pp.sample("beta", dist.ImproperUniform(dist.constraints.real, (), (x.shape[1],)))
    level = pp.sample("level", dist.Normal(30.0, 0.1))
    pp.sample("y", dist.Bernoulli(logits=x @ beta))
    pp.sample("z", dist.Normal(level, 1.0))


def test_standardised_densities_are_those_of_the_model() -> None:
    x = np.array([[1.0, 100.0], [1.0, -200.0], [1.0, 50.0]])
    model = poisson(x).observe(y=[0, 1, 1], z=29.0)
    with precision.scope("float64"):
        done = rewrite(Problem.of(model.target()), [Standardise()])
        assert done.log[0][1:] == (True, "beta, level")
        scale = done.recoveries[0].scale  # type: ignore[attr-defined]
        size = np.sqrt(np.mean(x[:, 1] ** 2))
        np.testing.assert_allclose(scale, [1.0, 1 / size, 0.1])
        # A flat density has no normaliser: its constant is log |det|, which the gap then is.
        origin, after = model.target(), target_of(done)
        at = np.array([0.3, -0.2, 1.0])
        gap = float(after.log_density(at) - origin.log_density(done.recover(None, at)))
        assert gap == pytest.approx(np.log(0.1))
        assert done.log_constant == pytest.approx(-np.log(size))


def test_centring_follows_the_information() -> None:
    """Schools say little of their θ; 90 counts say much of their rate, no count little."""
    with precision.scope("float64"):
        little = Reparameterise().apply(Problem.of(schools(SIGMA).observe(y=Y).target()))
        much = Reparameterise().apply(Problem.of(rates(3).observe(n=[0, 4, 90]).target()))
    assert not isinstance(little, NotApplicable) and not isinstance(much, NotApplicable)
    assert np.max(little.recover.centred[0]) < 0.6  # type: ignore[union-attr]
    none, some, most = much.recover.centred[0]  # type: ignore[union-attr]
    assert none < some < most and most > 0.9


def test_hierarchies_without_information_are_left() -> None:
    @pp.model
    def plain(x):
        b = pp.sample("b", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(b * x, 1))

    with precision.scope("float64"):
        problem = Problem.of(plain(np.ones(2)).observe(y=np.ones(2)).target())
        assert isinstance(Reparameterise().apply(problem), NotApplicable)


@settings(max_examples=25, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(0.1, 5), st.floats(0, 1))
def test_location_scale_keeps_the_law(z: float, loc: float, scale: float, share: float) -> None:
    """N(z; λ loc, scale^λ) dz = N(θ; loc, scale) dθ."""

    def normal(x: float, m: float, s: float) -> float:
        return -0.5 * ((x - m) / s) ** 2 - np.log(s)

    with precision.scope("float64"):
        theta = float(location_scale(z, loc, scale, share))
    before = normal(theta, loc, scale) + (1 - share) * np.log(scale)
    assert before == pytest.approx(normal(z, share * loc, scale**share), abs=1e-9)


def test_partial_centring_is_data_not_structure() -> None:
    """Another λ is another leaf: the diagrams are equal, so nothing is compiled for it."""
    with precision.scope("float64"):
        problem = Problem.of(schools(SIGMA).observe(y=Y).target())
        [change] = hierarchical(problem).values()
        made = [
            changed(
                problem, {"theta": type(change)("theta", "Normal", change.loc, change.scale, c)}
            )
            for c in (np.full(4, 0.3), np.full(4, 0.6))
        ]
    assert made[0].diagram == made[1].diagram


@pp.model
def predictive(x):
    a = pp.sample("a", dist.Normal(0, 1))
    pp.sample("y", dist.Normal(np.log(2.0 + np.abs(x)) + a * x, 1.0))
    b = pp.sample("b", dist.Normal(a, 2.0))
    pp.sample("c", dist.Gamma(1.0, np.exp(b)))


def test_barren_sites_leave_and_come_back() -> None:
    x = np.arange(3.0)
    model = predictive(x).observe(y=np.ones(3))
    with precision.scope("float64"):
        done = rewrite(Problem.of(model.target()), [Simplify()])
        after = target_of(done)
        assert after.latents == ("a",)
        values = np.linspace(-1, 1, 4)[:, None]
        gaps = []
        for row in values:
            others = {"a": row[0], "b": np.asarray(0.3), "c": np.asarray(2.0)}
            whole = model.target().log_density_by_site(model.target().unconstrain(others))
            gaps.append(float(after.log_density(row) - whole["a"] - whole["y"]))
        assert np.allclose(gaps, 0, atol=1e-12)
        keys = jax.random.split(jax.random.key(1), 4000)
        drawn = np.asarray(jax.vmap(lambda k: done.recover(k, jnp.array([0.5])))(keys))
    b = drawn[:, 1]
    assert abs(b.mean() - 0.5) < 5 * 2 / np.sqrt(4000)
    assert abs(b.std() - 2) < 5 * 2 / np.sqrt(8000)


def test_normal_barren_sites_are_functions_of_noise() -> None:
    @pp.model
    def ahead(x):
        a = pp.sample("a", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(a * x, 1.0))
        pp.sample("next", dist.LogNormal(a, 2.0).expand([2]))

    with precision.scope("float64"):
        model = ahead(np.ones(2)).observe(y=np.ones(2))
        done = rewrite(Problem.of(model.target()), [Simplify()])
        [back] = done.recoveries
        assert back.noise_size == 2  # type: ignore[attr-defined]
        found = back.given(jnp.array([0.5]), jnp.array([0.0, 1.0]))  # type: ignore[attr-defined]
    assert found.tolist() == [0.5, 0.5, 2.5]


def test_shared_and_constant_boxes() -> None:
    @pp.model
    def twice(x):
        a = pp.sample("a", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(np.exp(a) * x, 1.0))
        pp.sample("z", dist.Normal(np.exp(a) + x, 1.0))

    model = twice(np.ones(2)).observe(y=np.ones(2), z=np.zeros(2))
    with precision.scope("float64"):
        done = rewrite(Problem.of(model.target()), [Simplify()])
        assert "1 boxes shared" in done.log[0][2]
        same_density(model, done)


@pp.model
def islands(x):
    a = pp.sample("a", dist.Normal(0, 1))
    s = pp.sample("s", dist.HalfNormal(1))
    pp.sample("y", dist.Normal(a * x, s))
    b = pp.sample("b", dist.Normal(0, 1).expand([2]))
    pp.sample("z", dist.Bernoulli(logits=b))
    pp.factor("constant", 0.25 * x.sum())
    c = pp.sample("c", dist.Gamma(2, 1))
    pp.factor("tilt", -np.abs(c - 1))


def test_components_multiply_to_the_whole() -> None:
    model = islands(np.arange(3.0)).observe(y=np.ones(3), z=[0, 1])
    with precision.scope("float64"):
        target = model.target()
        found = components(Problem.of(target))
        assert [c.problem.latents for c in found] == [("a", "s"), ("b",), ("c",)]
        assert sorted(np.concatenate([c.at for c in found])) == list(range(target.dim))
        x = np.random.default_rng(0).normal(size=target.dim)
        parts = [
            float(ModelTarget(c.problem.diagram, (), c.problem.data, ()).log_density(x[c.at]))
            for c in found
        ]
        assert sum(parts) == pytest.approx(float(target.log_density(x)), abs=1e-10)
        join = Join(found[0].at, np.concatenate([c.at for c in found[1:]]))
        rest = np.concatenate([x[c.at] for c in found[1:]])
        np.testing.assert_array_equal(join.given(x[found[0].at], rest), x)


def test_a_connected_model_is_one_component() -> None:
    with precision.scope("float64"):
        problem = Problem.of(schools(SIGMA).observe(y=Y).target())
        assert len(components(problem)) == 1


def test_components_are_drawn_in_their_own_ways() -> None:
    model = islands(np.arange(3.0)).observe(y=np.arange(3.0) + 0.5, z=[0, 1])
    off = ["sufficient_statistics", "collapse", "collapse_conjugate"]
    fit = model.infer(seed=1, without=off, progress="off")
    whole = model.infer(seed=1, without=[*off, "components"], progress="off")
    assert fit.plan.choice == "components"
    assert whole.plan.choice == "importance"
    error = np.hypot(fit.log_evidence.error, whole.log_evidence.error)
    assert abs(fit.log_evidence.value - whole.log_evidence.value) < 4 * error
    for site in ("a", "s", "b", "c"):
        one, two = fit.draws(site), whole.draws(site)
        gap = np.abs(one.mean((0, 1)) - two.mean((0, 1)))
        assert (gap < 5 * two.std((0, 1)) / np.sqrt(2000)).all(), site
