"""Gathered rows, sums of squares and turned designs keep the density."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from rewritten import applied, rewritten, same_density

import ppcore as pp
from ppcore import dist, precision
from ppcore.rewrite.orthogonalise import Orthogonalise
from ppcore.rewrite.repeated_rows import RepeatedRows
from ppcore.rewrite.residuals import Residuals
from ppcore.rewrite.row_statistics import sigma_points, summed

RNG = np.random.default_rng(11)
N = 120
GROUP, X = RNG.integers(0, 4, N), RNG.integers(0, 2, (N, 2)).astype(float)


@pp.model
def families(group, x, trials):
    a = pp.sample("a", dist.Normal(0, 1).expand([4]))
    b = pp.sample("b", dist.Normal(0, 1).expand([2]))
    c = pp.sample("c", dist.Gamma(2, 1))
    d = pp.sample("d", dist.Gamma(2, 1))
    eta = a[group] + x @ b
    pp.sample("coin", dist.Bernoulli(logits=eta))
    pp.sample("count", dist.Poisson(np.exp(eta)))
    pp.sample("wins", dist.Binomial(trials, logits=eta))
    pp.sample("gamma", dist.Gamma(c, d * np.exp(a[group])))
    pp.sample("wait", dist.Exponential(np.exp(a[group])))
    pp.sample("over", dist.NegativeBinomial2(np.exp(eta), c))
    rows = pp.sample("rows", dist.Normal(0, 1).expand([4, 3]))
    pp.sample("row kind", dist.Categorical(logits=rows[group]))
    pp.sample("normal", dist.Normal(np.tanh(eta), c * np.exp(a[group])))
    with pp.plate("row", N):
        pp.sample("share", dist.Beta(c, d))
        pp.sample("size", dist.HalfNormal(c))
        pp.sample("kind", dist.Categorical(logits=a))
        pp.sample("inverse", dist.InverseGamma(c, d))
    covariance = c * np.eye(2) + d
    pp.sample("pair", dist.MultivariateNormal(b, covariance_matrix=covariance).expand([N]))


SEEN = {
    "coin": RNG.integers(0, 2, N),
    "count": RNG.integers(0, 5, N),
    "wins": RNG.integers(0, 7, N),
    "gamma": RNG.gamma(2, size=N),
    "wait": RNG.exponential(size=N),
    "over": RNG.integers(0, 3, N),
    "normal": RNG.normal(size=N),
    "share": RNG.beta(2, 3, size=N),
    "size": np.abs(RNG.normal(size=N)),
    "row kind": RNG.integers(0, 3, N),
    "kind": RNG.integers(0, 4, N),
    "inverse": 1 / RNG.gamma(3, size=N),
    "pair": RNG.normal(size=(N, 2)),
}


def test_gathered_rows_keep_the_density() -> None:
    model = families(GROUP, X, np.full(N, 7)).observe(SEEN)
    before, after, found = rewritten(model, RepeatedRows())
    assert applied(found) == ("repeated_rows",)
    for site in SEEN:
        assert f"{site}: {N} observations became" in found.log[0][2]
    assert same_density(before, after) < 1e-11


@pytest.mark.parametrize("family", ("Gamma", "InverseGamma", "Beta", "Normal"))
def test_three_values_have_the_sums_of_all(family: str) -> None:
    y = RNG.beta(2, 3, size=200)
    group = RNG.integers(0, 5, 200)
    made = summed(family, y, (np.arange(5), group))
    assert made is not None
    _, values, weights, _ = made
    of = np.repeat(np.arange(5), 3)
    pairs = {
        "Gamma": (lambda v: v, np.log),
        "InverseGamma": (lambda v: 1 / v, np.log),
        "Beta": (np.log, lambda v: np.log1p(-v)),
        "Normal": (lambda v: v, np.square),
    }
    for t in (np.ones_like, *pairs[family]):
        want, got = np.bincount(group, t(y)), np.bincount(of, weights * t(values))
        assert np.allclose(got, want, rtol=1e-10)


def test_sigma_points_have_the_moments_of_all() -> None:
    y = RNG.normal(size=(50, 3)) @ RNG.normal(size=(3, 3)) + 4.0
    points, weights = sigma_points(y)
    assert np.allclose(weights @ points, y.sum(0))
    assert np.allclose((weights[:, None] * points).T @ points, y.T @ y)


def test_a_sum_of_squares_keeps_the_density() -> None:
    @pp.model
    def curve(x):
        a = pp.sample("a", dist.Normal(0, 1))
        s = pp.sample("s", dist.HalfNormal(1))
        pp.sample("y", dist.Normal(np.exp(-a * x), 2 * s))

    model = curve(np.linspace(0, 1, 50)).observe(y=RNG.normal(size=50))
    before, after, found = rewritten(model, Residuals())
    assert applied(found) == ("residuals",)
    assert same_density(before, after) < 1e-12


PRIORS = {
    "known": lambda tau: dist.Normal(np.array([0.5, 0.0, 2.0]), np.array([1.0, 2.0, 0.3])),
    "random scale": lambda tau: dist.Normal(0, tau).expand([3]),
    "flat": lambda tau: dist.ImproperUniform(dist.constraints.real, (3,), ()),
}


@pp.model
def logistic(x, prior):
    tau = pp.sample("tau", dist.HalfNormal(1))
    beta = pp.sample("beta", PRIORS[prior](tau))
    pp.sample("y", dist.Bernoulli(logits=x @ beta))


@pytest.mark.parametrize("prior", PRIORS)
def test_a_turned_design_is_the_same_law_in_other_coordinates(prior: str) -> None:
    x = np.stack([np.ones(40), 50 + RNG.normal(size=40), RNG.normal(size=40)], 1)
    model: Any = logistic(x, prior).observe(y=RNG.integers(0, 2, 40))
    before, after, found = rewritten(model, Orthogonalise())
    assert applied(found) == ("orthogonalise",)
    (turn,) = found.recoveries
    points = RNG.normal(size=(4, 4))
    log_volume = np.linalg.slogdet(turn.matrices[0])[1]
    gram = (x @ turn.matrices[0]).T @ (x @ turn.matrices[0])
    assert np.allclose(gram, 40 * np.eye(3), atol=1e-8)
    with precision.scope("float64"):
        moved = jax.jit(jax.vmap(lambda v: turn(None, v)))(points)
        one = np.asarray(jax.jit(jax.vmap(before.log_density))(moved)) + log_volume
        two = np.asarray(jax.jit(jax.vmap(after.log_density))(points)) + found.log_constant
    assert np.allclose(one, two, rtol=1e-10)
    assert after.has_reference == before.has_reference


def test_orthogonal_columns_are_left_alone() -> None:
    x = np.linalg.qr(RNG.normal(size=(40, 3)))[0]
    model: Any = logistic(x, "known").observe(y=RNG.integers(0, 2, 40))
    _, _, found = rewritten(model, Orthogonalise())
    assert applied(found) == ()
    assert "nearly orthogonal" in found.log[0][2]
