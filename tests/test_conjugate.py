"""Conjugate pairs: posteriors and evidence in closed form, to 1e-10."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.special import betaln, gammaln

import ppcore as pp
from ppcore import dist, precision
from ppcore.exact import NotExact

rng = np.random.default_rng(4)
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def solved(model, **evidence):
    return model.observe(**evidence).solve(["conjugate"])


def parameters(solution, site):
    return dict(solution.marginal(site).distribution.arguments)


def log_density_given(model, site, evidence):
    """θ ↦ log p(θ) p(evidence | θ), of the declared model."""
    target = model.observe(**evidence, **{site: np.ones(model.spaces[site].shape)}).target()
    at = target.observed.index(site)

    def value(theta):
        from dataclasses import replace

        values = list(target.evidence)
        values[at] = np.full(np.shape(values[at]), theta)
        with precision.scope("float64"):
            return float(replace(target, evidence=tuple(values)).log_density(np.zeros(0)))

    return value


@pp.model
def proportions(n, r):
    p = pp.sample("p", dist.Beta(2.0, 3.5))
    with pp.plate("i", 4):
        pp.sample("bernoulli", dist.Bernoulli(p))
        pp.sample("geometric", dist.Geometric(p))
        pp.sample("binomial", dist.Binomial(n, p))
        pp.sample("negative", dist.NegativeBinomialProbs(r, p))


@pp.model
def rates(exposure):
    rate = pp.sample("rate", dist.Gamma(2.0, 1.5))
    with pp.plate("i", 3):
        pp.sample("poisson", dist.Poisson(exposure * rate))
        pp.sample("exponential", dist.Exponential(rate / 2))
        pp.sample("gamma", dist.Gamma(2.5, 3 * rate))


@pp.model
def scales():
    v = pp.sample("v", dist.InverseGamma(3.0, 2.0))
    with pp.plate("i", 3):
        pp.sample("normal", dist.Normal(0.5, 2 * np.sqrt(v)))
        pp.sample("exponential", dist.Exponential(1 / v))
        pp.sample("gamma", dist.Gamma(1.5, 2 / v))


@pp.model
def precisions():
    t = pp.sample("t", dist.Gamma(3.0, 2.0))
    with pp.plate("i", 3):
        pp.sample("y", dist.Normal(0.5, 1 / np.sqrt(t)))


ONE = {
    "p": (
        proportions(np.array([3, 5, 2, 9]), 2.5),
        {
            "bernoulli": [1, 0, 0, 1],
            "geometric": [2, 0, 1, 4],
            "binomial": [1, 2, 2, 4],
            "negative": [3, 0, 1, 2],
        },
        1.0,
    ),
    "rate": (
        rates(np.array([1.0, 2.0, 0.5])),
        {"poisson": [2, 3, 0], "exponential": [0.3, 1.2, 0.7], "gamma": [0.5, 1.0, 0.2]},
        20.0,
    ),
    "v": (
        scales(),
        {"normal": [0.2, 1.5, -0.7], "exponential": [0.4, 1.0, 2.0], "gamma": [0.3, 0.8, 1.1]},
        np.inf,
    ),
    "t": (precisions(), {"y": [0.2, 1.5, -0.7]}, 40.0),
}


@pytest.mark.parametrize("site", ONE)
def test_the_evidence_is_the_integral_over_the_parameter(site):
    model, evidence, top = ONE[site]
    solution = solved(model, **evidence)
    log = log_density_given(model, site, evidence)
    shift = solution.log_evidence
    mass = integrate.quad(
        lambda x: np.exp(log(x) - shift), 1e-12, top, epsabs=1e-11, epsrel=1e-11, limit=200
    )[0]
    assert mass == pytest.approx(1.0, abs=2e-10)
    # p(θ | y) from Bayes' rule at a point, against the named posterior.
    with precision.scope("float64"):
        posterior = solution.marginal(site).build()
        for x in (0.2, 0.45, 0.8):
            assert float(posterior.log_prob(x)) == pytest.approx(log(x) - shift, abs=1e-9)


@pytest.mark.parametrize("site", ONE)
def test_updating_one_site_after_another_is_updating_with_all(site):
    model, evidence, _ = ONE[site]
    whole = solved(model, **evidence)
    total, seen = 0.0, {}
    for name, value in evidence.items():
        before = solved(model, **seen).log_evidence if seen else 0.0
        seen[name] = value
        total += solved(model, **seen).log_evidence - before
    np.testing.assert_allclose(total, whole.log_evidence, **CLOSE)


def test_a_plate_of_parameters_each_with_its_own_data():
    group = np.array([0, 2, 2, 1, 0, 2])
    y = np.array([1, 0, 1, 1, 1, 0])
    exposure = np.array([1.0, 2.0, 0.5, 1.0, 3.0, 1.5])
    k = np.array([2, 1, 0, 3, 4, 2])

    @pp.model
    def groups():
        with pp.plate("group", 3):
            p = pp.sample("p", dist.Beta(np.array([1.0, 2.0, 3.0]), 2.0))
            rate = pp.sample("rate", dist.Gamma(2.0, 1.0))
        with pp.plate("i", 6):
            pp.sample("y", dist.Bernoulli(p[group]))
            pp.sample("k", dist.Poisson(exposure * rate[group]))

    found = solved(groups(), y=y, k=k)
    s = np.bincount(group, y, 3)
    n = np.bincount(group, minlength=3)
    a, b = np.array([1.0, 2.0, 3.0]) + s, 2.0 + n - s
    np.testing.assert_allclose(parameters(found, "p")["concentration1"], a, **CLOSE)
    np.testing.assert_allclose(parameters(found, "p")["concentration0"], b, **CLOSE)
    ka, kb = 2 + np.bincount(group, k, 3), 1 + np.bincount(group, exposure, 3)
    np.testing.assert_allclose(parameters(found, "rate")["rate"], kb, **CLOSE)
    log = (betaln(a, b) - betaln([1.0, 2.0, 3.0], 2.0)).sum()
    log += (gammaln(ka) - ka * np.log(kb) - gammaln(2.0)).sum()
    log += (k * np.log(exposure) - gammaln(k + 1)).sum()
    np.testing.assert_allclose(found.log_evidence, log, **CLOSE)


def test_dirichlet_with_labels_and_counts_in_a_plate():
    row = np.array([0, 1, 1, 0, 1])
    labels, counts = np.array([2, 0, 1, 2, 1]), np.array([[3, 1, 0], [2, 2, 5]])
    alpha = np.array([[1.0, 0.5, 2.0], [3.0, 1.0, 1.0]])

    @pp.model
    def bags():
        with pp.plate("bag", 2):
            pi = pp.sample("pi", dist.Dirichlet(alpha))
            pp.sample("counts", dist.Multinomial(total_count=counts.sum(1), probs=pi))
        with pp.plate("i", 5):
            pp.sample("label", dist.Categorical(pi[row]))

    found = solved(bags(), counts=counts, label=labels)
    new = alpha + counts
    np.add.at(new, (row, labels), 1)
    np.testing.assert_allclose(parameters(found, "pi")["concentration"], new, **CLOSE)

    def log_b(a):
        return (gammaln(a).sum(-1) - gammaln(a.sum(-1))).sum()

    h = (gammaln(counts.sum(-1) + 1) - gammaln(counts + 1).sum(-1)).sum()
    np.testing.assert_allclose(found.log_evidence, h + log_b(new) - log_b(alpha), **CLOSE)


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


def test_draws_follow_the_named_posteriors():
    """Kolmogorov–Smirnov at level 1e-4 a site."""
    cases = [(site, solved(ONE[site][0], **ONE[site][1])) for site in ONE]
    cases.append(("v", solved(regression(X, 3.0), y=Y)))
    for site, solution in cases:
        draws = solution.sample(jax.random.key(3), 4000)[site]
        arguments = parameters(solution, site)
        law = {
            "p": lambda a: stats.beta(a["concentration1"], a["concentration0"]),
            "rate": lambda a: stats.gamma(a["concentration"], scale=1 / a["rate"]),
            "t": lambda a: stats.gamma(a["concentration"], scale=1 / a["rate"]),
            "v": lambda a: stats.invgamma(a["concentration"], scale=a["rate"]),
        }[site](arguments)
        assert stats.kstest(draws, law.cdf).pvalue > 1e-4
    drawn = solution.sample(jax.random.key(5), 4000)
    got = parameters(solution, "beta")
    for j in range(3):
        law = stats.t(
            got["df"], got["loc"][j], np.sqrt((got["scale_tril"] @ got["scale_tril"].T)[j, j])
        )
        assert stats.kstest(drawn["beta"][:, j], law.cdf).pvalue > 1e-4
    np.testing.assert_allclose(drawn["line"], drawn["beta"] @ X.T, rtol=1e-9)


def test_masked_observations_do_not_count():
    seen = np.array([True, False, True, True])

    @pp.model
    def partly(mask):
        p = pp.sample("p", dist.Beta(1.0, 1.0))
        v = pp.sample("v", dist.InverseGamma(2.0, 1.0))
        with pp.plate("i", 4):
            pp.sample("k", dist.Bernoulli(p).mask(mask))
            pp.sample("y", dist.Normal(0.0, np.sqrt(v)).mask(mask))

    y, k = rng.normal(size=4), np.array([1, 1, 0, 1])
    found = solved(partly(seen), k=k, y=y)
    assert parameters(found, "p")["concentration1"] == 3
    np.testing.assert_allclose(parameters(found, "v")["rate"], 1 + 0.5 * (y[seen] ** 2).sum())


def test_it_names_the_box_in_the_way():
    @pp.model
    def half_normal():
        s = pp.sample("s", dist.HalfNormal(1.0))
        pp.sample("y", dist.Normal(0.0, s))

    @pp.model
    def logistic():
        b = pp.sample("b", dist.Normal(0.0, 1.0))
        pp.sample("y", dist.Bernoulli(1 / (1 + np.exp(-b))))

    @pp.model
    def hierarchy():
        a = pp.sample("a", dist.Gamma(1.0, 1.0))
        p = pp.sample("p", dist.Beta(a, 1.0))
        pp.sample("y", dist.Bernoulli(p))

    @pp.model
    def independent():
        v = pp.sample("v", dist.InverseGamma(2.0, 1.0))
        mu = pp.sample("mu", dist.Normal(0.0, 1.0))
        pp.sample("y", dist.Normal(mu, np.sqrt(v)))

    @pp.model
    def squared():
        rate = pp.sample("rate", dist.Gamma(2.0, 1.0))
        pp.sample("y", dist.Poisson(rate**2))

    for model, value, box, why in (
        (half_normal(), 0.3, "s", "InverseGamma"),
        (logistic(), 1, "exp", "affine"),
        (hierarchy(), 1, "p", "depends on other random"),
        (independent(), 0.3, "v", "different unknown scales"),
        (squared(), 2, "y", "power 2"),
    ):
        with pytest.raises(NotExact, match=why) as error:
            solved(model, y=value)
        assert box in error.value.box, error.value


def test_the_exact_engine_uses_it():
    fit = regression(X, 3.0).observe(y=Y).infer("exact", seed=1)
    assert fit.solution.solver == "conjugate"
    assert fit.posterior["beta"].shape[-1] == 3
