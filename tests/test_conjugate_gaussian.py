"""Conjugate Gaussian models: regression, normal–inverse-gamma, normal–Wishart, to 1e-10."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import stats

import ppcore as pp
from ppcore import dist, precision

rng = np.random.default_rng(4)
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def solved(model, **evidence):
    return model.observe(**evidence).solve(["conjugate"])


def parameters(solution, site):
    return dict(solution.marginal(site).distribution.arguments)


X = np.c_[np.ones(12), rng.normal(size=(12, 2))]
Y = X @ [1.0, -2.0, 0.5] + 0.4 * rng.normal(size=12)


@pp.model
def regression(x, g):
    v = pp.sample("v", dist.InverseGamma(2.0, 1.5))
    beta = pp.sample("beta", dist.Normal(0.5, g * np.sqrt(v)).expand([3]))
    pp.deterministic("line", x @ beta)
    with pp.plate("i", len(x)):
        pp.sample("y", dist.Normal(x @ beta, np.sqrt(v)))


def test_regression_with_unknown_variance():
    g, a, b = 3.0, 2.0, 1.5
    found = solved(regression(X, g), y=Y)
    prior = np.eye(3) / g**2
    lam = X.T @ X + prior
    m0 = np.full(3, 0.5)
    mean = np.linalg.solve(lam, X.T @ Y + prior @ m0)
    a_n = a + 6
    b_n = b + 0.5 * (Y @ Y + m0 @ prior @ m0 - mean @ lam @ mean)
    got = parameters(found, "v")
    np.testing.assert_allclose(got["concentration"], a_n, **CLOSE)
    np.testing.assert_allclose(got["rate"], b_n, **CLOSE)
    got = parameters(found, "beta")
    np.testing.assert_allclose(got["loc"], mean, **CLOSE)
    np.testing.assert_allclose(got["df"], 2 * a_n, **CLOSE)
    cov = got["scale_tril"] @ got["scale_tril"].T
    np.testing.assert_allclose(cov, b_n / a_n * np.linalg.inv(lam), **CLOSE)
    # y ~ t(2a, X m0, b/a (I + g² X Xᵀ)).
    shape = b / a * (np.eye(12) + g**2 * X @ X.T)
    want = stats.multivariate_t(X @ m0, shape, df=2 * a).logpdf(Y)
    np.testing.assert_allclose(found.log_evidence, want, **CLOSE)
    line = parameters(found, "line")
    np.testing.assert_allclose(line["loc"], X @ mean, **CLOSE)
    sd = np.sqrt(b_n / a_n * np.diagonal(X @ np.linalg.inv(lam) @ X.T))
    np.testing.assert_allclose(line["scale"], sd, **CLOSE)


def test_regression_by_precision_and_a_g_prior_is_the_same():
    g = 5.0
    shape = np.linalg.inv(X.T @ X) * g

    @pp.model
    def zellner(x):
        t = pp.sample("t", dist.Gamma(2.0, 1.5))
        beta = pp.sample("beta", dist.MultivariateNormal(np.zeros(3), shape / t))
        with pp.plate("i", len(x)):
            pp.sample("y", dist.Normal(x @ beta, 1 / np.sqrt(t)))

    found = solved(zellner(X), y=Y)
    want = stats.multivariate_t(
        np.zeros(12), 1.5 / 2 * (np.eye(12) + X @ shape @ X.T), df=4
    ).logpdf(Y)
    np.testing.assert_allclose(found.log_evidence, want, **CLOSE)
    ols = np.linalg.lstsq(X, Y, rcond=None)[0]
    np.testing.assert_allclose(parameters(found, "beta")["loc"], g / (1 + g) * ols, **CLOSE)


def test_known_variance_agrees_with_the_gaussian_solver():
    @pp.model
    def shrunk(x):
        mu = pp.sample("mu", dist.Normal(1.0, 2.0))
        beta = pp.sample("beta", dist.Normal(mu, 0.7).expand([3]))
        with pp.plate("i", len(x)):
            pp.sample("y", dist.Normal(x @ beta + mu, 0.3))

    model = shrunk(X).observe(y=Y)
    ours, theirs = model.solve(["conjugate"]), model.solve(["gaussian"])
    np.testing.assert_allclose(ours.log_evidence, theirs.log_evidence, **CLOSE)
    got, want = parameters(ours, "beta"), theirs.marginal("beta")
    np.testing.assert_allclose(got["loc"], want.mean, **CLOSE)
    np.testing.assert_allclose(got["covariance_matrix"], want.cov, **CLOSE)


def test_a_plate_of_normal_inverse_gamma_pairs():
    group = np.array([0, 0, 1, 1, 1, 0])
    y = rng.normal(size=6)

    @pp.model
    def groups():
        with pp.plate("group", 2):
            v = pp.sample("v", dist.InverseGamma(2.0, 1.0))
            mu = pp.sample("mu", dist.Normal(0.0, 2 * np.sqrt(v)))
        with pp.plate("i", 6):
            pp.sample("y", dist.Normal(mu[group], np.sqrt(v[group])))

    found = solved(groups(), y=y)
    want = sum(
        stats.multivariate_t(np.zeros(3), 0.5 * (np.eye(3) + 4.0), df=4).logpdf(y[group == g])
        for g in (0, 1)
    )
    np.testing.assert_allclose(found.log_evidence, want, **CLOSE)
    n = 3
    mean = np.array([y[group == g].sum() for g in (0, 1)]) / (n + 0.25)
    np.testing.assert_allclose(parameters(found, "mu")["loc"], mean, **CLOSE)


@pytest.mark.parametrize("inverse", [False, True])
def test_normal_wishart(inverse):
    y = rng.normal(size=(5, 2)) @ np.array([[1.0, 0.3], [0.0, 0.5]])
    psi, nu, k = np.array([[2.0, 0.4], [0.4, 1.0]]), 4.5, 0.5

    @pp.model
    def cloud():
        if inverse:
            matrix = pp.sample("matrix", dist.InverseWishart(nu, scale_matrix=psi))
            mu = pp.sample("mu", dist.MultivariateNormal(np.zeros(2), matrix / k))
            with pp.plate("i", 5):
                pp.sample("y", dist.MultivariateNormal(mu, matrix))
        else:
            matrix = pp.sample("matrix", dist.Wishart(nu, rate_matrix=psi))
            mu = pp.sample("mu", dist.MultivariateNormal(np.zeros(2), precision_matrix=k * matrix))
            with pp.plate("i", 5):
                pp.sample("y", dist.MultivariateNormal(mu, precision_matrix=matrix))

    found = solved(cloud(), y=y)
    # One observation after another: y_i is Student-t given those before it.
    want, m, kn, nun, psin = 0.0, np.zeros(2), k, nu, psi
    for row in y:
        df = nun - 1
        want += stats.multivariate_t(m, psin * (kn + 1) / (kn * df), df=df).logpdf(row)
        psin = psin + kn / (kn + 1) * np.outer(row - m, row - m)
        m, kn, nun = (kn * m + row) / (kn + 1), kn + 1, nun + 1
    np.testing.assert_allclose(found.log_evidence, want, **CLOSE)
    got = parameters(found, "matrix")
    np.testing.assert_allclose(got["concentration"], nun, **CLOSE)
    np.testing.assert_allclose(got["scale_matrix" if inverse else "rate_matrix"], psin, **CLOSE)
    np.testing.assert_allclose(parameters(found, "mu")["loc"], m, **CLOSE)
    draws = found.sample(jax.random.key(0), 20000)
    for site in ("mu", "matrix"):
        with precision.scope("float64"):
            mean = np.asarray(found.marginal(site).mean)
        error = draws[site].std(0) / np.sqrt(20000)
        assert (np.abs(draws[site].mean(0) - mean) < 5 * error).all()


def test_draws_of_a_regression_are_student():
    """Kolmogorov–Smirnov at level 1e-4 a coefficient."""
    solution = solved(regression(X, 3.0), y=Y)
    drawn = solution.sample(jax.random.key(5), 4000)
    got = parameters(solution, "beta")
    for j in range(3):
        law = stats.t(
            got["df"], got["loc"][j], np.sqrt((got["scale_tril"] @ got["scale_tril"].T)[j, j])
        )
        assert stats.kstest(drawn["beta"][:, j], law.cdf).pvalue > 1e-4
    np.testing.assert_allclose(drawn["line"], drawn["beta"] @ X.T, rtol=1e-9)


def test_the_exact_engine_uses_it():
    fit = regression(X, 3.0).observe(y=Y).infer("exact", seed=1)
    assert fit.solution.solver == "conjugate"
    assert fit.posterior["beta"].shape[-1] == 3
