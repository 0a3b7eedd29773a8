"""Matrices, simplices, mixtures, truncation, and the long list of univariate distributions."""

from __future__ import annotations

import jax.numpy as jnp
import jax.scipy.special as jsp
import numpy as np
import numpyro
import numpyro.distributions as nd
import scipy.special
from jax.nn import logsumexp
from numpyro import sample

import ppcore as pp
from ppcore import dist

from .case import Case

rng = np.random.default_rng(20240602)
T = np.linspace(0, 2, 12)
Y = rng.normal(size=12)


def varying_slopes() -> Case:
    group = rng.integers(0, 5, 12)

    def ours(x, group):
        mu = pp.sample("mu", dist.Normal(0, 2).expand([2]).to_event(1))
        tau = pp.sample("tau", dist.HalfNormal(1).expand([2]).to_event(1))
        chol = pp.sample("chol", dist.LKJCholesky(2, concentration=2.0))
        with pp.plate("group", 5):
            b = pp.sample("b", dist.MultivariateNormal(mu, scale_tril=tau[:, None] * chol))
        pp.sample("y", dist.Normal(b[group, 0] + b[group, 1] * x, 1))

    def theirs(x, group, y=None):
        mu = sample("mu", nd.Normal(0, 2).expand([2]).to_event(1))
        tau = sample("tau", nd.HalfNormal(1).expand([2]).to_event(1))
        chol = sample("chol", nd.LKJCholesky(2, concentration=2.0))
        with numpyro.plate("group", 5):
            b = sample("b", nd.MultivariateNormal(mu, scale_tril=tau[:, None] * chol))
        sample("y", nd.Normal(b[group, 0] + b[group, 1] * x, 1), obs=y)

    return Case("varying_slopes", ours, theirs, (T, group), {"y": Y})


def gaussian_process() -> Case:
    def ours(t):
        rho = pp.sample("rho", dist.InverseGamma(5, 5))
        alpha = pp.sample("alpha", dist.HalfNormal(1))
        sigma = pp.sample("sigma", dist.HalfNormal(1))
        gap = np.subtract.outer(t, t)
        cov = alpha**2 * np.exp(-0.5 * (gap / rho) ** 2) + sigma**2 * np.eye(len(t))
        pp.sample("y", dist.MultivariateNormal(np.zeros(len(t)), covariance_matrix=cov))

    def theirs(t, y=None):
        rho = sample("rho", nd.InverseGamma(5, 5))
        alpha = sample("alpha", nd.HalfNormal(1))
        sigma = sample("sigma", nd.HalfNormal(1))
        gap = t[:, None] - t
        cov = alpha**2 * jnp.exp(-0.5 * (gap / rho) ** 2) + sigma**2 * jnp.eye(12)
        sample("y", nd.MultivariateNormal(jnp.zeros(12), covariance_matrix=cov), obs=y)

    return Case("gaussian_process", ours, theirs, (T,), {"y": Y})


def latent_process() -> Case:
    y = rng.poisson(2.0, 12)

    def ours(t):
        rho = pp.sample("rho", dist.LogNormal(0, 0.3))
        eta = pp.sample("eta", dist.Normal(0, 1).expand([len(t)]))
        cov = np.exp(-np.abs(t[:, None] - t[None, :]) / rho) + 1e-6 * np.eye(len(t))
        f = pp.deterministic("f", np.linalg.cholesky(cov) @ eta)
        pp.sample("y", dist.Poisson(np.exp(0.5 * f)))

    def theirs(t, y=None):
        rho = sample("rho", nd.LogNormal(0, 0.3))
        eta = sample("eta", nd.Normal(0, 1).expand([12]))
        cov = jnp.exp(-jnp.abs(t[:, None] - t) / rho) + 1e-6 * jnp.eye(12)
        f = numpyro.deterministic("f", jnp.linalg.cholesky(cov) @ eta)
        sample("y", nd.Poisson(jnp.exp(0.5 * f)), obs=y)

    return Case("latent_process", ours, theirs, (T,), {"y": y})


def covariance_priors() -> Case:
    y = rng.normal(size=(6, 3))

    def ours():
        precision = pp.sample("precision", dist.Wishart(6.0, scale_matrix=np.eye(3)))
        chol = pp.sample("chol", dist.InverseWishartCholesky(7.0, scale_matrix=2 * np.eye(3)))
        corr = pp.sample("corr", dist.LKJ(3, concentration=1.5))
        loc = pp.sample("loc", dist.MultivariateStudentT(5.0, np.zeros(3), np.eye(3)))
        with pp.plate("row", 6):
            pp.sample("y", dist.MultivariateNormal(loc, precision_matrix=precision))
            pp.sample("z", dist.MultivariateNormal(loc, scale_tril=chol))
            pp.sample("u", dist.MultivariateNormal(covariance_matrix=corr))

    def theirs(y=None, z=None, u=None):
        precision = sample("precision", nd.Wishart(6.0, scale_matrix=jnp.eye(3)))
        chol = sample("chol", nd.InverseWishartCholesky(7.0, scale_matrix=2 * jnp.eye(3)))
        corr = sample("corr", nd.LKJ(3, concentration=1.5))
        loc = sample("loc", nd.MultivariateStudentT(5.0, jnp.zeros(3), jnp.eye(3)))
        with numpyro.plate("row", 6):
            sample("y", nd.MultivariateNormal(loc, precision_matrix=precision), obs=y)
            sample("z", nd.MultivariateNormal(loc, scale_tril=chol), obs=z)
            sample("u", nd.MultivariateNormal(covariance_matrix=corr), obs=u)

    return Case("covariance_priors", ours, theirs, (), {"y": y, "z": y[::-1], "u": y})


def low_rank() -> Case:
    edges = np.array([[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]])

    def ours(edges):
        factor = pp.sample("factor", dist.Normal(0, 1).expand([4, 2]).to_event(2))
        diagonal = pp.sample("diagonal", dist.Gamma(2, 1).expand([4]).to_event(1))
        pp.sample("low", dist.LowRankMultivariateNormal(np.zeros(4), factor, diagonal))
        zero = pp.sample("zero", dist.ZeroSumNormal(1.5, event_shape=(4,)))
        rho = pp.sample("rho", dist.Uniform(0.1, 0.9))
        pp.sample("car", dist.CAR(zero, rho, 2.0, edges))

    def theirs(edges, low=None, car=None):
        factor = sample("factor", nd.Normal(0, 1).expand([4, 2]).to_event(2))
        diagonal = sample("diagonal", nd.Gamma(2, 1).expand([4]).to_event(1))
        sample("low", nd.LowRankMultivariateNormal(jnp.zeros(4), factor, diagonal), obs=low)
        zero = sample("zero", nd.ZeroSumNormal(1.5, event_shape=(4,)))
        rho = sample("rho", nd.Uniform(0.1, 0.9))
        sample("car", nd.CAR(zero, rho, 2.0, edges), obs=car)

    return Case("low_rank", ours, theirs, (edges,), {"low": Y[:4], "car": Y[4:8]})


def gaussian_mixture() -> Case:
    def ours():
        weights = pp.sample("weights", dist.Dirichlet(np.ones(3)))
        mu = pp.sample(
            "mu", dist.ImproperUniform(dist.constraints.ordered_vector, (), event_shape=(3,))
        )
        pp.factor("prior", -0.5 * (mu**2).sum() / 9)
        sigma = pp.sample("sigma", dist.HalfNormal(1).expand([3]).to_event(1))
        parts = dist.Normal(mu, sigma)
        with pp.plate("i", 12):
            pp.sample("y", dist.MixtureSameFamily(dist.Categorical(probs=weights), parts))

    def theirs(y=None):
        weights = sample("weights", nd.Dirichlet(jnp.ones(3)))
        mu = sample("mu", nd.ImproperUniform(nd.constraints.ordered_vector, (), event_shape=(3,)))
        numpyro.factor("prior", -0.5 * (mu**2).sum() / 9)
        sigma = sample("sigma", nd.HalfNormal(1).expand([3]).to_event(1))
        parts = nd.Normal(mu, sigma)
        with numpyro.plate("i", 12):
            sample("y", nd.MixtureSameFamily(nd.Categorical(probs=weights), parts), obs=y)

    return Case("gaussian_mixture", ours, theirs, (), {"y": Y}, simulates=False)


def general_mixture() -> Case:
    def ours():
        w = pp.sample("w", dist.Beta(2, 2))
        nu = pp.sample("nu", dist.Gamma(4, 1))
        a = pp.sample("a", dist.Normal(0, 1))
        mixing = dist.Categorical(probs=np.stack([w, 1 - w]))
        parts = [dist.Normal(a, 1), dist.StudentT(nu, 0, 2)]
        with pp.plate("i", 12):
            pp.sample("y", dist.MixtureGeneral(mixing, parts))

    def theirs(y=None):
        w = sample("w", nd.Beta(2, 2))
        nu = sample("nu", nd.Gamma(4, 1))
        a = sample("a", nd.Normal(0, 1))
        mixing = nd.Categorical(probs=jnp.stack([w, 1 - w]))
        parts = [nd.Normal(a, 1), nd.StudentT(nu, 0, 2)]
        with numpyro.plate("i", 12):
            sample("y", nd.MixtureGeneral(mixing, parts), obs=y)

    return Case("general_mixture", ours, theirs, (), {"y": Y})


def truncated() -> Case:
    def ours(y_low):
        low = pp.sample("low", dist.Uniform(-3, -2))
        mu = pp.sample("mu", dist.TruncatedNormal(0.5, 2, low=-1, high=4))
        scale = pp.sample("scale", dist.LeftTruncatedDistribution(dist.Cauchy(0, 1), low=0.1))
        right = pp.sample("right", dist.TruncatedDistribution(dist.Logistic(mu, 1), high=3.0))
        pp.sample("tail", dist.TruncatedCauchy(right, scale, low=low))
        with pp.plate("i", 12):
            pp.sample("y", dist.TruncatedNormal(mu, scale, low=low))

    def theirs(y_low, y=None):
        low = sample("low", nd.Uniform(-3, -2))
        mu = sample("mu", nd.TruncatedNormal(0.5, 2, low=-1, high=4))
        scale = sample("scale", nd.LeftTruncatedDistribution(nd.Cauchy(0, 1), low=0.1))
        right = sample("right", nd.TruncatedDistribution(nd.Logistic(mu, 1), high=3.0))
        sample("tail", nd.TruncatedCauchy(right, scale, low=low))
        with numpyro.plate("i", 12):
            sample("y", nd.TruncatedNormal(mu, scale, low=low), obs=y)

    return Case("truncated", ours, theirs, (-2.0,), {"y": np.clip(Y, -1.9, None)})


UNIVARIATE = (
    ("AsymmetricLaplace", (0.0, 1.0, 2.0)),
    ("Cauchy", (0.0, 2.0)),
    ("Chi2", (3.0,)),
    ("Exponential", (2.0,)),
    ("Gompertz", (1.0, 0.5)),
    ("Gumbel", (0.0, 1.0)),
    ("HalfCauchy", (2.0,)),
    ("InverseGamma", (3.0, 1.0)),
    ("Kumaraswamy", (2.0, 3.0)),
    ("Laplace", (1.0, 2.0)),
    ("Levy", (0.0, 1.0)),
    ("LogNormal", (0.0, 0.5)),
    ("LogUniform", (0.5, 3.0)),
    ("Logistic", (0.0, 1.0)),
    ("Pareto", (1.0, 3.0)),
    ("SoftLaplace", (0.0, 1.0)),
    ("StudentT", (5.0, 0.0, 1.0)),
    ("Uniform", (-1.0, 3.0)),
    ("VonMises", (0.5, 2.0)),
    ("Weibull", (2.0, 1.5)),
    ("BetaProportion", (0.4, 6.0)),
)


def univariate() -> Case:
    def ours():
        for name, parameters in UNIVARIATE:
            pp.sample(name, getattr(dist, name)(*parameters))

    def theirs():
        for name, parameters in UNIVARIATE:
            sample(name, getattr(nd, name)(*parameters))

    return Case("univariate", ours, theirs)


def counts() -> Case:
    made = {
        "bernoulli": ("Bernoulli", {"logits": 0.3}, 1),
        "categorical": ("Categorical", {"logits": np.array([0.1, 0.3, -1.0])}, 2),
        "uniform": ("DiscreteUniform", {"low": 2, "high": 6}, 5),
        "geometric": ("Geometric", {"logits": -0.5}, 3),
        "nb": ("NegativeBinomialProbs", {"total_count": 5, "probs": 0.4}, 2),
        "dm": (
            "DirichletMultinomial",
            {"concentration": np.array([1.0, 2.0, 0.5]), "total_count": 9},
            np.array([2, 4, 3]),
        ),
    }
    observed = {name: value for name, (_, _, value) in made.items()} | {"y": 3}

    def ours():
        rate = pp.sample("rate", dist.Gamma(2, 1))
        for name, (kind, keywords, _) in made.items():
            pp.sample(name, getattr(dist, kind)(**keywords))
        pp.sample("y", dist.Poisson(rate))

    def theirs(y=None, **given):
        rate = sample("rate", nd.Gamma(2, 1))
        for name, (kind, keywords, _) in made.items():
            sample(name, getattr(nd, kind)(**keywords), obs=given.get(name))
        sample("y", nd.Poisson(rate), obs=y)

    return Case("counts", ours, theirs, (), observed)


def directions() -> Case:
    y = rng.uniform(-3, 3, 12)

    def ours():
        mean = pp.sample("mean", dist.VonMises(0.5, 1.0))
        kappa = pp.sample("kappa", dist.HalfNormal(3))
        pp.sample("y", dist.VonMises(mean, kappa).expand([12]).to_event(1))

    def theirs(y=None):
        mean = sample("mean", nd.VonMises(0.5, 1.0))
        kappa = sample("kappa", nd.HalfNormal(3))
        sample("y", nd.VonMises(mean, kappa).expand([12]).to_event(1), obs=y)

    return Case("directions", ours, theirs, (), {"y": y})


def survival() -> Case:
    time = rng.weibull(1.5, 12) * 2 + 0.1
    dead = rng.random(12) < 0.6

    def ours(time, dead, x):
        shape = pp.sample("shape", dist.Gamma(4, 2))
        b = pp.sample("b", dist.Laplace(0, 1))
        scale = np.exp(b * x)
        z = (time / scale) ** shape
        hazard = np.log(shape) - np.log(scale) + (shape - 1) * np.log(time / scale)
        pp.factor("censored", np.where(dead, hazard, 0.0) - z)
        pp.deterministic("median", scale * np.log(2) ** (1 / shape))

    def theirs(time, dead, x):
        shape = sample("shape", nd.Gamma(4, 2))
        b = sample("b", nd.Laplace(0, 1))
        scale = jnp.exp(b * x)
        density = nd.Weibull(scale, shape)
        log_survival = -((time / scale) ** shape)
        log_likelihood = jnp.where(dead, density.log_prob(time), log_survival)
        numpyro.factor("censored", log_likelihood)
        numpyro.deterministic("median", scale * jnp.log(2) ** (1 / shape))

    return Case("survival", ours, theirs, (time, dead, T))


def linear_algebra() -> Case:
    def ours(A):
        v = pp.sample("v", dist.Normal(0, 1).expand([4, 4]).to_event(2))
        S = v @ v.T + np.eye(4)
        sign, logdet = np.linalg.slogdet(S)
        values, _ = np.linalg.eigh(S)
        quadratic = np.einsum("i,ij,j->", A[0], np.linalg.inv(S), A[0])
        solved = np.linalg.solve(S, A).trace() + np.linalg.norm(S - A)
        pp.factor("f", sign * logdet - 0.1 * values.sum() - quadratic - solved)
        pp.factor("g", -np.outer(v[0], v[1]).max() - np.trace(np.kron(v, S)) / 50)

    def theirs(A):
        v = sample("v", nd.Normal(0, 1).expand([4, 4]).to_event(2))
        S = v @ v.T + jnp.eye(4)
        sign, logdet = jnp.linalg.slogdet(S)
        values, _ = jnp.linalg.eigh(S)
        quadratic = A[0] @ jnp.linalg.inv(S) @ A[0]
        solved = jnp.linalg.solve(S, A).trace() + jnp.sqrt(((S - A) ** 2).sum())
        numpyro.factor("f", sign * logdet - 0.1 * values.sum() - quadratic - solved)
        numpyro.factor("g", -jnp.outer(v[0], v[1]).max() - jnp.trace(jnp.kron(v, S)) / 50)

    return Case("linear_algebra", ours, theirs, (rng.normal(size=(4, 4)),))


def special_functions() -> Case:
    def ours(t):
        x = pp.sample("x", dist.Normal(t, 1))
        p = scipy.special.expit(x)
        total = scipy.special.gammaln(1 + np.exp(x)) + scipy.special.erf(x)
        total = total + scipy.special.log_ndtr(x) + scipy.special.xlogy(p, p)
        total = total + scipy.special.ndtri(0.1 + 0.8 * p) + scipy.special.betaln(1 + p, 2.0)
        pp.factor("f", -total - pp.math.logsumexp(x) + pp.math.log_softmax(x)[0])
        pp.factor("g", -pp.math.softplus(x) * scipy.special.digamma(1 + p))

    def theirs(t):
        x = sample("x", nd.Normal(t, 1))
        p = jsp.expit(x)
        total = jsp.gammaln(1 + jnp.exp(x)) + jsp.erf(x)
        total = total + jsp.log_ndtr(x) + p * jnp.log(p)
        beta = jsp.gammaln(1 + p) + jsp.gammaln(2.0) - jsp.gammaln(3 + p)
        total = total + jsp.ndtri(0.1 + 0.8 * p) + beta
        numpyro.factor("f", -total - logsumexp(x) + x[0] - logsumexp(x))
        numpyro.factor("g", -jnp.logaddexp(x, 0) * jsp.digamma(1 + p))

    return Case("special_functions", ours, theirs, (T,))


CASES = (
    varying_slopes, gaussian_process, latent_process, covariance_priors, low_rank,
    gaussian_mixture, general_mixture, truncated, univariate, counts, directions, survival,
    linear_algebra, special_functions,
)  # fmt: skip
