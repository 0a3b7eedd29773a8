"""The parts of the MCMC warm-up: climbing, Laplace, metrics, step size, length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_mcmc.ensemble import Ensemble
from ppcore_mcmc.leapfrog import Phase, leapfrog

from ppcore.precision import scope
from ppcore.target import DensityTarget, value_and_gradient
from ppcore.tuning.laplace import newton
from ppcore.tuning.lbfgs import Paths, climb, dense_inverse_hessian
from ppcore.tuning.length import Length, autocorrelation_time
from ppcore.tuning.metric import estimate, geometric_mean
from ppcore.tuning.preconditioner import Dense, LowRank, identity
from ppcore.tuning.start import find
from ppcore.tuning.step_size import StepSize
from ppcore.tuning.trial import Candidate, try_metrics


def banana(x, data):
    return -0.5 * x[0] ** 2 / data - 0.5 * (x[1] - x[0] ** 2) ** 2 - 0.25 * jnp.sum(x[2:] ** 4)


def quadratic(precision, mean):
    def evaluate(x):
        away = x - mean
        return -0.5 * np.einsum("nd,de,ne->n", away, precision, away), -away @ precision

    return evaluate


def ill_conditioned(dim, rng):
    basis = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    return basis @ np.diag(np.logspace(-4, 4, dim)) @ basis.T


@pytest.mark.parametrize("kind", ["dense", "low_rank", "diagonal"])
def test_leapfrog_is_reversible_and_keeps_volume(kind):
    rng = np.random.default_rng(0)
    with scope("float64"):
        target = DensityTarget(banana, 4, np.float64(3.0))
        shape = identity(kind, 4, 2, np.float64)
        f = estimate(shape, rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)), np.ones((50, 4)), 0)
        x, z = jnp.asarray(rng.normal(size=(2, 3, 4)))
        log_density, gradient = value_and_gradient(target, x)
        start = Phase(x, z, log_density, gradient, f.pull(gradient))
        step = jnp.full((3, 1), 0.3)
        end = leapfrog(target, f, start, step)
        back = leapfrog(target, f, end, -step)
        np.testing.assert_allclose(back.x, start.x, atol=1e-12)
        np.testing.assert_allclose(back.z, start.z, atol=1e-12)

        def flow(xz):
            g = value_and_gradient(target, xz[None, :4])[1]
            at = Phase(xz[None, :4], xz[None, 4:], jnp.zeros(1), g, f.pull(g))
            after = leapfrog(target, f, at, step[:1])
            return jnp.concatenate([after.x[0], after.z[0]])

        jacobian = jax.jacfwd(flow)(jnp.concatenate([x[0], z[0]]))
        np.testing.assert_allclose(jnp.linalg.det(jacobian), 1.0, rtol=1e-9)


@pytest.mark.parametrize(
    "f",
    [
        Dense(np.array([[2.0, 0.0], [1.0, 3.0]])),
        LowRank(np.array([2.0, 3.0]), np.array([[0.6], [0.8]]), np.array([4.0])),
        LowRank(np.array([2.0, 3.0]), np.zeros((2, 0)), np.zeros(0)),
    ],
)
def test_push_and_pull_are_adjoint(f):
    rng = np.random.default_rng(1)
    z, g = rng.normal(size=(2, 7, 2))
    left, right = np.sum(f.push(z) * g, -1), np.sum(z * f.pull(g), -1)
    np.testing.assert_allclose(left, right, rtol=1e-12)


def test_climb_and_newton_find_mode_and_covariance_of_an_ill_conditioned_gaussian():
    rng = np.random.default_rng(2)
    precision, mean = ill_conditioned(6, rng), 1e3 * rng.normal(size=6)
    evaluate = quadratic(precision, mean)
    x = rng.uniform(-2, 2, (8, 6))
    paths = Paths(x, *evaluate(x))
    climb(evaluate, paths, 40)
    best = int(np.argmax(paths.log_density))
    inverse = dense_inverse_hessian(paths.steps[best], paths.changes[best])
    found = newton(evaluate, paths.x[best], inverse)
    assert found.converged
    white = found.factor.T @ precision @ found.factor
    np.testing.assert_allclose(white, np.eye(6), atol=0.02)
    away = found.mode - mean
    assert away @ precision @ away < 1e-2


def test_geometric_mean_is_exact_for_a_gaussian_with_draws_spread_too_widely():
    rng = np.random.default_rng(3)
    root = rng.normal(size=(5, 5))
    covariance, spread = root @ root.T, np.diag([1.0, 4.0, 100.0, 0.1, 9.0])
    pushed = np.linalg.solve(covariance, np.linalg.solve(covariance, spread).T)
    np.testing.assert_allclose(geometric_mean(spread, pushed), covariance, rtol=1e-5)


@pytest.mark.parametrize("kind", ["dense", "low_rank"])
@pytest.mark.parametrize("by_fisher", [True, False])
def test_estimated_metric_whitens(kind, by_fisher):
    rng = np.random.default_rng(4)
    direction = rng.normal(size=(10, 1))
    covariance = np.diag(np.logspace(-2, 2, 10)) + 50 * direction @ direction.T
    draws = rng.multivariate_normal(np.zeros(10), covariance, size=4000)
    gradients = -draws @ np.linalg.inv(covariance)
    f = identity(kind, 10, 4, np.float64)
    for _ in range(3):
        f = estimate(f, draws, gradients, by_fisher)
    factor = f.push(np.eye(10)).T
    white = np.linalg.solve(factor, np.linalg.solve(factor, covariance).T)
    assert np.linalg.cond(white) < (2.0 if kind == "dense" else 30.0)
    assert np.linalg.cond(covariance) > 1e4


def test_step_size_reaches_the_target_acceptance():
    state = StepSize(np.log(5.0))
    for _ in range(12):
        acceptance = 2 * StepSizeModel.tail(state.now)
        state = state.update(acceptance, 0.8)
    assert abs(2 * StepSizeModel.tail(state.final) - 0.8) < 0.03


class StepSizeModel:
    """A Gaussian target in 100 dimensions: acceptance 2Φ(−c ε²)."""

    @staticmethod
    def tail(step):
        from statistics import NormalDist

        return NormalDist().cdf(-0.7 * step**2)


def test_length_grows_while_draws_depend_on_each_other_and_no_further():
    rng = np.random.default_rng(5)

    def round_at(length):
        rho = np.exp(-length / 4)
        x = rng.normal(size=(1, 64, 3))
        rows = [x[0]]
        for _ in range(15):
            rows.append(rho * rows[-1] + np.sqrt(1 - rho**2) * rng.normal(size=(64, 3)))
        return np.stack(rows)

    search = Length(1.5, 1.5)
    while not search.done:
        search = search.update(round_at(search.now), np.zeros(3), np.ones(3))
    assert 3.0 < search.best < 15.0


def autoregression(rng, rho, n, chains, dim):
    rows = [rng.normal(size=(chains, dim))]
    for _ in range(n - 1):
        rows.append(rho * rows[-1] + np.sqrt(1 - rho**2) * rng.normal(size=(chains, dim)))
    return np.stack(rows)


@pytest.mark.parametrize(("n", "chains"), [(64, 64), (1000, 4)])
def test_autocorrelation_time_is_that_of_an_autoregression(n, chains):
    draws = autoregression(np.random.default_rng(6), 0.7, n, chains, 2)
    time = autocorrelation_time(draws, np.zeros(2), np.ones(2))
    # (1 + 0.7)/(1 - 0.7) = 5.7; the largest of four noisy variances of 63 degrees of freedom.
    assert 4 < time < 10


def test_autocorrelation_time_sees_a_mode_too_slow_for_neighbours_to_show():
    rng = np.random.default_rng(7)
    draws = rng.normal(size=(64, 64, 2)) + 0.5 * rng.normal(size=(64, 2))
    assert autocorrelation_time(draws, np.zeros(2), draws.var((0, 1))) > 8


@pytest.mark.parametrize(("dense_rho", "diagonal"), [(0.9, True), (0.5, False)])
@pytest.mark.parametrize("chains", [4, 64])
def test_the_metric_that_yields_more_per_gradient_is_kept(dense_rho, diagonal, chains):
    rng = np.random.default_rng(8)
    root = np.linalg.cholesky(np.array([[1.0, 0.8], [0.8, 1.0]]))
    metrics = Dense(root), Dense(np.eye(2))

    def advance(metric, step, length, n):
        rho, cost = (dense_rho, 4) if metric is metrics[0] else (0.6, 6 if diagonal else 40)
        return {"x": autoregression(rng, rho, n, chains, 2), "n_gradients": np.full(n, cost)}

    now = Candidate(False, StepSize(0.0), 1.5)
    moments = np.zeros(2), np.ones(2)
    best = try_metrics(
        advance, lambda step, out: step, metrics, now, moments, (4, 800 // chains), 100.0
    )
    assert best.diagonal == diagonal
    assert (best.length > 1.5) == diagonal
    tight = Dense(np.linalg.cholesky(np.array([[1.0, 0.999], [0.999, 1.0]]))), metrics[1]
    assert try_metrics(advance, None, tight, now, moments, (4, 50), 100.0) is now


def funnel(x, data):
    return -0.5 * (x[0] / 3) ** 2 - jnp.sum(0.5 * x[1:] ** 2 * jnp.exp(-x[0]) + 0.5 * x[0]) + data


@pytest.mark.parametrize(("shape", "thin"), [("funnel", True), ("gaussian", False)])
def test_only_slow_posteriors_are_thinned(shape, thin):
    def log_density(x, data):
        return 0.5 * funnel(x, data) if shape == "funnel" else -0.5 * jnp.sum(x**2)

    with scope("float64"):
        target = DensityTarget(log_density, 6, np.float64(0.0))
        warm = Ensemble().warmup(jax.random.key(0), target, 64, lambda progress: None)
    assert (int(warm.tuned.thin) > 1) == thin


def regression(x, data):
    return -0.5 * jnp.sum(((x - 1e4) / data) ** 2)


def evaluator(target):
    run = jax.jit(value_and_gradient)
    return lambda x: tuple(np.asarray(value) for value in run(target, x))


def test_laplace_start_is_kept_where_it_holds_and_abandoned_on_a_funnel():
    with scope("float64"):
        plain = DensityTarget(regression, 3, np.array([1e3, 1.0, 1e-2]))
        kept = find(evaluator(plain), np.random.default_rng(0), None, plain, 64)
        steep = DensityTarget(funnel, 10, np.float64(0.0))
        left = find(evaluator(steep), np.random.default_rng(0), None, steep, 64)
    np.testing.assert_allclose(np.linalg.norm(kept.factor, axis=1), [1e3, 1.0, 1e-2], rtol=0.05)
    assert left.factor is None and "abandoned" in left.note
    # The funnel's neck, where its density is highest, is at x[0] < −30 in ten dimensions.
    assert np.median(left.x[:, 0]) > -6
