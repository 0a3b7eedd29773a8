"""The planner: what it chooses, that it is right, and that it never trusts what it cannot check."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import ppcore as pp
from ppcore import dist
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.planner import importance
from ppcore.planner.pareto import k_hat
from ppcore.planner.pilot import Bump
from ppcore.planner.plan import Plan

X = np.random.default_rng(1).normal(size=(40, 2))
Y = X @ [0.5, -1.0] + 0.3 * np.random.default_rng(2).normal(size=40)


@pp.model
def regression(x):
    beta = pp.sample("beta", dist.Normal(0, 2).expand([2]))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    pp.sample("y", dist.Normal(x @ beta, sigma))


@pp.model
def logistic(x):
    beta = pp.sample("beta", dist.Normal(0, 2).expand([2]))
    pp.sample("y", dist.Bernoulli(logits=x @ beta))


def fitted(model: Any, **settings: Any) -> Any:
    return model.infer(seed=1, progress="off", **settings)


def test_a_regression_is_integrated_and_drawn_independently() -> None:
    fit = fitted(regression(X).observe(y=Y))
    assert fit.plan.choice == "quadrature"
    assert fit.plan.dims == (3, 1)
    assert {r.name for r in fit.plan.rewrites if r.applied} >= {"collapse"}
    beta = fit.draws("beta").reshape(-1, 2)
    # β | σ is normal: given σ ≈ its mean, the posterior mean is the ridge estimate.
    sigma = fit.draws("sigma").mean()
    exact = np.linalg.solve(X.T @ X / sigma**2 + np.eye(2) / 4, X.T @ Y / sigma**2)
    error = beta.std(0) / np.sqrt(len(beta))
    assert (np.abs(beta.mean(0) - exact) < 5 * error + 2e-4).all()


def test_evidence_agrees_between_two_ways() -> None:
    posterior = regression(X).observe(y=Y)
    exact = fitted(posterior).log_evidence
    off = ["sufficient_statistics", "collapse"]
    whole = fitted(posterior, without=off)
    assert whole.plan.choice == "quadrature"
    assert whole.plan.dims == (3, 3)
    assert abs(exact.value - whole.log_evidence.value) < 1e-5


def test_a_certificate_decides_for_importance() -> None:
    y = (X[:, 0] > 0.2).astype(int)
    x = np.concatenate([X, X**2, np.ones((40, 1))], axis=1)

    @pp.model
    def wide(x):
        beta = pp.sample("beta", dist.Normal(0, 1).expand([5]))
        pp.sample("y", dist.Bernoulli(logits=x @ beta))

    posterior = wide(x).observe(y=y)
    fit = fitted(posterior)
    assert fit.plan.choice == "importance"
    assert "k-hat" in fit.plan.reason
    assert not fit.warnings
    assert fit.log_evidence.error < 0.05
    again = fitted(posterior)
    np.testing.assert_array_equal(again.draws("beta"), fit.draws("beta"))
    walked = posterior.infer("ensemble", draws=100, seed=2, progress="off")
    a, b = (f.draws("beta").reshape(-1, 5) for f in (fit, walked))
    scale = b.std(0)
    assert (np.abs(a.mean(0) - b.mean(0)) < 0.12 * scale).all()
    assert (np.abs(a.std(0) / scale - 1) < 0.1).all()


def test_finite_models_are_solved() -> None:
    @pp.model
    def coin():
        fair = pp.sample("fair", dist.Bernoulli(0.5))
        pp.sample("heads", dist.Bernoulli(np.where(fair, 0.5, 0.9)))

    fit = fitted(coin().observe(heads=1))
    assert fit.plan.choice == "exact"
    assert abs(fit.draws("fair").mean() - 0.25 / 0.7) < 0.03
    assert abs(fit.log_evidence.value - np.log(0.7)) < 1e-9


def test_a_conjugate_line_has_its_closed_form() -> None:
    @pp.model
    def line(x):
        slope = pp.sample("slope", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(slope * x, 1))

    x = np.arange(3.0)
    fit = fitted(line(x).observe(y=np.ones(3)))
    assert fit.plan.choice == "quadrature"
    slope, precision = fit.draws("slope"), 1 + np.sum(x**2)
    assert abs(slope.mean() - x.sum() / precision) < 0.02
    assert abs(slope.std() - precision**-0.5) < 0.02


def test_chains_take_over_where_weights_degenerate() -> None:
    @pp.model
    def funnel():
        v = pp.sample("v", dist.Normal(0, 3))
        x = pp.sample("x", dist.StudentT(2, 0, np.exp(v / 2)).expand([4]))
        pp.factor("kink", -0.01 * np.sum(np.abs(x)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = fitted(funnel(), draws=20)
    assert fit.plan.choice in ("ensemble", "nuts")
    assert any(why.startswith("importance") for why in fit.plan.passed_over)


def test_a_saved_run_is_one_of_chains(tmp_path: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = fitted(logistic(X).observe(y=(Y > 0) * 1), checkpoint=tmp_path / "run", draws=20)
    assert fit.plan.choice in ("ensemble", "nuts")


def test_plans_are_stored_and_told() -> None:
    fit = fitted(regression(X).observe(y=Y), draws=10)
    assert Plan.from_data(fit.attrs["plan"]) == fit.plan
    assert str(fit.plan).startswith("quadrature: ")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = (
            regression(X).observe(y=Y).infer("ensemble", draws=10, chains=8, seed=1, progress="off")
        )
    with pytest.raises(UnsupportedError, match="named"):
        _ = named.plan


def test_settings_are_closed() -> None:
    posterior = regression(X).observe(y=Y)
    with pytest.raises(SettingsError, match="'collapse'"):
        fitted(posterior, without=["colapse"])
    with pytest.raises(SettingsError, match="need the engine"):
        fitted(posterior, target_accept=0.9)


def test_named_engines_are_rewritten_when_asked() -> None:
    posterior = regression(X).observe(y=Y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = posterior.infer("nuts", rewrites=True, draws=50, seed=1, progress="off")
    assert fit.result.x.shape[-1] == 1
    assert fit.draws("beta").shape == (4, 50, 2)
    assert any(r["applied"] for r in fit.attrs["rewrites"])


def test_new_data_of_the_same_shape_are_another_fit() -> None:
    one, two = (fitted(regression(X).observe(y=Y + c), draws=500) for c in (0.0, 5.0))
    assert two.draws("sigma").mean() > 2 * one.draws("sigma").mean()


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.8])
def test_k_hat_finds_the_shape_of_a_pareto_tail(shape: float) -> None:
    """The estimate's own standard error is (1 + k)/√190 at N = 4,000; four of it are allowed."""
    u = np.random.default_rng(3).uniform(size=4000)
    assert abs(k_hat(-shape * np.log(u)) - shape) < 4 * (1 + shape) / np.sqrt(190)


def test_k_hat_of_odd_weights() -> None:
    assert k_hat(np.zeros(100)) == -np.inf
    assert k_hat(np.full(100, -np.inf)) == np.inf
    assert k_hat(np.array([0.0, np.nan] * 50)) == np.inf


def test_importance_finds_the_normaliser_and_refuses_heavy_tails() -> None:
    rng = np.random.default_rng(0)
    bump = Bump(np.zeros(2), np.eye(2), 0.0)

    def normal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -0.5 * np.sum((x - 0.5) ** 2, axis=1), 0.5 - x

    mixture, certificate = importance.fit(normal, rng, [bump])
    assert certificate.good
    made = importance.sample(normal, rng, mixture, 4, 1000)
    assert abs(made.log_evidence - np.log(2 * np.pi)) < 5 * made.log_evidence_error + 1e-9
    assert abs(made.x.mean() - 0.5) < 0.05

    def cauchy(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return -np.log1p(x**2).sum(1) * 0.55, x

    assert not importance.fit(cauchy, rng, [bump])[1].good


def test_components_follow_a_bent_ridge_into_its_tails() -> None:
    """x logistic, y ~ N(max(0, 3x), ½) without the corner, z ~ N(0, 1): log Z = 0."""
    rng = np.random.default_rng(0)

    def bent(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        a, b, c = x.T
        corner, slope = 3 * np.logaddexp(0, a), 3 / (1 + np.exp(-a))
        off = (b - corner) / 0.5
        level = -a - 2 * np.log1p(np.exp(-a)) - 0.5 * off**2 - 0.5 * c**2
        level = level - np.log(2 * np.pi) - np.log(0.5)
        first = np.tanh(-a / 2) + off * slope / 0.5
        return level, np.stack([first, -off / 0.5, -c], axis=1)

    start = Bump(np.array([0.0, 3 * np.log(2), 0.0]), np.diag([1.0, 2.0, 1.0]), 0.0)
    mixture, certificate = importance.fit(bent, rng, [start])
    made = importance.sample(bent, rng, mixture, 10, 1000)
    assert certificate.promising and made.certificate.good
    assert len(mixture.bumps) > 10
    assert abs(made.log_evidence) < 5 * made.log_evidence_error
    assert abs(np.mean(made.x[..., 0] ** 2) - np.pi**2 / 3) < 0.3


def test_a_latent_gaussian_block_is_approximated_and_corrected() -> None:
    """log Z of a Poisson model with a one-dimensional effect each, against quadrature."""
    from ppcore import precision
    from ppcore.rewrite.laplace_within import LaplaceWithin, blocks

    counts = np.array([0, 3, 8])

    @pp.model
    def effects(groups):
        level = pp.sample("level", dist.Normal(0, 1))
        u = pp.sample("u", dist.Normal(0, 1).expand([groups]))
        pp.sample("n", dist.Poisson(np.exp(level + u)))

    target = effects(3).observe(n=counts).target()
    with precision.scope("float64"):
        found = blocks(target)
        assert found is not None and found.sites == ("u",)
        inner = LaplaceWithin(target, found, np.zeros(3))
        rng, h = np.random.default_rng(0), np.full((4096, 1), 0.4)
        x, marginal, level, normal = inner.propose(h, rng.standard_normal((4096, 3)))
    grid = np.linspace(-6, 6, 2001)
    exact = sum(
        np.log(np.sum(np.exp(-0.5 * grid**2 + n * (0.4 + grid) - np.exp(0.4 + grid))) * 0.006)
        - 0.5 * np.log(2 * np.pi)
        - np.log(float(np.prod(np.arange(1, n + 1))))
        for n in counts
    )
    exact += -0.5 * 0.4**2 - 0.5 * np.log(2 * np.pi)
    w = np.exp(level - normal - exact)
    assert abs(w.mean() - 1) < 5 * w.std() / np.sqrt(len(w))
    assert np.ptp(marginal) < 1e-9 and abs(marginal[0] - exact) < 0.1
    assert (x[:, found.outer] == 0.4).all()
