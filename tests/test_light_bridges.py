"""Schrödinger bridges in closed form: plans, ends, drifts and paths.

Laws are checked by quadrature and closed forms wherever they have one; what is random has a fixed
seed and is allowed five standard errors.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learned_laws import grid
from ppcore_diffusion.gaussian_bridge import gaussian_plan
from ppcore_diffusion.light_bridge import Bridging, light_bridge, plan_divergence
from scipy.stats import kstest, norm

from ppcore import precision


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def test_the_gaussian_plan_joins_its_marginals_and_is_monge_in_the_limit() -> None:
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, 3, 3))
    source, target = a @ a.T + 0.2 * np.eye(3), b @ b.T + 0.2 * np.eye(3)
    for epsilon in (1e-8, 0.3, 50.0):
        slope, spread = gaussian_plan(source, target, epsilon)
        assert np.allclose(slope @ source @ slope.T + spread, target)
        # log π(x, y) has no mixed term but ⟨x, y⟩/ε: that is what makes it the entropic plan.
        assert np.allclose(epsilon * np.linalg.solve(spread, slope), np.eye(3))
    monge, _ = gaussian_plan(source, target, 1e-9)
    assert np.allclose(monge @ source @ monge, target, atol=1e-6)


def normal_scores(n: int, mean: Any, root: Any) -> np.ndarray:
    """n points with exactly that mean and covariance."""
    z = np.random.default_rng(n).standard_normal((n, len(mean)))
    z = (z - z.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(z.T, bias=True))).T
    return mean + z @ np.asarray(root).T


def test_one_gaussian_part_is_the_bridge_between_gaussians_and_stays_there() -> None:
    x = normal_scores(512, np.array([1.0, -2.0]), [[1.0, 0.0], [0.5, 2.0]])
    y = normal_scores(512, np.array([0.0, 3.0]), [[0.4, 0.0], [-0.2, 0.7]])
    plan = Bridging(components=1, epsilon=0.7, steps=50, batch=512, rate=1e-9)
    bridge = light_bridge(jax.random.key(0), x, y, plan).bridge
    gradient = jax.jit(jax.grad(plan_divergence))(
        bridge, (jnp.asarray(x), jnp.asarray(y))
    ).potential
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) < 1e-5
    slope, spread = gaussian_plan(np.cov(x.T, bias=True), np.cov(y.T, bias=True), bridge.epsilon)
    (_, mean), at = bridge.conditional(jnp.array([2.0, 0.0])), np.array([1.0, 2.0])
    assert np.allclose(mean[0], [0.0, 3.0] + slope @ at, atol=1e-6)
    assert np.allclose(bridge.factors[0] @ bridge.factors[0].T, spread, atol=1e-6)


@pytest.fixture(scope="module")
def bridged() -> Any:
    """A bridge on the line from N(1, 1) to ½ N(−2, ¼) + ½ N(2, 1), ε ≈ 1.3."""
    rng = np.random.default_rng(8)
    x = 1 + rng.standard_normal((4000, 1))
    left = rng.random((4000, 1)) < 0.5
    z = rng.standard_normal((4000, 1))
    y = np.where(left, -2 + 0.5 * z, 2 + z)
    with precision.scope("float64"):
        plan = Bridging(components=6, epsilon=0.3, steps=300, rate=3e-2)
        return light_bridge(jax.random.key(1), x, y, plan).bridge


@jax.jit
def plans(bridge: Any, x: Any, y: Any) -> Any:
    return jax.vmap(lambda x: jax.vmap(lambda y: bridge.log_plan(x, y))(y))(x)


def table(bridge: Any, x: Any, y: Any) -> np.ndarray:
    """log π(y_j | x_i); float[n, m]."""
    return np.asarray(plans(bridge, jnp.asarray(x), jnp.asarray(y)))


def test_plans_are_normalised_and_have_the_form_of_a_bridge(bridged: Any) -> None:
    y, cell = grid(-12.0, 12.0, 2401, 1)
    starts = jnp.array([[-1.0], [0.5], [3.0]])
    log_plan = table(bridged, starts, y)
    assert np.allclose(np.exp(log_plan).sum(1) * cell, 1, atol=1e-9)
    # log π(y | x) − ⟨x, y⟩/ε is log v(y) − log c(x): the same function of y for every x.
    rest = log_plan - np.asarray(starts) * y[:, 0] / float(bridged.epsilon)
    rest = rest - rest[:, :1]
    inside = np.abs(y[:, 0]) < 6
    assert np.allclose(rest[0, inside], rest[2, inside], atol=1e-8)


def test_the_end_of_a_bridge_is_the_target(bridged: Any) -> None:
    """∫ p_0(x) π(y | x) dx by quadrature, against the mixture that the draws came from."""
    x, width = grid(-4.0, 6.0, 201, 1)
    y = np.linspace(-5.0, 6.0, 221)
    p_0 = norm.pdf(x[:, 0], 1, 1) * width
    found = p_0 @ np.exp(table(bridged, x, y[:, None]))
    truth = 0.5 * norm.pdf(y, -2, 0.5) + 0.5 * norm.pdf(y, 2, 1)
    # Total variation; 4000 draws alone are off by about 0.02.
    assert 0.5 * np.abs(found - truth).sum() * (y[1] - y[0]) < 0.05


@pytest.mark.parametrize("t", [0.0, 0.4, 0.9])
def test_the_drift_is_the_pull_of_the_end_given_where_the_path_is(bridged: Any, t: float) -> None:
    """b(x, t) = (E[X_1 | X_t = x] − x)/(1 − t), X_1 | X_t by quadrature from the plan at t = 0."""
    epsilon, x_0, x = float(bridged.epsilon), jnp.array([0.3]), jnp.array([-0.6])
    y, _ = grid(-12.0, 12.0, 4801, 1)
    log_plan = table(bridged, x_0[None], y)[0]
    # Markov: X_1 | X_t = x has density ∝ N(y; x, ε(1 − t)) π(y | x_0)/N(y; x_0, ε).
    log_p = log_plan + (y[:, 0] - 0.3) ** 2 / (2 * epsilon)
    log_p = log_p - (y[:, 0] + 0.6) ** 2 / (2 * epsilon * (1 - t))
    p = np.exp(log_p - log_p.max())
    mean = (p * y[:, 0]).sum() / p.sum()
    assert np.isclose(
        jax.jit(lambda b, x, t: b.drift(x, t))(bridged, x, t)[0], (mean + 0.6) / (1 - t), rtol=1e-6
    )


def test_the_marginal_of_a_bridge_is_a_density_and_its_paths_end_in_it(bridged: Any) -> None:
    starts = jnp.linspace(-1.0, 3.0, 9)[:, None]
    law = bridged.marginal(starts)
    y, cell = grid(-12.0, 12.0, 4801, 1)
    p = np.exp(np.asarray(jax.jit(jax.vmap(law.log_prob))(y))) * cell
    assert abs(p.sum() - 1) < 1e-8
    cdf = lambda v: np.interp(v, y[:, 0] + 0.5 * cell, np.cumsum(p))  # noqa: E731
    draw = jax.jit(lambda law, k: law.sample_and_log_prob(k, 4000))
    drawn, log_q = draw(law, jax.random.key(2))
    assert kstest(np.asarray(drawn[:, 0]), cdf).pvalue > 1e-4
    known = np.interp(np.asarray(drawn[:, 0]), y[:, 0], np.log(p / cell))
    assert np.allclose(log_q, known, atol=1e-3)
    begin = jnp.repeat(starts, 500, axis=0)
    walk = jax.jit(lambda b, k, x: b.paths(k, x, [0.0, 0.25, 0.5, 1.0]))
    path = np.asarray(walk(bridged, jax.random.key(3), begin))
    assert np.array_equal(path[0], begin)
    assert kstest(path[3, :, 0], cdf).pvalue > 1e-4
    # Given its ends the path is a Brownian bridge: variance ε t(1 − t), here at t = ½.
    off = path[2] - 0.5 * (path[0] + path[3])
    ratio = off.var() / (0.25 * float(bridged.epsilon))
    assert abs(ratio - 1) < 5 * np.sqrt(2 / len(off))
