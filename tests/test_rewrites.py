"""Rewrites keep posterior and evidence; what they integrate out returns from its conditional."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rewritten import applied, rewritten, same_density, same_joint
from scipy import stats

import ppcore as pp
from ppcore import dist, precision
from ppcore.rewrite.collapse import Collapse
from ppcore.rewrite.collapse_conjugate import CollapseConjugate
from ppcore.rewrite.protocol import NotApplicable, Problem
from ppcore.rewrite.sufficient_statistics import SufficientStatistics

RNG = np.random.default_rng(7)
FLAT = dist.ImproperUniform(dist.constraints.real, (), ())


@pp.model
def homes(county, floor, x, counties):
    mu = pp.sample("mu", dist.Normal(0, 5))
    tau = pp.sample("tau", dist.HalfNormal(1))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    slope = pp.sample("slope", FLAT)
    beta = pp.sample("beta", dist.Normal(0.5, 2).expand([x.shape[1]]))
    with pp.plate("county", counties):
        z = pp.sample("z", dist.Normal(0, 1))
        alpha = pp.deterministic("alpha", mu + tau * z)
    with pp.plate("home", len(floor)):
        pp.sample("y", dist.Normal(alpha[county] + slope * floor + x @ beta - 1.0, 2.0 * sigma))


def homes_posterior(n: int = 240, counties: int = 40) -> Any:
    county = RNG.integers(0, counties - 1, n)  # the last county has no home
    x = RNG.normal(size=(n, 2)) + 50.0
    model = homes(county, RNG.integers(0, 2, n).astype(float), x, counties)
    return model.observe(y=RNG.normal(size=n) + 3.0)


@pp.model
def slopes(group, x, groups):
    mu = pp.sample("mu", dist.Normal(0, 5))
    tau = pp.sample("tau", dist.HalfCauchy(5).expand([2]))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    shape = pp.sample("shape", dist.Gamma(2, 1))
    with pp.plate("group", groups):
        a = pp.sample("a", dist.Normal(mu, tau[0]))
        b = pp.sample("b", dist.Normal(0.3 * a, tau[1]))
    pp.sample("y", dist.Normal(a[group] + b[group] * x, sigma))
    pp.sample("w", dist.Normal(b * shape, 0.5).to_event(1))
    pp.sample("v", dist.LogNormal(mu, sigma))


def slopes_posterior() -> Any:
    group = RNG.integers(0, 34, 150)
    model = slopes(group, RNG.normal(size=150), 34)
    return model.observe(y=RNG.normal(size=150), w=RNG.normal(size=34), v=1.3)


@pp.model
def line(x, scale):
    beta = pp.sample("beta", dist.Normal(0, 3).expand([x.shape[1]]))
    sigma = pp.sample("sigma", dist.HalfNormal(2))
    mean = pp.sample("intercept", dist.StudentT(3, 0, 5)) + np.sum(x * beta, axis=-1)
    pp.sample("y", dist.Normal(mean, sigma * scale))
    pp.sample("income", dist.LogNormal(x @ beta, 0.7))


def line_posterior(n: int, p: int) -> Any:
    x = RNG.normal(size=(n, p))
    model = line(x, RNG.uniform(0.5, 2, n))
    return model.observe(y=RNG.normal(size=n) + 100.0, income=RNG.lognormal(size=n))


@pp.model
def table(rows, columns):
    mu = pp.sample("mu", dist.Normal(0, 1))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    tau = pp.sample("tau", dist.HalfNormal(1))
    with pp.plate("row", rows, axis=-2):
        a = pp.sample("a", dist.Normal(mu, tau))
    with pp.plate("column", columns, axis=-1):
        b = pp.sample("b", dist.Normal(0, tau))
    with pp.plate("row", rows, axis=-2), pp.plate("column", columns, axis=-1):
        pp.sample("y", dist.Normal(a + b, sigma))


def table_posterior() -> Any:
    return table(7, 9).observe(y=RNG.normal(size=(7, 9)))


@pp.model
def process(x):
    rho = pp.sample("rho", dist.Gamma(5, 1))
    k = np.exp(-0.5 * (np.subtract.outer(x, x) / rho) ** 2) + 1e-6 * np.eye(len(x))
    f = pp.sample("f", dist.MultivariateNormal(np.zeros(len(x)), covariance_matrix=k))
    pp.sample("y", dist.Normal(f, 0.3))


def process_posterior() -> Any:
    return process(np.linspace(0, 5, 6)).observe(y=RNG.normal(size=6))


@pp.model
def effects(group, groups):
    tau = pp.sample("tau", dist.HalfNormal(1))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    with pp.plate("group", groups):
        a = pp.sample("a", dist.Normal(0, tau))
    pp.sample("y", dist.Normal(a[group], sigma))


def effects_posterior() -> Any:
    rng = np.random.default_rng(8)
    return effects(rng.integers(0, 40, 90), 40).observe(y=rng.normal(size=90))


@pp.model
def two_lines(x):
    mu = pp.sample("mu", dist.StudentT(3, 0, 1))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    beta = pp.sample("beta", dist.Normal(0, 1).expand([x.shape[1]]))
    pp.sample("w", dist.Normal(mu * np.ones(len(x)), sigma))
    pp.sample("y", dist.Normal(x @ beta, sigma))


def two_lines_posterior() -> Any:
    # Nothing is left of y, so that no scale tells how its rows compare with the prior's.
    x = np.stack([np.ones(9), np.arange(9.0)], 1)
    return two_lines(x).observe(w=np.random.default_rng(8).normal(size=9), y=np.zeros(9))


SUFFICIENT = {
    "groups": homes_posterior,
    "varying slopes": slopes_posterior,
    "scaled line": lambda: line_posterior(60, 4),
}
COLLAPSED = {
    "groups": (homes_posterior, True),
    "varying slopes": (slopes_posterior, True),
    "varying slopes of all observations": (slopes_posterior, False),
    "scaled line": (lambda: line_posterior(60, 4), True),
    "fewer statistics than coefficients": (table_posterior, True),
    "more columns than rows": (lambda: line_posterior(5, 12), False),
    "gaussian process": (process_posterior, False),
    "groups alone": (effects_posterior, True),
    "a line without residuals": (two_lines_posterior, True),
}


@pytest.mark.parametrize("name", SUFFICIENT)
def test_statistics_keep_the_density(name: str) -> None:
    before, after, found = rewritten(SUFFICIENT[name](), SufficientStatistics())
    assert applied(found) == ("sufficient_statistics",)
    assert same_density(before, after) < 1e-11
    assert sum(np.size(d) for d in after.data) < sum(np.size(d) for d in before.inputs)


@pytest.mark.parametrize("name", COLLAPSED)
def test_collapse_keeps_the_joint(name: str) -> None:
    make, statistics = COLLAPSED[name]
    first = (SufficientStatistics(),) if statistics else ()
    before, after, found = rewritten(make(), *first, Collapse())
    assert "collapse" in applied(found)
    assert after.dim < before.dim
    assert same_joint(before, after, found.recoveries[-1]) < 1e-9


def test_what_is_left_is_few_scales() -> None:
    _, after, _ = rewritten(homes_posterior(), SufficientStatistics(), Collapse())
    assert after.latents == ("tau", "sigma")
    _, after, _ = rewritten(slopes_posterior(), SufficientStatistics(), Collapse())
    assert after.latents == ("tau", "sigma", "shape")


def test_gradients_are_those_of_the_marginal() -> None:
    _, after, _ = rewritten(line_posterior(60, 5), SufficientStatistics(), Collapse())
    x = jnp.asarray([0.3, -0.2])
    with precision.scope("float64"):
        got = np.asarray(jax.jit(jax.grad(after.log_density))(x))
        ends = x + 1e-5 * np.concatenate([np.eye(2), -np.eye(2)])
        f = np.asarray(jax.jit(jax.vmap(after.log_density))(ends))
    want = (f[:2] - f[2:]) / 2e-5
    assert np.allclose(got, want, rtol=1e-6)


def test_new_data_compile_nothing() -> None:
    found = []
    for seed in (0, 1):
        rng = np.random.default_rng(seed)
        x = rng.normal(size=(50, 3))
        model = line(x, np.ones(50)).observe(y=rng.normal(size=50), income=np.ones(50))
        found.append(rewritten(model, SufficientStatistics(), Collapse())[1])
    one, two = (jax.tree.structure(t) for t in found)
    assert one == two
    assert hash(found[0].joint) == hash(found[1].joint)


def test_a_nearly_collinear_design_keeps_its_digits() -> None:
    # Years far from zero: the intercept and the slope have correlation −.99999.
    year = np.arange(3952.0, 4014.0)
    y = 9.0 + 0.02 * (year - 3980) + RNG.normal(size=len(year))

    @pp.model
    def trend(x):
        alpha = pp.sample("alpha", FLAT)
        beta = pp.sample("beta", FLAT)
        sigma = pp.sample("sigma", dist.HalfNormal(5))
        pp.sample("y", dist.Normal(alpha + beta * x, sigma))

    _, after, _ = rewritten(trend(year).observe(y=y), SufficientStatistics(), Collapse())
    # With flat coefficients: ∫∫ N(y; Xb, s² I) db = N-constant · |XᵀX|^{-1/2} exp(−RSS / 2s²).
    design = np.stack([np.ones_like(year), year - year.mean()], 1)
    residual = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
    log_scales = np.array([-1.0, 0.0, 2.0])
    with precision.scope("float64"):
        found = jax.jit(jax.vmap(after.log_density))(log_scales[:, None])
    for log_s, got in zip(log_scales, np.asarray(found), strict=True):
        s, n = np.exp(log_s), len(y) - 2
        want = -0.5 * residual @ residual / s**2 - n * np.log(s) - 0.5 * n * np.log(2 * np.pi)
        want -= 0.5 * np.linalg.slogdet(design.T @ design)[1]
        want += stats.halfnorm(scale=5).logpdf(s) + log_s
        assert abs(got - want) < 1e-9 * abs(want)


@pp.model
def counts(group, trials, exposure):
    a = pp.sample("a", dist.Gamma(2, 1))
    b = pp.sample("b", dist.HalfNormal(3))
    with pp.plate("J", 6):
        p = pp.sample("p", dist.Beta(a, b))
        rate = pp.sample("rate", dist.Gamma(a, 2.0 * b))
        theta = pp.sample("theta", dist.Dirichlet(np.ones(3) * a))
        pp.sample("z", dist.Bernoulli(p))
        pp.sample("k", dist.Poisson(rate * exposure))
    pp.sample("y", dist.Binomial(trials, p[group]))
    pp.sample("t", dist.Exponential(2 * rate[group]))
    pp.sample("c", dist.Categorical(theta[group]))


GROUP, EXPOSURE = RNG.integers(0, 6, 20), RNG.uniform(1, 2, 6)
SEEN = {
    "y": RNG.integers(0, 6, 20),
    "k": RNG.integers(0, 6, 6),
    "t": RNG.exponential(size=20),
    "c": RNG.integers(0, 3, 20),
    "z": RNG.integers(0, 2, 6),
}


def conjugate_laws(a: float, b: float) -> dict[str, Any]:
    """The textbook posteriors of the sites of ``counts`` given a and b."""
    tries = np.bincount(GROUP, minlength=6)
    hits = np.bincount(GROUP, SEEN["y"], 6) + SEEN["z"]
    speed = 2 * b + EXPOSURE + 2 * np.bincount(GROUP, SEEN["t"], 6)
    shares = [np.bincount(SEEN["c"][GROUP == j], minlength=3) for j in range(6)]
    return {
        "p": stats.beta(a + hits, b + 5 * tries + 1 - hits),
        "rate": stats.gamma(a + SEEN["k"] + tries, scale=1 / speed),
        "theta": [stats.dirichlet(a + n) for n in shares],
    }


@jax.jit
def _restored(before: Any, after: Any, back: Any, keys: Any, x: Any) -> Any:
    full = jax.vmap(back, (0, None))(keys, x)
    joint = jax.vmap(lambda v: before.log_density(v) - before.log_jacobian(v))(full)
    marginal = after.log_density(x) - after.log_jacobian(x)
    return jax.vmap(before.constrain)(full), joint, marginal


def test_conjugate_sites_keep_the_joint_and_return_from_their_laws() -> None:
    model = counts(GROUP, np.full(20, 5), EXPOSURE).observe(SEEN)
    before, after, found = rewritten(model, CollapseConjugate())
    assert after.latents == ("a", "b")
    n, (back,) = 2000, found.recoveries
    with precision.scope("float64"):
        keys = jax.random.split(jax.random.key(3), n)
        x = np.array([0.4, -0.3])
        made = jax.tree.map(np.asarray, _restored(before, after, back, keys, x))
    values, joint, marginal = made
    laws = conjugate_laws(values["a"][0], values["b"][0])
    for i in range(3):
        conditional = sum(laws[s].logpdf(values[s][i]).sum() for s in ("p", "rate"))
        conditional += sum(
            law.logpdf(v) for law, v in zip(laws["theta"], values["theta"][i], strict=True)
        )
        assert abs(joint[i] - conditional - marginal) < 1e-9 * abs(joint[i])
    # 12 + 18 means of 2,000 draws: |z| > 4.8 has probability 5e-5 under the law.
    for site in ("p", "rate"):
        z = (values[site].mean(0) - laws[site].mean()) / (laws[site].std() / np.sqrt(n))
        assert np.abs(z).max() < 4.8
    mean = np.stack([law.mean() for law in laws["theta"]])
    sd = np.sqrt(np.stack([law.var() for law in laws["theta"]]))
    assert np.abs((values["theta"].mean(0) - mean) / (sd / np.sqrt(n))).max() < 4.8


@pp.model
def nonlinear(x):
    rate = pp.sample("rate", dist.Normal(0, 1))
    curve = pp.sample("curve", dist.Normal(0, 1))
    pp.sample("y", dist.Normal(np.exp(rate) * curve * x, 1.0))
    pp.sample("k", dist.Poisson(np.exp(rate)))


def test_what_is_not_linear_stays() -> None:
    model = nonlinear(np.arange(5.0)).observe(y=np.ones(5), k=2)
    before, after, found = rewritten(model, Collapse())
    assert after.latents == ("rate",)
    assert same_joint(before, after, found.recoveries[0]) < 1e-9


def test_reasons_name_the_site() -> None:
    @pp.model
    def coin():
        p = pp.sample("p", dist.Beta(1, 1))
        pp.sample("heads", dist.Binomial(10, p))

    with precision.scope("float64"):
        problem = Problem.of(coin().observe(heads=3).target())
        for one in (SufficientStatistics(), Collapse()):
            made = one.apply(problem)
            assert isinstance(made, NotApplicable)
        assert "'heads'" in SufficientStatistics().apply(problem).reason  # type: ignore[union-attr]


def test_gamma_variables_made_of_normals_are_gamma() -> None:
    """Kolmogorov's test of each shape; the four together err once in a thousand."""
    from scipy import stats

    from ppcore.rewrite.gamma_noise import EACH, log_gamma

    z = np.random.default_rng(1).standard_normal((4, 20_000 * EACH))
    with precision.scope("float64"):
        for alpha, row in zip((0.05, 0.5, 2.0, 50.0), z, strict=True):
            drawn = np.asarray(log_gamma(np.full(20_000, alpha), row))
            assert stats.kstest(drawn, stats.loggamma(alpha).cdf).pvalue > 1e-3 / 4
