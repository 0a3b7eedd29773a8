"""Maximum likelihood and MAP: closed forms, statsmodels, and what has no answer."""

from __future__ import annotations

import numpy as np
import pytest

import ppcore as pp
from ppcore import dist
from ppcore.errors import ModelError, SettingsError
from ppcore.fit.point import EstimationError

rng = np.random.default_rng(7)
X = np.c_[np.ones(40), rng.normal(size=(40, 2))]
Y = X @ [0.5, -1.0, 2.0] + 0.7 * rng.normal(size=40)
B = (rng.random(40) < 1 / (1 + np.exp(-X @ [0.2, 1.0, -0.5]))).astype(int)


@pp.model
def line(x):
    beta = pp.param("beta", np.zeros(3))
    sigma = pp.param("sigma", 1.0, dist.constraints.positive)
    pp.deterministic("ratio", beta[1] / beta[2])
    with pp.plate("i", len(x)):
        pp.sample("y", dist.Normal(x @ beta, sigma))


@pp.model
def logit(x):
    beta = pp.param("beta", np.zeros(3))
    with pp.plate("i", len(x)):
        pp.sample("y", dist.Bernoulli(logits=x @ beta))


def test_least_squares():
    sm = pytest.importorskip("statsmodels.api")
    found = line(X).observe(y=Y).fit_mle()
    want = sm.OLS(Y, X).fit()
    np.testing.assert_allclose(found.estimates["beta"], want.params, atol=1e-6)
    # statsmodels divides by n − 3; the maximum likelihood by n.
    np.testing.assert_allclose(found.std_errors["beta"], want.bse * np.sqrt(37 / 40), rtol=1e-6)
    sigma = np.sqrt(want.ssr / 40)
    np.testing.assert_allclose(found.estimates["sigma"], sigma, atol=1e-8)
    np.testing.assert_allclose(found.std_errors["sigma"], sigma / np.sqrt(80), rtol=1e-6)
    np.testing.assert_allclose(found.log_density, want.llf, atol=1e-8)
    # The delta method: Var(b₁/b₂) = ∇ᵀ Σ ∇.
    b, cov = want.params, want.cov_params() * 37 / 40
    g = np.array([0.0, 1 / b[2], -b[1] / b[2] ** 2])
    np.testing.assert_allclose(found.std_errors["ratio"], np.sqrt(g @ cov @ g), rtol=1e-6)
    np.testing.assert_allclose(found.covariance[:3, :3], cov, rtol=1e-6, atol=1e-10)
    assert found.names == ("beta[0]", "beta[1]", "beta[2]", "sigma")


def test_logistic_regression():
    sm = pytest.importorskip("statsmodels.api")
    found = logit(X).observe(y=B).fit_mle()
    want = sm.Logit(B, X).fit(disp=0, tol=1e-12)
    np.testing.assert_allclose(found.estimates["beta"], want.params, atol=1e-6)
    np.testing.assert_allclose(found.std_errors["beta"], want.bse, atol=1e-6)
    np.testing.assert_allclose(found.log_density, want.llf, atol=1e-9)


def test_the_map_is_the_mode_in_the_sites_own_units():
    """Gamma(3, 2) with 5 Poisson counts: the mode is (a + Σy − 1) / (b + n), no Jacobian."""

    @pp.model
    def counts(n):
        rate = pp.sample("rate", dist.Gamma(3.0, 2.0))
        with pp.plate("i", n):
            pp.sample("y", dist.Poisson(rate))

    y = np.array([2, 0, 1, 3, 1])
    found = counts(5).observe(y=y).fit_map()
    mode = (3 + 7 - 1) / (2 + 5)
    np.testing.assert_allclose(found.estimates["rate"], mode, rtol=1e-8)
    # −∂² log p = (a + Σy − 1) / rate².
    np.testing.assert_allclose(found.std_errors["rate"], mode / 3, rtol=1e-7)
    np.testing.assert_allclose(counts(5).observe(y=y).fit_mle().estimates["rate"], 7 / 5, rtol=1e-8)


def test_ridge_regression_is_the_map():
    @pp.model
    def ridge(x):
        beta = pp.sample("beta", dist.Normal(0.0, 0.5).expand([3]))
        with pp.plate("i", len(x)):
            pp.sample("y", dist.Normal(x @ beta, 0.7))

    found = ridge(X).observe(y=Y).fit_map()
    lam = X.T @ X / 0.49 + np.eye(3) / 0.25
    np.testing.assert_allclose(found.estimates["beta"], np.linalg.solve(lam, X.T @ Y / 0.49))
    np.testing.assert_allclose(found.covariance, np.linalg.inv(lam), rtol=1e-8, atol=1e-12)


def test_a_simplex_has_the_shares_as_its_maximum():
    counts = np.array([5, 9, 2, 4])

    @pp.model
    def shares():
        p = pp.param("p", np.full(4, 0.25), dist.constraints.simplex)
        pp.sample("y", dist.Multinomial(total_count=20, probs=p))

    found = shares().observe(y=counts).fit_mle()
    p = counts / 20
    np.testing.assert_allclose(found.estimates["p"], p, atol=1e-8)
    cov = (np.diag(p) - np.outer(p, p)) / 20
    np.testing.assert_allclose(found.covariance, cov, atol=1e-8)


def test_labels_are_summed_out_of_the_likelihood():
    y = np.concatenate([rng.normal(size=30) - 2, rng.normal(size=60) + 2])

    @pp.model
    def two(n):
        p = pp.param("p", 0.5, dist.constraints.unit_interval)
        mu = pp.param("mu", np.array([-1.0, 1.0]))
        with pp.plate("i", n):
            z = pp.sample("z", dist.Bernoulli(p))
            pp.sample("y", dist.Normal(mu[z], 1.0))

    found = two(90).observe(y=y).fit_mle()
    # EM at its fixed point.
    p, mu = 0.5, np.array([-1.0, 1.0])
    for _ in range(2000):
        a = (1 - p) * np.exp(-0.5 * (y - mu[0]) ** 2)
        b = p * np.exp(-0.5 * (y - mu[1]) ** 2)
        r = b / (a + b)
        p, mu = r.mean(), np.array([(1 - r) @ y / (1 - r).sum(), r @ y / r.sum()])
    np.testing.assert_allclose(found.estimates["mu"], mu, atol=1e-7)
    np.testing.assert_allclose(found.estimates["p"], p, atol=1e-7)


def test_parameters_compose_and_are_sites():
    @pp.model
    def noise(loc, n):
        scale = pp.param("scale", 2.0, dist.constraints.positive)
        with pp.plate("i", n):
            pp.sample("y", dist.Normal(loc, scale))

    @pp.model
    def whole(n):
        loc = pp.param("loc", 0.0)
        with pp.prefix("noise"):
            noise(loc, n)

    y = rng.normal(size=20) * 3 + 1
    model = whole(20).observe({"noise.y": y})
    assert model.latents == ("loc", "noise.scale")
    found = model.fit_mle()
    np.testing.assert_allclose(found.estimates["loc"], y.mean(), atol=1e-8)
    np.testing.assert_allclose(found.estimates["noise.scale"], y.std(), atol=1e-8)
    assert found.start["noise.scale"] == pytest.approx(2.0)
    fixed = whole(20).do({n: v for n, v in found.estimates.items()})
    assert fixed.simulate(0, 3)["noise.y"].shape == (3, 20)
    assert list(found.summary().index) == ["loc", "noise.scale"]
    assert "loc = " in repr(found)


def test_a_direction_that_the_data_do_not_identify_is_named():
    @pp.model
    def twice(n):
        a = pp.param("a", 0.0)
        b = pp.param("b", 0.0)
        with pp.plate("i", n):
            pp.sample("y", dist.Normal(a + b, 1.0))

    with pytest.raises(EstimationError, match=r"singular: along .*[ab].*·[ab]"):
        twice(5).observe(y=np.ones(5)).fit_mle()


def test_a_likelihood_without_a_maximum_is_refused():
    x = np.array([-2.0, -1.0, 1.0, 2.0])

    @pp.model
    def separated(x):
        slope = pp.param("slope", 0.0)
        with pp.plate("i", len(x)):
            pp.sample("y", dist.Bernoulli(logits=slope * x))

    with pytest.raises(EstimationError, match="slope"):
        separated(x).observe(y=[0, 0, 1, 1]).fit_mle()


def test_bad_input():
    with pytest.raises(SettingsError, match="nothing to fit"):
        line(X).fit_mle()
    with pytest.raises(SettingsError, match="Did you mean 'beta'"):
        line(X).observe(y=Y).fit_mle(start={"betta": np.zeros(3)})

    @pp.model
    def outside():
        pp.param("s", -1.0, dist.constraints.positive)

    @pp.model
    def inside():
        def step(c, _):
            pp.param("s", 1.0)
            return c, None

        pp.scan(step, 0.0, length=3)

    with pytest.raises(ModelError, match="outside its support"):
        outside()
    with pytest.raises(ModelError, match="inside a scan"):
        inside()
