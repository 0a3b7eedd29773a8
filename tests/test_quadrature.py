"""Quadrature: integrals with known values, draws with the right law, refusals that say why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ppcore_exact.quadrature import Quadrature
from scipy import special, stats

import ppcore as pp
from ppcore import dist
from ppcore.errors import SettingsError
from ppcore.exact import NotExact
from ppcore.rewrite.lattice_draws import draw
from ppcore.rewrite.quadrature import NoQuadrature, integrate

RNG = np.random.default_rng(5)

KNOWN = {
    "far away": (lambda x: -0.5 * ((x[:, 0] - 1e5) / 3) ** 2, 1, np.log(3 * np.sqrt(2 * np.pi))),
    "narrow": (
        lambda x: -0.5 * ((x[:, 0] - 2.3) / 1e-4) ** 2,
        1,
        np.log(1e-4 * np.sqrt(2 * np.pi)),
    ),
    "skew": (lambda x: 0.3 * x[:, 0] - np.exp(x[:, 0]), 1, special.gammaln(0.3)),
    "two modes": (
        lambda x: np.logaddexp(-0.5 * (x[:, 0] - 6) ** 2, -2.0 * (x[:, 0] + 6) ** 2),
        1,
        np.log(1.5 * np.sqrt(2 * np.pi)),
    ),
    "correlated": (
        lambda x: -0.5 * ((x.sum(1) - 50) / 0.01) ** 2 - 0.5 * ((x[:, 0] - x[:, 1]) / 30) ** 2,
        2,
        np.log(0.01 * 30 * np.pi),
    ),
    "bent": (
        lambda x: -0.5 * (x[:, 0] ** 2 + 16 * (x[:, 1] - x[:, 0] ** 2) ** 2),
        2,
        np.log(2 * np.pi / 4),
    ),
    "three": (
        lambda x: (np.array([2.0, 5.0, 3.0]) * x - np.exp(x)).sum(1),
        3,
        special.gammaln([2.0, 5.0, 3.0]).sum(),
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_integrals_are_right(name: str) -> None:
    log_density, dim, want = KNOWN[name]
    lattice = integrate(log_density, dim)
    assert abs(lattice.log_z - want) < 1e-8 * max(1.0, abs(want))
    assert lattice.error < 1e-6


def test_draws_follow_the_density() -> None:
    # log of a Gamma(0.7) variable; a Kolmogorov-Smirnov test at level 1e-4 (fixed seed).
    def log_density(x: np.ndarray) -> np.ndarray:
        return 0.7 * x[:, 0] - np.exp(x[:, 0])

    x = draw(log_density, integrate(log_density, 1), np.random.default_rng(1), 20000)
    assert stats.kstest(np.exp(x[:, 0]), stats.gamma(0.7).cdf).pvalue > 1e-4


def test_few_draws_ask_for_the_density() -> None:
    """The squeeze saves evaluations and changes nothing: Kolmogorov, false alarm 1e-4."""
    asked = []

    def log_density(x: np.ndarray) -> np.ndarray:
        asked.append(len(x))
        return -x[:, 0] - np.exp(-x[:, 0])

    lattice = integrate(log_density, 1)
    asked.clear()
    x = draw(log_density, lattice, np.random.default_rng(6), 20_000)
    assert sum(asked) < 2_000
    assert stats.kstest(x[:, 0], "gumbel_r").pvalue > 1e-4


def test_draws_of_the_ratio_bound_are_refined() -> None:
    # On a coarse lattice the interpolant lies far below the density between points.
    def log_density(x: np.ndarray) -> np.ndarray:
        return -0.5 * x[:, 0] ** 2

    from dataclasses import replace

    fine = integrate(log_density, 1)
    even = fine.cells[:, 0] % 4 == 0
    coarse = replace(
        fine,
        cells=fine.cells[even] // 4,
        log_density=fine.log_density[even],
        spacing=4 * fine.spacing,
    )
    x = draw(log_density, coarse, np.random.default_rng(2), 20000)
    assert stats.kstest(x[:, 0], "norm").pvalue > 1e-4


def test_what_does_not_fall_off_is_refused() -> None:
    with pytest.raises(NoQuadrature, match="improper"):
        integrate(lambda x: -0.5 * x[:, 1] ** 2, 2)
    with pytest.raises(NoQuadrature, match="improper"):
        integrate(lambda x: -np.log1p(np.abs(x[:, 0])), 1)


@pp.model
def line(x):
    slope = pp.sample("slope", dist.Normal(0, 1))
    scale = pp.sample("scale", dist.HalfNormal(1))
    mean = pp.deterministic("mean", slope * x)
    pp.sample("y", dist.Normal(mean, scale))


def test_a_regression_by_two_integrals() -> None:
    x = np.array([-1.0, 0.0, 1.0, 2.0])
    y = 2 * x + 0.1
    fit = line(x).observe(y=y).infer("quadrature", seed=0, draws=2000)
    # The same by brute force over both parameters.
    b, s = np.meshgrid(np.linspace(-4, 6, 801), np.exp(np.linspace(-6, 2.25, 801)), indexing="ij")
    log_p = stats.norm(0, 1).logpdf(b) + stats.halfnorm(0, 1).logpdf(s) + np.log(s)
    for xi, yi in zip(x, y, strict=True):
        log_p += stats.norm(b * xi, s).logpdf(yi)
    step = (10 / 800) * (8.25 / 800)
    log_z = np.log(np.exp(log_p - log_p.max()).sum() * step) + log_p.max()
    weight = np.exp(log_p - log_z) * step
    assert abs(fit.attrs["log_evidence"] - log_z) < 1e-6
    assert fit.attrs["log_evidence_error"] < 1e-6
    assert abs(fit.solution.marginal("scale").mean - (weight * s).sum()) < 1e-6
    # 8,000 independent draws: |z| > 4.5 has odds 1 in 150,000.
    for site, grid in (("slope", b), ("scale", s)):
        mean = (weight * grid).sum()
        sd = np.sqrt((weight * grid**2).sum() - mean**2)
        got = np.asarray(fit.draws(site)).ravel()
        assert abs(got.mean() - mean) < 4.5 * sd / np.sqrt(got.size)
    assert np.allclose(fit.draws("mean"), np.asarray(fit.draws("slope"))[..., None] * x)


def test_the_evidence_is_that_of_the_exact_solver() -> None:
    @pp.model
    def known(group):
        mu = pp.sample("mu", dist.Normal(0, 5))
        with pp.plate("group", 8):
            theta = pp.sample("theta", dist.Normal(mu, 2.0))
        pp.sample("y", dist.Normal(theta[group], 1.5))

    model: Any = known(np.arange(24) % 8).observe(y=RNG.normal(size=24))
    ours, exact = (model.infer(e, seed=0, draws=500) for e in ("quadrature", "exact"))
    assert abs(ours.attrs["log_evidence"] - exact.attrs["log_evidence"]) < 1e-9
    gap = np.asarray(ours.draws("theta")).mean((0, 1)) - exact.solution.marginal("theta").mean
    assert np.abs(gap / np.sqrt(exact.solution.marginal("theta").variance / 2000)).max() < 4.5


def test_too_many_parameters_are_refused_by_name() -> None:
    @pp.model
    def wide():
        for name in "abcd":
            pp.sample(name, dist.Gamma(2, 1))
        pp.factor("f", 0.0)

    with pytest.raises(NotExact, match="4 parameters remain"):
        wide().infer("quadrature")


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match="tolerance"):
        Quadrature(tolerance=0.0)
    with pytest.raises(SettingsError, match="'collapse'"):
        line(np.ones(2)).observe(y=np.ones(2)).infer("quadrature", without=("colapse",))
