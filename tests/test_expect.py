"""Expectations of a fit: each method against a closed form, its error, and what it refuses."""

from __future__ import annotations

import warnings
from functools import lru_cache

import numpy as np
import pytest
from small import fitted, posterior

import ppcore as pp
from ppcore import dist
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.estimators.control_variates import control_variates
from ppcore.estimators.plain import plain_mean
from ppcore.estimators.rao_blackwell import rao_blackwell
from ppcore.estimators.weighted import weighted_mean
from ppcore.report import SamplingWarning

SIGMAS = 4.5


@pp.model
def conjugate():
    mu = pp.sample("mu", dist.Normal(0, 5))
    v = pp.sample("v", dist.InverseGamma(3, 2))
    p = pp.sample("p", dist.Beta(2, 2))
    rate = pp.sample("rate", dist.Gamma(2, 1))
    w = pp.sample("w", dist.Dirichlet(np.ones(3)))
    tau = pp.sample("tau", dist.HalfCauchy(1))
    theta = pp.sample("theta", dist.Normal(0, 1 + tau))
    with pp.plate("i", 8):
        pp.sample("y", dist.Normal(mu, np.sqrt(v)))
    with pp.plate("j", 5):
        pp.sample("b", dist.Bernoulli(p))
        pp.sample("c", dist.Poisson(rate))
        pp.sample("k", dist.Categorical(w))
    pp.sample("t", dist.Normal(theta, 1))


DATA = {
    "y": np.array([1.0, 0.2, 1.4, 0.7, 2.2, 0.1, 1.1, 0.9]),
    "b": np.array([1, 1, 0, 1, 0]),
    "c": np.array([3, 1, 2, 4, 0]),
    "k": np.array([0, 2, 2, 1, 2]),
    "t": 0.4,
}


@lru_cache
def draws():
    """Draws that need not follow the posterior for a conditional mean to be right."""
    rng = np.random.default_rng(0)
    shape = (2, 50)
    return {
        "mu": rng.normal(1, 0.5, shape),
        "v": rng.uniform(0.5, 2, shape),
        "p": rng.uniform(0.2, 0.8, shape),
        "rate": rng.uniform(0.5, 3, shape),
        "w": rng.dirichlet(np.ones(3), shape),
        "tau": rng.uniform(0.1, 2, shape),
        "theta": rng.normal(size=shape),
    }


def gaussian(chains=4, n=500, d=3, seed=0):
    """Independent draws of N(m, I) with their scores."""
    rng = np.random.default_rng(seed)
    m = np.arange(d) * 1.0
    x = m + rng.normal(size=(chains, n, d))
    return x, -(x - m), m


# -- control variates ----------------------------------------------------------------------------


def test_polynomials_of_a_gaussian_have_no_variance_left() -> None:
    """Means are in the span of order 1, second moments of order 2: exact up to rounding."""
    x, score, m = gaussian()
    first = control_variates(x, x, score, order=1)
    np.testing.assert_allclose(first.value, m, atol=1e-10)
    second = control_variates(x[..., :1] * x[..., 1:2], x, score, order=2)
    np.testing.assert_allclose(second.value, [m[0] * m[1]], atol=1e-9)
    assert (second.variance_reduction > 1e12).all() and second.about["order"] == "2"


def test_one_regression_serves_all_integrands() -> None:
    x, score, _ = gaussian()
    f = np.stack([np.exp(0.3 * x[..., 0]), np.sin(x[..., 1])], axis=-1)
    together = control_variates(f, x, score)
    apart = [control_variates(f[..., i : i + 1], x, score).value[0] for i in range(2)]
    np.testing.assert_allclose(together.value, apart, atol=1e-12)
    assert abs(together.value[0] - np.exp(0.045)) < SIGMAS * together.mcse[0]
    assert (together.variance_reduction > 3).all()


def test_errors_are_honest_over_repetitions() -> None:
    """Over 200 repetitions on exp(x/2) the stated error is that of the values, and they have no
    bias: coefficients are fitted on other chains than those they serve."""
    off, said = [], []
    for seed in range(200):
        x, score, _ = gaussian(4, 100, 1, seed)
        found = control_variates(np.exp(0.5 * x), x, score)
        off.append(found.value[0] - np.exp(0.125))
        said.append(found.mcse[0])
    assert abs(np.mean(off)) < SIGMAS * np.std(off) / np.sqrt(200)
    # A standard deviation of 200 numbers with moderate tails is known to about 8 %.
    assert np.sqrt(np.mean(np.square(said))) == pytest.approx(np.std(off), rel=0.3)


def test_too_few_draws_for_the_features() -> None:
    x, score, _ = gaussian(2, 10, 12)
    with pytest.raises(SettingsError, match="12 coordinates need more than 10"):
        control_variates(x, x, score)
    with pytest.raises(SettingsError, match="order=2 makes 90"):
        control_variates(x, x, score, order=2)
    with pytest.raises(SettingsError, match="must be 1 or 2"):
        control_variates(x, x, score, order=3)


# -- conditional means ---------------------------------------------------------------------------


def test_conditional_means_are_those_of_the_conjugate_laws() -> None:
    model, d = conjugate().observe(**DATA), draws()
    n = len(DATA["y"])
    precision = 1 / 25 + n / d["v"]
    mu = (DATA["y"].sum() / d["v"]) / precision
    off = np.sum((DATA["y"] - d["mu"][..., None]) ** 2, axis=-1)
    want = {
        "mu": mu.mean(),
        "v": ((2 + 0.5 * off) / (3 + n / 2 - 1)).mean(),
        "p": (2 + 3) / (4 + 5),
        "w": np.array([2, 2, 4]) / 8,
    }
    for site, family in (("mu", "Gaussian"), ("v", "InverseGamma"), ("w", "Dirichlet")):
        found = rao_blackwell(model, site, d)
        np.testing.assert_allclose(found.value, want[site], rtol=1e-7, err_msg=site)
        assert found.about["family"] == family
    found = rao_blackwell(model, "p", d)
    assert float(found) == pytest.approx(want["p"], rel=1e-7)
    assert float(found.mcse) < 1e-9


def test_a_conditional_without_a_name_is_refused_with_the_box() -> None:
    with pytest.raises(UnsupportedError, match="does not give the conditional of site 'tau'"):
        rao_blackwell(conjugate().observe(**DATA), "tau", draws())
    with pytest.raises(UnsupportedError, match="no latent site"):
        rao_blackwell(conjugate().observe(**DATA), "y", draws())


# -- weights -------------------------------------------------------------------------------------


def test_weighted_means_and_their_errors() -> None:
    """A wider proposal, normal target: the error is right over 60 repetitions, k̂ is low."""
    z, k = [], []
    for seed in range(60):
        x = 1.5 * np.random.default_rng(seed).normal(size=400)
        log_w = -0.5 * x**2 + 0.5 * (x / 1.5) ** 2
        found = weighted_mean((x**2)[:, None], log_w)
        z.append((found.value[0] - 1) / found.mcse[0])
        k.append(found.about["k_hat"])
    assert abs(np.mean(z)) < SIGMAS / np.sqrt(60) and 0.6 < np.std(z) < 1.5
    assert np.median(k) < 0.5


def test_heavy_weights_have_a_high_k_hat() -> None:
    x = 0.3 * np.random.default_rng(0).normal(size=2000)
    found = weighted_mean(x[:, None], -0.5 * x**2 + 0.5 * (x / 0.3) ** 2)
    assert found.about["k_hat"] > 0.7
    assert weighted_mean(x[:, None], np.zeros(2000), smooth=False).value[0] == pytest.approx(
        x.mean()
    )


# -- the plain mean ------------------------------------------------------------------------------


def test_errors_know_that_draws_are_correlated() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4, 2000))
    x = np.zeros((4, 2000))
    for t in range(1, 2000):
        x[:, t] = 0.9 * x[:, t - 1] + noise[:, t]
    found = plain_mean(x[..., None])
    naive = x.std() / np.sqrt(x.size)
    assert 3 < found.mcse[0] / naive < 6  # √((1 + .9)/(1 − .9)) = 4.4
    assert plain_mean(np.ones((2, 10, 1))).mcse[0] == 0


# -- fits ----------------------------------------------------------------------------------------


def test_a_fit_takes_names_functions_and_methods() -> None:
    fit = fitted()
    mean = fit.expect("slope", "mean")
    assert float(mean) == pytest.approx(fit.draws("slope").mean())
    better = fit.expect("slope")
    assert float(better.variance_reduction) >= 1
    assert abs(float(better) - float(mean)) < SIGMAS * float(mean.mcse)
    both = fit.expect(lambda s: [s["slope"], s["slope"] ** 2])
    assert both.value.shape == (2,) and both.value[1] > both.value[0] ** 2
    plain = fit.expect(lambda s: float(np.log(np.asarray(s["scale"]))), "mean")
    assert float(plain) == pytest.approx(np.log(fit.draws("scale")).mean())
    assert fit.expect("mean", "mean").value.shape == (4,)
    assert "variance ratio" in str(better)


def test_gibbs_conditionals_of_a_fit() -> None:
    found = fitted().expect("slope", "rao_blackwell")
    assert found.about["family"] == "Gaussian"
    assert abs(float(found) - float(fitted().expect("slope"))) < SIGMAS * float(found.mcse) + 0.02


def test_a_weighted_fit_uses_its_weights() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        fit = posterior().infer("importance", draws=2000, chains=2, seed=1, progress="off")
    found = fit.expect("slope")
    assert found.method == "psis" and found.about["k_hat"] < 0.7
    assert abs(float(found) - float(fitted().expect("slope"))) < SIGMAS * 2 * float(found.mcse)


def test_bad_requests_say_what_to_do(tmp_path) -> None:
    fit = fitted()
    with pytest.raises(SettingsError, match="Did you mean 'slope'"):
        fit.expect("slop")
    with pytest.raises(SettingsError, match="Did you mean 'mean'"):
        fit.expect("slope", "meen")
    with pytest.raises(SettingsError, match="No site 'sigma'"):
        fit.expect(lambda s: s["sigma"])
    with pytest.raises(SettingsError, match="function of one draw"):
        fit.expect(3)
    with pytest.raises(SettingsError, match="not finite"):
        fit.expect(lambda s: s["scale"] / 0.0)
    with pytest.raises(SettingsError, match="order= belongs"):
        fit.expect("slope", order=2)
    with pytest.raises(UnsupportedError, match="equally weighted"):
        fit.expect("slope", "psis")
    with pytest.raises(SettingsError, match="takes the name of a site"):
        fit.expect(lambda s: s["slope"], "rao_blackwell")
    loaded = pp.load(fit.save(tmp_path / "fit.zarr"))
    assert loaded.expect("slope").method == "mean"
    with pytest.raises(UnsupportedError, match="Pass model="):
        loaded.expect("slope", "control_variates")
    again = loaded.expect("slope", "control_variates", model=posterior())
    assert float(again) == pytest.approx(float(fit.expect("slope", "control_variates")), abs=1e-8)
