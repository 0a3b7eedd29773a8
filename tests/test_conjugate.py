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


def test_draws_follow_the_named_posteriors():
    """Kolmogorov–Smirnov at level 1e-4 a site."""
    cases = [(site, solved(ONE[site][0], **ONE[site][1])) for site in ONE]
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


def test_a_flat_vector_in_a_matrix_product_is_refused():
    @pp.model
    def regression(x):
        beta = pp.sample("beta", dist.ImproperUniform(dist.constraints.real, (), (3,)))
        pp.sample("y", dist.Normal(x @ beta, 1.0))

    with pytest.raises(NotExact, match="matmul"):
        solved(regression(rng.normal(size=(5, 3))), y=np.zeros(5))
