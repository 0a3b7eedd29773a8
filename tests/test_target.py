"""Targets and forward draws against SciPy's own numbers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import ppcore as pp
from ppcore import dist
from ppcore.precision import scope
from ppcore.target import Target


@pytest.fixture(autouse=True)
def double():
    with scope("float64"):
        yield


def waiting(exposure):
    rate = pp.sample("rate", dist.Gamma(3.0, 2.0))
    share = pp.sample("share", dist.Beta(2.0, 5.0))
    weights = pp.sample("weights", dist.Dirichlet(np.array([1.0, 2.0, 3.0])))
    pp.deterministic("odds", share / (1 - share))
    with pp.plate("i", len(exposure)):
        pp.sample("count", dist.Poisson(rate * exposure))
        pp.sample("size", dist.Normal(share, 0.5))
    pp.factor("extra", -((weights - 0.3) ** 2))


EXPOSURE = np.array([1.0, 2.0, 0.5, 4.0])
COUNT = np.array([1, 4, 0, 7])
SIZE = np.array([0.1, 0.9, -0.3, 0.4])
VALUES = {"rate": 1.3, "share": 0.2, "weights": np.array([0.2, 0.3, 0.5])}


@pytest.fixture
def model() -> pp.Model:
    return pp.model(waiting)(EXPOSURE).observe(count=COUNT, size=SIZE)


def prior_density(v: dict[str, Any]) -> float:
    return (
        stats.gamma.logpdf(v["rate"], 3.0, scale=1 / 2.0)
        + stats.beta.logpdf(v["share"], 2.0, 5.0)
        + stats.dirichlet.logpdf(v["weights"], [1.0, 2.0, 3.0])
    )


def likelihoods(v: dict[str, Any]) -> dict[str, np.ndarray]:
    return {
        "count": stats.poisson.logpmf(COUNT, v["rate"] * EXPOSURE),
        "size": stats.norm.logpdf(SIZE, v["share"], 0.5),
    }


def log_jacobian(target: Any, x: np.ndarray) -> float:
    """log |det| of x -> (rate, share, first two weights), by automatic differentiation."""

    def free(x):
        v = target.constrain(x)
        return jnp.concatenate([v["rate"][None], v["share"][None], v["weights"][:-1]])

    return float(jnp.linalg.slogdet(jax.jit(jax.jacobian(free))(x))[1])


def test_log_density_is_prior_likelihood_factor_and_jacobian(model: pp.Model) -> None:
    target = model.target()
    x = np.asarray(jax.jit(target.unconstrain)(VALUES))
    given = likelihoods(VALUES)
    factor = -((VALUES["weights"] - 0.3) ** 2).sum()
    prior = prior_density(VALUES) + log_jacobian(target, x)
    likelihood = given["count"].sum() + given["size"].sum() + factor
    parts = [target.log_prior, target.log_likelihood, target.log_density]
    found = jax.jit(lambda x: [part(x) for part in parts])(x)
    np.testing.assert_allclose(found, [prior, likelihood, prior + likelihood], rtol=1e-12)
    by_site = jax.jit(target.log_density_by_site)(x)
    assert set(by_site) == {"rate", "share", "weights", "count", "size", "extra"}
    np.testing.assert_allclose(sum(by_site.values()), prior + likelihood, rtol=1e-12)
    np.testing.assert_allclose(by_site["count"], given["count"].sum(), rtol=1e-12)


def test_gradient_is_that_of_finite_differences(model: pp.Model) -> None:
    target = model.target()
    x = np.asarray(jax.jit(target.unconstrain)(VALUES))
    gradient = jax.jit(jax.grad(target.log_density))(x)
    log_density = jax.jit(target.log_density)
    differences = [
        (log_density(x + h) - log_density(x - h)) / 2e-6 for h in 1e-6 * np.eye(target.dim)
    ]
    np.testing.assert_allclose(gradient, differences, rtol=1e-6)


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_tempering_acts_on_the_likelihood(model: pp.Model, beta: float) -> None:
    target = model.target()
    x = np.linspace(-1, 1, target.dim)
    expected = target.log_prior(x) + beta * target.log_likelihood(x)
    np.testing.assert_allclose(target.tempered(beta).log_density(x), expected, rtol=1e-13)
    assert target.beta == 1.0


def test_layout(model: pp.Model) -> None:
    target = model.target()
    assert isinstance(target, Target)
    assert target.dim == 4
    assert target.latents == ("rate", "share", "weights")
    assert target.site_slices == {
        "rate": slice(0, 1),
        "share": slice(1, 2),
        "weights": slice(2, 4),
    }
    assert target.has_reference
    assert target.improper == ()


def test_constrain_and_unconstrain_are_inverse(model: pp.Model) -> None:
    target = model.target()
    x = np.random.default_rng(0).normal(size=target.dim)
    values = jax.jit(target.constrain)(x)
    assert set(values) == {"rate", "share", "weights", "odds"}
    np.testing.assert_allclose(values["odds"], values["share"] / (1 - values["share"]))
    assert values["rate"] > 0
    np.testing.assert_allclose(values["weights"].sum(), 1)
    again = target.unconstrain({n: values[n] for n in target.latents})
    np.testing.assert_allclose(again, x, rtol=1e-9)


def test_data_and_temperature_are_leaves(model: pp.Model) -> None:
    target = model.target()
    leaves, structure = jax.tree.flatten(target)
    assert [np.shape(leaf) for leaf in leaves] == [(3,), (4,), (4,), (4,), ()]
    other = pp.model(waiting)(EXPOSURE + 1).observe(count=COUNT + 1, size=SIZE).target()
    assert jax.tree.structure(other) == structure

    traces = []

    @jax.jit
    def log_density(target, x):
        traces.append(1)
        return target.log_density(x)

    x = np.zeros(target.dim)
    values = [log_density(t, x) for t in (target, other, target.tempered(0.5))]
    assert len(traces) == 1
    assert len(set(map(float, values))) == 3


def test_batched_is_one_at_a_time(model: pp.Model) -> None:
    target = model.target()
    xs = np.random.default_rng(1).normal(size=(5, target.dim))
    both = jax.jit(jax.vmap(jax.value_and_grad(target.log_density)))(xs)
    one = jax.jit(jax.value_and_grad(target.log_density))
    for k, x in enumerate(xs):
        value, gradient = one(x)
        np.testing.assert_allclose(both[0][k], value, rtol=1e-12)
        np.testing.assert_allclose(both[1][k], gradient, rtol=1e-9)


def test_reference_draws_are_the_prior(model: pp.Model) -> None:
    target = model.target()
    x = jax.jit(target.sample_reference, static_argnums=1)(jax.random.key(4), 4000)
    assert x.shape == (4000, 4)
    values = jax.vmap(target.constrain)(x)
    # Three tests share an error rate of 1e-3.
    for site, reference in (
        ("rate", stats.gamma(3.0, scale=0.5)),
        ("share", stats.beta(2.0, 5.0)),
    ):
        assert stats.kstest(np.asarray(values[site]), reference.cdf).pvalue > 1e-3 / 3
    first = np.asarray(values["weights"][:, 0])
    assert stats.kstest(first, stats.beta(1.0, 5.0).cdf).pvalue > 1e-3 / 3


def test_joint_draws_move_the_evidence(model: pp.Model) -> None:
    target = model.target()
    x, moved = jax.jit(target.simulate_joint)(jax.random.key(0))
    assert x.shape == (target.dim,)
    assert jax.tree.structure(moved) == jax.tree.structure(target)
    assert [e.dtype for e in moved.evidence] == [e.dtype for e in target.evidence]
    assert not np.array_equal(moved.evidence[0], target.evidence[0])
    assert np.isfinite(moved.log_density(x))


def test_forward_draws(model: pp.Model) -> None:
    draws = model.simulate(seed=3, n=4000)
    assert list(draws) == ["rate", "share", "weights", "odds", "count", "size"]
    assert draws["count"].shape == (4000, 4)
    assert draws["count"].dtype == np.int64
    np.testing.assert_array_equal(draws["odds"], draws["share"] / (1 - draws["share"]))
    # Marginally a Poisson of a Gamma is negative binomial. Two tests share an error of 1e-3.
    exposure = EXPOSURE[3]
    marginal = stats.nbinom(3, 2 / (2 + exposure))
    edges = np.arange(12)
    expected = 4000 * np.append(marginal.pmf(edges), marginal.sf(edges[-1]))
    counted = np.bincount(np.minimum(draws["count"][:, 3], 12), minlength=13)
    assert stats.chisquare(counted, expected).pvalue > 1e-3 / 2
    residual = (draws["size"] - draws["share"][:, None]).ravel()
    assert stats.kstest(residual, stats.norm(0, 0.5).cdf).pvalue > 1e-3 / 2


def test_draws_are_those_of_the_seed(model: pp.Model) -> None:
    one, same, other = (model.simulate(seed=s, n=4000) for s in (1, 1, 2))
    np.testing.assert_array_equal(one["count"], same["count"])
    assert not np.array_equal(one["rate"], other["rate"])


def test_draws_given_some_sites(model: pp.Model) -> None:
    n = 4000
    given = {"rate": np.full(n, 2.5), "share": np.linspace(0.1, 0.9, n)}
    draws = model.simulate_given(0, given)
    assert set(draws) == {"weights", "odds", "count", "size"}
    np.testing.assert_array_equal(draws["odds"], given["share"] / (1 - given["share"]))
    # Two tests share an error of 1e-3.
    residual = (draws["size"] - given["share"][:, None]).ravel()
    assert stats.kstest(residual, stats.norm(0, 0.5).cdf).pvalue > 1e-3 / 2
    total = draws["count"].sum()
    law = stats.poisson(n * 2.5 * EXPOSURE.sum())
    assert min(law.cdf(total), law.sf(total - 1)) > 1e-3 / 4


def test_pointwise_log_likelihood(model: pp.Model) -> None:
    values = {
        "rate": np.array([0.5, 1.3, 4.0]),
        "share": np.array([0.1, 0.2, 0.8]),
        "weights": np.tile(VALUES["weights"], (3, 1)),
    }
    found = model.pointwise_log_likelihood(values)
    assert set(found) == {"count", "size"}
    for k in range(3):
        expected = likelihoods({n: v[k] for n, v in values.items()})
        for site in found:
            assert found[site].shape == (3, 4)
            np.testing.assert_allclose(found[site][k], expected[site], rtol=1e-12)


def test_pointwise_log_likelihood_of_vectors() -> None:
    cov = np.array([[1.0, 0.3], [0.3, 2.0]])
    y = np.array([[0.1, 0.2], [1.0, -1.0], [0.5, 2.0]])

    def declared():
        mu = pp.sample("mu", dist.Normal(0, 1).expand([2]).to_event(1))
        with pp.plate("row", 3):
            pp.sample("y", dist.MultivariateNormal(mu, cov))

    mu = np.array([[0.0, 0.5]])
    found = pp.model(declared)().observe(y=y).pointwise_log_likelihood({"mu": mu})["y"]
    np.testing.assert_allclose(found[0], stats.multivariate_normal.logpdf(y - mu, cov=cov))


def test_masked_elements_count_nothing() -> None:
    seen = np.array([True, False, True])

    def declared(seen):
        mu = pp.sample("mu", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(mu, 1).expand([3]).mask(seen))

    target = pp.model(declared)(seen).observe(y=np.array([0.5, 100.0, -0.5])).target()
    expected = stats.norm.logpdf([0.3 - 0.5, 0.3 + 0.5]).sum()
    np.testing.assert_allclose(target.log_likelihood(np.array([0.3])), expected)


@pytest.mark.parametrize("a", [0.3, 5.0, 40.0])
def test_beta_binomial(a: float) -> None:
    y, n = np.arange(13), 12

    def declared(n):
        b = pp.sample("b", dist.Gamma(1.0, 1.0))
        pp.sample("y", dist.BetaBinomial(a, b, n).expand([13]))

    target = pp.model(declared)(np.array(n)).observe(y=y).target()
    x = np.log(np.array([[0.5], [3.0], [60.0]]))
    expected = [stats.betabinom.logpmf(y, n, a, b).sum() for b in (0.5, 3.0, 60.0)]
    np.testing.assert_allclose(jax.vmap(target.log_likelihood)(x), expected, rtol=1e-11)
    gradient = jax.jit(jax.vmap(jax.grad(target.log_likelihood)))(x)[:, 0]
    h = 1e-5
    up, down = (
        np.array([stats.betabinom.logpmf(y, n, a, np.exp(u + s)).sum() for u in x[:, 0]])
        for s in (h, -h)
    )
    np.testing.assert_allclose(gradient, (up - down) / (2 * h), rtol=1e-6)


def test_a_model_without_latents_has_no_coordinates() -> None:
    model = pp.model(lambda: pp.sample("y", dist.Normal(0, 1)))().observe(y=0.5)
    target = model.target()
    assert target.dim == 0
    np.testing.assert_allclose(target.log_density(np.zeros(0)), stats.norm.logpdf(0.5))
