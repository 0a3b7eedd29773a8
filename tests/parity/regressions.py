"""Regressions and hierarchies: plates, nested plates, indexing, observed counts and labels."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import scipy.special
from jax.scipy.special import gammaln
from numpyro import sample

import ppcore as pp
from ppcore import dist

from .case import Case

rng = np.random.default_rng(20240601)
X = rng.normal(size=(25, 3))
GROUP = rng.integers(0, 4, 25)
Y = rng.normal(size=25)


def eight_schools() -> Case:
    sigma = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])

    def ours(sigma):
        mu = pp.sample("mu", dist.Normal(0, 5))
        tau = pp.sample("tau", dist.HalfCauchy(5))
        with pp.plate("school", len(sigma)):
            eta = pp.sample("eta", dist.Normal(0, 1))
            theta = pp.deterministic("theta", mu + tau * eta)
            pp.sample("y", dist.Normal(theta, sigma))

    def theirs(sigma, y=None):
        mu = sample("mu", nd.Normal(0, 5))
        tau = sample("tau", nd.HalfCauchy(5))
        with numpyro.plate("school", 8):
            eta = sample("eta", nd.Normal(0, 1))
            theta = numpyro.deterministic("theta", mu + tau * eta)
            sample("y", nd.Normal(theta, sigma), obs=y)

    return Case("eight_schools", ours, theirs, (sigma,), {"y": y})


def varying_intercepts() -> Case:
    def ours(floor, county, counties):
        mu = pp.sample("mu", dist.Normal(0, 5))
        tau = pp.sample("tau", dist.HalfNormal(1))
        slope = pp.sample("slope", dist.Normal(0, 2))
        sigma = pp.sample("sigma", dist.Exponential(1))
        with pp.plate("county", counties):
            alpha = pp.sample("alpha", dist.Normal(mu, tau))
        with pp.plate("home", len(floor)):
            pp.sample("y", dist.Normal(alpha[county] + slope * floor, sigma))

    def theirs(floor, county, counties, y=None):
        mu = sample("mu", nd.Normal(0, 5))
        tau = sample("tau", nd.HalfNormal(1))
        slope = sample("slope", nd.Normal(0, 2))
        sigma = sample("sigma", nd.Exponential(1))
        with numpyro.plate("county", counties):
            alpha = sample("alpha", nd.Normal(mu, tau))
        with numpyro.plate("home", len(floor)):
            sample("y", nd.Normal(alpha[county] + slope * floor, sigma), obs=y)

    return Case("varying_intercepts", ours, theirs, (X[:, 0], GROUP, 4), {"y": Y})


def nested_plates() -> Case:
    y = rng.normal(size=(3, 5))

    def ours():
        scale = pp.sample("scale", dist.Gamma(2, 3))
        with pp.plate("inner", 5):
            a = pp.sample("a", dist.Normal(0, scale))
            with pp.plate("outer", 3):
                b = pp.sample("b", dist.Laplace(a, 1))
                pp.sample("y", dist.Normal(b + a, 0.5))

    def theirs(y=None):
        scale = sample("scale", nd.Gamma(2, 3))
        with numpyro.plate("inner", 5):
            a = sample("a", nd.Normal(0, scale))
            with numpyro.plate("outer", 3):
                b = sample("b", nd.Laplace(a, 1))
                sample("y", nd.Normal(b + a, 0.5), obs=y)

    return Case("nested_plates", ours, theirs, (), {"y": y})


def explicit_axes() -> Case:
    y = rng.normal(size=(3, 1, 5))

    def ours():
        with pp.plate("row", 3, axis=-3):
            a = pp.sample("a", dist.Normal(0, 1))
            with pp.plate("column", 5, axis=-1):
                b = pp.sample("b", dist.StudentT(4, a, 2))
        with pp.plate("column again", 5, axis=-1):
            c = pp.sample("c", dist.Logistic(0, 1))
            with pp.plate("row again", 3, axis=-3):
                pp.sample("y", dist.Normal(a + b * c, 1))

    def theirs(y=None):
        with numpyro.plate("row", 3, dim=-3):
            a = sample("a", nd.Normal(0, 1))
            with numpyro.plate("column", 5, dim=-1):
                b = sample("b", nd.StudentT(4, a, 2))
        with numpyro.plate("column again", 5, dim=-1):
            c = sample("c", nd.Logistic(0, 1))
            with numpyro.plate("row again", 3, dim=-3):
                sample("y", nd.Normal(a + b * c, 1), obs=y)

    return Case("explicit_axes", ours, theirs, (), {"y": y})


def item_response() -> Case:
    student, item = np.divmod(np.arange(24), 4)
    y = rng.integers(0, 2, 24)

    def ours(student, item):
        mu = pp.sample("mu", dist.Normal(0.75, 1))
        with pp.plate("student", 6):
            ability = pp.sample("ability", dist.Normal(mu, 1))
        spread = pp.sample("spread", dist.HalfNormal(2))
        with pp.plate("item", 4):
            difficulty = pp.sample("difficulty", dist.Normal(0, spread))
            gain = pp.sample("gain", dist.LogNormal(0.5, 1))
        with pp.plate("answer", len(student)):
            logits = gain[item] * (ability[student] - difficulty[item])
            pp.sample("y", dist.Bernoulli(logits=logits))

    def theirs(student, item, y=None):
        mu = sample("mu", nd.Normal(0.75, 1))
        with numpyro.plate("student", 6):
            ability = sample("ability", nd.Normal(mu, 1))
        spread = sample("spread", nd.HalfNormal(2))
        with numpyro.plate("item", 4):
            difficulty = sample("difficulty", nd.Normal(0, spread))
            gain = sample("gain", nd.LogNormal(0.5, 1))
        with numpyro.plate("answer", 24):
            logits = gain[item] * (ability[student] - difficulty[item])
            sample("y", nd.Bernoulli(logits=logits), obs=y)

    return Case("item_response", ours, theirs, (student, item), {"y": y})


def horseshoe() -> Case:
    y = (Y > 0).astype(int)

    def ours(X):
        d = X.shape[1]
        tau = pp.sample("tau", dist.HalfCauchy(1))
        lam = pp.sample("lam", dist.HalfCauchy(1).expand([d]).to_event(1))
        z = pp.sample("z", dist.Normal(np.zeros(d), 1).to_event(1))
        intercept = pp.sample("intercept", dist.Cauchy(0, 2.5))
        beta = pp.deterministic("beta", tau * lam * z)
        pp.sample("y", dist.Bernoulli(probs=scipy.special.expit(intercept + X @ beta)))

    def theirs(X, y=None):
        d = X.shape[1]
        tau = sample("tau", nd.HalfCauchy(1))
        lam = sample("lam", nd.HalfCauchy(1).expand([d]).to_event(1))
        z = sample("z", nd.Normal(jnp.zeros(d), 1).to_event(1))
        intercept = sample("intercept", nd.Cauchy(0, 2.5))
        beta = numpyro.deterministic("beta", tau * lam * z)
        logits = intercept + X @ beta
        sample("y", nd.Bernoulli(probs=1 / (1 + jnp.exp(-logits))), obs=y)

    return Case("horseshoe", ours, theirs, (X,), {"y": y})


def robust_regression() -> Case:
    def ours(X):
        nu = pp.sample("nu", dist.Gamma(2, 0.1))
        sigma = pp.sample("sigma", dist.InverseGamma(3, 2))
        alpha = pp.sample("alpha", dist.Laplace(0, 10))
        beta = pp.sample("beta", dist.Normal(0, 1).expand((3,)))
        pp.sample("y", dist.StudentT(nu, alpha + (X * beta).sum(axis=1), sigma))

    def theirs(X, y=None):
        nu = sample("nu", nd.Gamma(2, 0.1))
        sigma = sample("sigma", nd.InverseGamma(3, 2))
        alpha = sample("alpha", nd.Laplace(0, 10))
        beta = sample("beta", nd.Normal(0, 1).expand((3,)))
        sample("y", nd.StudentT(nu, alpha + (X * beta).sum(axis=1), sigma), obs=y)

    return Case("robust_regression", ours, theirs, (X,), {"y": Y})


def count_regression() -> Case:
    y = rng.poisson(3.0, 25)
    exposure = rng.uniform(0.5, 2, 25)

    def ours(X, exposure):
        beta = pp.sample("beta", dist.Normal(0, 0.3).expand([3]).to_event(1))
        phi = pp.sample("phi", dist.Exponential(0.5))
        mean = np.exp(X @ beta + np.log(exposure))
        pp.sample("y", dist.NegativeBinomial2(mean, phi))
        pp.sample("again", dist.GammaPoisson(phi, phi / mean))

    def theirs(X, exposure, y=None, again=None):
        beta = sample("beta", nd.Normal(0, 0.3).expand([3]).to_event(1))
        phi = sample("phi", nd.Exponential(0.5))
        mean = jnp.exp(X @ beta + jnp.log(exposure))
        sample("y", nd.NegativeBinomial2(mean, phi), obs=y)
        sample("again", nd.GammaPoisson(phi, phi / mean), obs=again)

    return Case("count_regression", ours, theirs, (X, exposure), {"y": y, "again": y[::-1]})


def overdispersed_trials() -> Case:
    total = rng.integers(5, 20, 25)
    y = rng.binomial(total, 0.4)

    def ours(total, x):
        kappa = pp.sample("kappa", dist.Pareto(1.0, 1.5))
        p = pp.sample("p", dist.Beta(2, 3))
        slope = pp.sample("slope", dist.Normal(0, 0.5))
        q = scipy.special.expit(scipy.special.logit(p) + slope * x)
        pp.sample("y", dist.BetaBinomial(q * kappa, (1 - q) * kappa, total))
        pp.sample("plain", dist.Binomial(total, logits=slope * x))

    def theirs(total, x, y=None, plain=None):
        kappa = sample("kappa", nd.Pareto(1.0, 1.5))
        p = sample("p", nd.Beta(2, 3))
        slope = sample("slope", nd.Normal(0, 0.5))
        eta = jnp.log(p) - jnp.log1p(-p) + slope * x
        q = 1 / (1 + jnp.exp(-eta))
        a, b = q * kappa, (1 - q) * kappa
        if y is None:
            sample("y", nd.BetaBinomial(a, b, total))
        else:  # JAX's betaln, which NumPyro's density uses, is right to six digits only
            log_choose = gammaln(total + 1) - gammaln(y + 1) - gammaln(total - y + 1)
            up = gammaln(a + y) + gammaln(b + total - y) - gammaln(kappa + total)
            down = gammaln(a) + gammaln(b) - gammaln(kappa)
            numpyro.factor("y", log_choose + up - down)
        sample("plain", nd.Binomial(total, logits=slope * x), obs=plain)

    return Case("overdispersed_trials", ours, theirs, (total, X[:, 1]), {"y": y, "plain": y})


def ordinal() -> Case:
    y = rng.integers(0, 4, 25)

    def ours(X):
        cut = pp.sample(
            "cut", dist.ImproperUniform(dist.constraints.ordered_vector, (), event_shape=(3,))
        )
        beta = pp.sample("beta", dist.Normal(0, 1).expand([3]).to_event(1))
        pp.sample("y", dist.OrderedLogistic(X @ beta, cut))

    def theirs(X, y=None):
        cut = sample("cut", nd.ImproperUniform(nd.constraints.ordered_vector, (), event_shape=(3,)))
        beta = sample("beta", nd.Normal(0, 1).expand([3]).to_event(1))
        sample("y", nd.OrderedLogistic(X @ beta, cut), obs=y)

    return Case("ordinal", ours, theirs, (X,), {"y": y}, simulates=False)


def ordered_cutpoints() -> Case:
    y = rng.integers(0, 3, 25)

    def ours(x):
        base = dist.Normal(0, 2).expand([2]).to_event(1)
        cut = pp.sample(
            "cut", dist.TransformedDistribution(base, dist.transforms.OrderedTransform())
        )
        slope = pp.sample("slope", dist.Normal(0, 1))
        pp.sample("y", dist.OrderedLogistic(slope * x, cut))

    def theirs(x, y=None):
        base = nd.Normal(0, 2).expand([2]).to_event(1)
        cut = sample("cut", nd.TransformedDistribution(base, nd.transforms.OrderedTransform()))
        slope = sample("slope", nd.Normal(0, 1))
        sample("y", nd.OrderedLogistic(slope * x, cut), obs=y)

    return Case("ordered_cutpoints", ours, theirs, (X[:, 2],), {"y": y})


def zero_inflated() -> Case:
    y = np.where(rng.random(25) < 0.4, 0, rng.poisson(4, 25))

    def ours(x):
        gate = pp.sample("gate", dist.Beta(1, 1))
        a = pp.sample("a", dist.Normal(1, 0.5))
        rate = np.exp(a + 0.1 * x)
        phi = pp.sample("phi", dist.Gamma(3, 1))
        pp.sample("y", dist.ZeroInflatedPoisson(gate, rate))
        pp.sample("nb", dist.ZeroInflatedNegativeBinomial2(rate, phi, gate=gate))
        geometric = dist.Geometric(probs=1 / (1 + rate))
        pp.sample("general", dist.ZeroInflatedDistribution(geometric, gate_logits=a - x))

    def theirs(x, y=None, nb=None, general=None):
        gate = sample("gate", nd.Beta(1, 1))
        a = sample("a", nd.Normal(1, 0.5))
        rate = jnp.exp(a + 0.1 * x)
        phi = sample("phi", nd.Gamma(3, 1))
        sample("y", nd.ZeroInflatedPoisson(gate, rate), obs=y)
        if nb is None:
            sample("nb", nd.ZeroInflatedNegativeBinomial2(rate, phi, gate=gate))
        else:  # JAX's betaln, which NumPyro's density uses, is right to six digits only
            ways = gammaln(phi + nb) - gammaln(phi) - gammaln(nb + 1)
            plain = ways - phi * jnp.log1p(rate / phi) - nb * jnp.log1p(phi / rate)
            zero = jnp.log(gate + (1 - gate) * jnp.exp(plain))
            numpyro.factor("nb", jnp.where(nb == 0, zero, jnp.log1p(-gate) + plain))
        geometric = nd.Geometric(probs=1 / (1 + rate))
        sample("general", nd.ZeroInflatedDistribution(geometric, gate_logits=a - x), obs=general)

    observed = {"y": y, "nb": y[::-1], "general": y}
    return Case("zero_inflated", ours, theirs, (X[:, 0],), observed)


def multinomial_logit() -> Case:
    y = rng.integers(0, 3, 25)
    counts = rng.multinomial(12, [0.2, 0.3, 0.5], size=4)

    def ours(X, group):
        beta = pp.sample("beta", dist.Normal(0, 1).expand([3, 2]).to_event(2))
        with pp.plate("group", 4):
            bias = pp.sample("bias", dist.Dirichlet([1.0, 2.0, 3.0]))
            pp.sample("counts", dist.Multinomial(12, probs=bias))
        logits = np.concatenate([X @ beta, np.zeros((25, 1))], axis=-1)
        pp.sample("y", dist.Categorical(logits=logits + np.log(bias)[group]))

    def theirs(X, group, counts=None, y=None):
        beta = sample("beta", nd.Normal(0, 1).expand([3, 2]).to_event(2))
        with numpyro.plate("group", 4):
            bias = sample("bias", nd.Dirichlet(jnp.array([1.0, 2.0, 3.0])))
            sample("counts", nd.Multinomial(12, probs=bias), obs=counts)
        logits = jnp.concatenate([X @ beta, jnp.zeros((25, 1))], axis=-1)
        sample("y", nd.Categorical(logits=logits + jnp.log(bias)[group]), obs=y)

    observed = {"counts": counts, "y": y}
    return Case("multinomial_logit", ours, theirs, (X, GROUP), observed)


CASES = (
    eight_schools, varying_intercepts, nested_plates, explicit_axes, item_response, horseshoe,
    robust_regression, count_regression, overdispersed_trials, ordinal, ordered_cutpoints,
    zero_inflated, multinomial_logit,
)  # fmt: skip
