"""Transports learned from draws: flows, bridges, integrators of scores, products of laws.

Laws are checked by quadrature and closed forms wherever they have one; what is random has a fixed
seed and is allowed five standard errors.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_diffusion import combination, couplings, score_product
from ppcore_diffusion.discrete_flow import (
    Affine,
    Pushed,
    discrete_flow,
    identity,
    most_lipschitz,
)
from ppcore_diffusion.exponential import Exponential, Multistep
from ppcore_diffusion.flow_matching import FlowMatching, flow_proposal
from ppcore_diffusion.gaussian_bridge import gaussian_plan
from ppcore_diffusion.integrators import (
    EulerMaruyama,
    PredictorCorrector,
    ProbabilityFlow,
    denoise,
)
from ppcore_diffusion.learned_proposal import guarded, weighed
from ppcore_diffusion.light_bridge import Bridging, light_bridge, plan_divergence
from ppcore_diffusion.matching import Matching, flow_match, interpolate
from ppcore_diffusion.noising import Noise, learn_score, noised_mixture
from ppcore_diffusion.regression import Schedule, regress
from ppcore_diffusion.samples import Samples, samples_of
from ppcore_diffusion.schroedinger_bridge import SchroedingerBridge
from ppcore_diffusion.vector_field import vector_field
from ppcore_mcmc.independence import Independence
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from scipy.stats import kstest, multivariate_t, norm

import ppcore as pp
from ppcore import contract as rules
from ppcore import dist, precision
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.fit import infer
from ppcore.population import Population
from ppcore.target import DensityTarget
from ppcore.testing.checks import transport
from ppcore.testing.models.finite import FiniteTarget
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject

SHORT = Matching(steps=300, batch=128, width=24, grid=12, group=32)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def silent(_: Any) -> None:
    """Takes reports."""


def two_modes(x: Any, data: Any) -> Any:
    """exp(1.5) (0.7 N((2, 2), ¼ I) + 0.3 N((−2, −2), I))."""
    a = -0.5 * jnp.sum((x - 2.0) ** 2) / 0.25 - jnp.log(0.25)
    b = -0.5 * jnp.sum((x + 2.0) ** 2)
    return jnp.logaddexp(jnp.log(0.7) + a, jnp.log(0.3) + b) - jnp.log(2 * jnp.pi) + 1.5


TARGET = DensityTarget(two_modes, 2)


def draws_of_two_modes(n: int = 3000) -> np.ndarray:
    rng = np.random.default_rng(0)
    first = rng.random((n, 1)) < 0.7
    z = rng.standard_normal((n, 2))
    return np.where(first, 2 + 0.5 * z, -2 + z)


def some_flow(dim: int = 2, count: int = 10) -> Any:
    """A flow as it might be in the middle of training: steep, between two affine maps."""
    rng = np.random.default_rng(dim)
    field = vector_field(rng, dim, 16, float)
    last = jnp.asarray(rng.standard_normal((dim, 16)))
    clocks = (*field.clocks[:2], jnp.asarray(0.3 * rng.standard_normal((dim, 8))))
    field = replace(field, weights=(*field.weights[:2], last), clocks=clocks)
    lower = np.tril(0.3 * rng.standard_normal((dim, dim)), -1) + np.diag(1 + rng.random(dim))
    ends = Affine(jnp.arange(dim) * 0.5, jnp.asarray(lower)), identity(dim, float)
    return discrete_flow(field.capped(most_lipschitz(count)), count, *ends)


def grid(low: float, high: float, n: int, dim: int = 2) -> tuple[np.ndarray, float]:
    points = np.linspace(low, high, n)
    rows = np.stack(np.meshgrid(*[points] * dim, indexing="ij"), -1).reshape(-1, dim)
    return rows, float(points[1] - points[0]) ** dim


# Flows


def test_a_discrete_flow_inverts_and_its_log_determinant_is_that_of_its_jacobian() -> None:
    flow = some_flow()
    assert np.isclose(flow.velocity.lipschitz, most_lipschitz(10))
    subject = Subject("flow", rules.Transport(), map=flow)
    findings = list(transport.run(Session(subject, (), 1, 1e-3, 100, True)))
    assert len(findings) == 3 and all(f.ok for f in findings), [f.message for f in findings]


def test_the_bound_of_the_field_holds_and_capping_keeps_its_shape() -> None:
    field = some_flow().velocity
    rng = np.random.default_rng(3)
    x, t = rng.standard_normal((200, 2)), rng.random(200)
    jacobians = jax.vmap(jax.jacfwd(field))(x, t)
    steepest = np.linalg.norm(np.asarray(jacobians), 2, axis=(1, 2)).max()
    assert 0.05 * field.lipschitz < steepest <= field.lipschitz
    assert np.isclose(field.capped(1.0).lipschitz, 1.0)
    assert field.capped(100.0).lipschitz == field.lipschitz


def test_the_derivatives_of_the_inverse_are_those_of_the_solution() -> None:
    law = Pushed(some_flow())
    x = jnp.array([0.4, -0.8])
    found = jax.jit(jax.grad(law.log_prob))(x)
    log_prob = jax.jit(law.log_prob)
    h = 1e-5
    rough = [(log_prob(x + h * e) - log_prob(x - h * e)) / (2 * h) for e in np.eye(2)]
    assert np.allclose(found, np.array(rough), rtol=1e-6, atol=1e-6)


@pytest.fixture(scope="module")
def matched() -> Any:
    with precision.scope("float64"):
        return flow_match(jax.random.key(0), draws_of_two_modes(), plan=SHORT)


@pytest.mark.parametrize("when", ["random", "trained"])
def test_weights_have_mean_z_before_and_after_training(when: str, matched: Any) -> None:
    """E[w] = ∫ N(u) γ(T(u))/q(T(u)) du = Z by quadrature, with q as the flow itself states it."""
    flow = some_flow() if when == "random" else matched.map
    u, cell = grid(-14.0, 14.0, 361)

    def one(flow: Any, u: Any) -> Any:
        x, log_det = flow.forward(u)
        return two_modes(x, ()) + log_det

    log_g = np.asarray(jax.jit(jax.vmap(one, (None, 0)))(flow, u))
    assert abs(np.exp(log_g - 1.5).sum() * cell - 1) < 1e-5


def test_training_makes_weights_even(matched: Any) -> None:
    samples = samples_of(draws_of_two_modes())
    shares = {}
    for name, plan in (("before", replace(SHORT, steps=1, rate=1e-12)), ("after", None)):
        made = matched if plan is None else flow_match(jax.random.key(0), samples, plan=plan)
        proposal = guarded(made.density, samples, 0.05)
        population = weighed(jax.random.key(1), proposal, TARGET, 2000)
        shares[name] = float(population.ess) / 2000
        error = np.sqrt((1 / shares[name] - 1) / 2000)
        assert abs(float(population.log_z) - 1.5) < 5 * error
    assert shares["after"] > 0.75 > 0.5 > shares["before"]
    assert float(matched.map.velocity.lipschitz) <= most_lipschitz(SHORT.grid) * (1 + 1e-9)


def test_a_guard_is_counted_and_its_density_is_that_of_the_mixture(matched: Any) -> None:
    samples = samples_of(draws_of_two_modes())
    proposal = guarded(matched.density, samples, 0.1)
    x, log_q = proposal.counted(jax.random.key(2), 40)
    assert x.shape == (40, 2)
    assert np.allclose(log_q, jax.jit(jax.vmap(proposal.log_prob))(x), atol=1e-9)
    axes = proposal.guard.axes
    shift, factor = np.asarray(axes.shift), np.asarray(axes.factor)
    known = multivariate_t(shift, factor @ factor.T, df=3)
    assert np.allclose(jax.jit(jax.vmap(proposal.guard.log_prob))(x), known.logpdf(np.asarray(x)))
    drawn = np.asarray(jax.jit(lambda k: proposal.guard.sample(k, 2000))(jax.random.key(1)))
    assert kstest((drawn[:, 0] - shift[0]) / factor[0, 0], "t", args=(3,)).pvalue > 1e-4
    assert guarded(matched.density, samples, 0.0).map is matched.map


def test_a_flow_between_two_sets_of_draws_carries_one_to_the_other() -> None:
    rng = np.random.default_rng(1)
    source = rng.gamma(2.0, 1.0, (2000, 1))
    target = 5 - 0.3 * rng.gamma(2.0, 1.0, (2000, 1))
    made = flow_match(jax.random.key(3), target, source, replace(SHORT, coupling="entropic"))
    pushed = np.asarray(jax.vmap(lambda x: made.map.forward(x)[0])(source))
    levels = np.linspace(0.05, 0.95, 10)
    gap = np.quantile(pushed, levels) - np.quantile(target, levels)
    assert np.abs(gap).max() < 0.15 * target.std()


def test_rectified_paths_are_straighter(matched: Any) -> None:
    plan = replace(SHORT, coupling="independent", steps=150)
    loose = flow_match(jax.random.key(4), draws_of_two_modes(), plan=plan)
    again = flow_match(jax.random.key(4), draws_of_two_modes(), plan=replace(plan, reflow=1))
    end = loose.losses[-50:].mean()
    assert matched.losses[-50:].mean() < 0.3 * end and again.losses[-50:].mean() < 0.3 * end


def test_interpolants_have_the_velocity_that_they_state() -> None:
    rng = np.random.default_rng(0)
    z, x, t, h = rng.standard_normal((4, 2)), rng.standard_normal((4, 2)), rng.random((4, 1)), 1e-6
    for how in ("linear", "trigonometric"):
        ahead, behind = (interpolate(how, t + s, z, x)[0] for s in (h, -h))
        assert np.allclose((ahead - behind) / (2 * h), interpolate(how, t, z, x)[1], atol=1e-8)
        assert np.allclose(interpolate(how, np.zeros((4, 1)), z, x)[0], z)
        assert np.allclose(interpolate(how, np.ones((4, 1)), z, x)[0], x)


# Couplings


@pytest.mark.parametrize("seed", range(4))
def test_an_assignment_is_the_best_of_all_permutations(seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, x = rng.standard_normal((6, 3)), 1 + 2 * rng.standard_normal((6, 3))
    cost = 0.5 * cdist(z, x, "sqeuclidean")
    best = min(cost[range(6), p].sum() for p in itertools.permutations(range(6)))
    found = couplings.assignment(z, x)
    assert sorted(found) == list(range(6))
    assert np.isclose(cost[range(6), found].sum(), best)
    assert np.array_equal(found, linear_sum_assignment(cost)[1])
    assert np.allclose(couplings.costs(z, x), cost)


def test_an_entropic_plan_has_its_marginals_and_tends_to_the_assignment() -> None:
    rng = np.random.default_rng(5)
    z, x = rng.standard_normal((20, 2)), 1 + rng.standard_normal((20, 2))
    cost = couplings.costs(z, x)
    best = cost[range(20), couplings.assignment(z, x)].mean()
    spent = []
    for regularisation in (1.0, 0.1, 0.01):
        plan = couplings.entropic_plan(z, x, regularisation, sweeps=3000)
        assert np.allclose(plan.sum(1), 1 / 20) and np.allclose(plan.sum(0), 1 / 20, atol=1e-4)
        spent.append((plan * cost).sum())
    assert spent[0] > spent[1] > spent[2] and abs(spent[2] - best) < 0.02 * best


@pytest.mark.parametrize("how", ["exact", "independent"])
def test_a_coupling_permutes_the_batch(how: str) -> None:
    rng = np.random.default_rng(6)
    z, x = rng.standard_normal((50, 2)), rng.standard_normal((50, 2))
    found = couplings.paired(rng, z, x, how, group=16)
    assert sorted(map(tuple, found)) == sorted(map(tuple, x))


# Bridges


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


# Integrators


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Line:
    """0.3 N(−1.5, 0.3) + 0.7 N(1, 0.5) on the line, under noise, in few operations."""

    noise: Noise = Noise()
    shares = np.array([0.3, 0.7])
    means = np.array([-1.5, 1.0])
    variances = np.array([0.3, 0.5])
    dim = 1

    def parts(self, t: Any) -> tuple[Any, Any]:
        alpha = self.noise.alpha(t)
        return alpha * self.means, alpha**2 * self.variances + 1.0 - alpha**2

    def log_density(self, x: Any, t: Any) -> Any:
        mean, variance = self.parts(t)
        logs = jnp.log(self.shares) - 0.5 * (x - mean) ** 2 / variance - 0.5 * jnp.log(variance)
        return jax.nn.logsumexp(logs) - 0.5 * jnp.log(2 * jnp.pi)

    def score(self, x: Any, t: Any) -> Any:
        mean, variance = self.parts(t)
        logs = jnp.log(self.shares) - 0.5 * (x - mean) ** 2 / variance - 0.5 * jnp.log(variance)
        return jnp.sum(jax.nn.softmax(logs) * (mean - x) / variance, keepdims=True)

    def cdf(self, x: np.ndarray, t: float) -> np.ndarray:
        mean, variance = (np.asarray(part) for part in self.parts(t))
        return norm.cdf((x - mean) / np.sqrt(variance)) @ self.shares


END = 0.02
FLOWS: list[tuple[Any, int, float]] = [
    (ProbabilityFlow("euler"), 64, 1),
    (ProbabilityFlow("heun"), 64, 2),
    (ProbabilityFlow("rk4"), 32, 4),
    (Exponential(1), 64, 1),
    (Exponential(2), 32, 2),
    (Exponential(3), 64, 3),
    (Multistep(2), 64, 2),
    (Multistep(3), 64, 3),
]


@pytest.mark.parametrize(("integrator", "count", "order"), FLOWS, ids=lambda v: repr(v))
def test_the_error_of_a_flow_shrinks_with_the_order_that_it_states(
    integrator: Any, count: int, order: float
) -> None:
    """On the line the probability flow keeps the distribution function: F_t(X_t) = F_1(X_1)."""
    law, x = Line(), np.array([[-1.2], [-0.3], [0.2], [1.7]])
    truth = law.cdf(x, 1.0)
    errors = []
    for steps in (count, 2 * count):
        walk = jax.jit(jax.vmap(integrator.walk, (None, 0, None, None)))
        end = walk(law, x, law.noise.grid(steps, END), jnp.zeros((steps, 0, 1)))
        errors.append(np.abs(law.cdf(np.asarray(end), END) - truth).max())
    slope = np.log2(errors[0] / errors[1])
    assert abs(slope - order) < 0.35, (errors, slope)
    assert integrator.contract == rules.Biased(order=order)


@pytest.mark.parametrize(
    "integrator",
    [EulerMaruyama(), PredictorCorrector(Exponential(1), steps=2)],
    ids=["euler_maruyama", "corrected_exponential"],
)
def test_stochastic_integrators_are_of_weak_order_one(integrator: Any) -> None:
    """For a Gaussian every step is affine, so that mean and variance follow exactly."""
    law = noised_mixture([1.0], [[1.5]], [[[0.2]]])

    def moments(times: Any) -> Any:
        alpha = law.noise.alpha(1.0)
        begin = 1.5 * alpha, 0.2 * alpha**2 + 1.0 - alpha**2

        def advance(carry: Any, at: Any) -> tuple[Any, None]:
            mean, variance = carry
            s, t = at
            none = jnp.zeros((integrator.noises, 1))
            step = lambda x, z: integrator.step(law, s, t, x, z)  # noqa: E731
            slope, gain = jax.jacfwd(step, (0, 1))(jnp.full(1, mean), none)
            after = slope[0, 0] ** 2 * variance + jnp.sum(gain**2)
            return (step(jnp.full(1, mean), none)[0], after), None

        return jax.lax.scan(advance, begin, (times[:-1], times[1:]))[0]

    found = jax.jit(moments)
    alpha = law.noise.alpha(END)
    truth = np.array([1.5 * alpha, 0.2 * alpha**2 + 1 - alpha**2])
    errors = []
    for steps in (200, 400):
        errors.append(np.abs(np.asarray(found(law.noise.grid(steps, END))) - truth).max())
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.2, errors


def test_the_likelihood_of_the_probability_flow_is_exact_up_to_its_order() -> None:
    law = Line(Noise(0.1, 60.0))  # enough noise that p_1 is N(0, 1) to rounding
    x = np.array([[-1.4], [0.1], [1.0]])
    truth = np.array([law.log_density(v, END) for v in x])
    errors = []
    for steps in (64, 128):
        times = law.noise.grid(steps, END)
        log_prob = jax.jit(jax.vmap(lambda v, t=times: ProbabilityFlow("rk4").log_prob(law, v, t)))
        errors.append(np.abs(np.asarray(log_prob(x)) - truth).max())
    assert abs(np.log2(errors[0] / errors[1]) - 4) < 0.4 and errors[1] < 1e-4, errors


def test_noise_and_mixtures_agree_with_their_definitions() -> None:
    noise = Noise()
    t = np.array([1e-3, 0.1, 0.5, 1.0])
    assert np.allclose(noise.time(noise.log_snr(t)), t)
    assert np.allclose(noise.alpha(t) ** 2 + noise.sigma(t) ** 2, 1)
    slope = jax.vmap(jax.grad(noise.log_alpha))(jnp.asarray(t))
    assert np.allclose(slope, -0.5 * noise.beta(t))
    law = noised_mixture(Line.shares, Line.means[:, None], Line.variances[:, None, None])
    for t in (0.0, 0.3, 1.0):
        x = jnp.array([0.7])
        assert np.isclose(law.log_density(x, t), Line().log_density(x, t))
        assert np.allclose(law.score(x, t), Line().score(x, t))


def test_integrators_are_interchangeable() -> None:
    law = Line()
    times = law.noise.grid(40, END)
    for integrator in (EulerMaruyama(), Multistep(2), PredictorCorrector()):
        x = denoise(jax.random.key(5), integrator, law, 2000, times)
        # The bias of 40 steps, and five standard errors of a distribution function.
        gap = law.cdf(np.asarray(x), END)
        assert abs(gap.mean() - 0.5) < 0.03 + 5 * np.sqrt(1 / 12 / 2000)


def test_a_learned_score_is_nearer_to_the_truth_than_a_gaussian() -> None:
    rng = np.random.default_rng(9)
    left = rng.random((4000, 1)) < 0.3
    z = rng.standard_normal((4000, 1))
    x = np.where(left, -1.5 + np.sqrt(0.3) * z, 1 + np.sqrt(0.5) * z)
    law, points = Line(), np.linspace(-2.5, 2.5, 21)[:, None]

    def error(model: Any) -> float:
        total = 0.0
        for t in (0.1, 0.3):
            off = jax.vmap(lambda v, t=t: model.score(v, t) - law.score(v, t))(points)
            total += float(jnp.mean(off**2) * law.noise.sigma(t) ** 2)
        return total

    plain = learn_score(jax.random.key(0), x, 16, Schedule(50, 64, 1e-12))
    learned = learn_score(jax.random.key(0), x, 16, Schedule(500, 256, 1e-2))
    assert error(learned) < 0.15 * error(plain)


# Products


def experts(noise: Noise | None = None) -> tuple[Any, Any]:
    """Two laws on the line, one of them with two modes."""
    first = noised_mixture([0.4, 0.6], [[-1.0], [1.0]], [[[0.3]], [[0.5]]], noise)
    return first, noised_mixture([1.0], [[0.5]], [[[0.8]]], noise)


EXPONENTS = [(1.0, 1.0), (0.3, 0.7), (1.5, -0.4)]


def log_product(x: np.ndarray, exponents: Any, end: float, noise: Noise | None = None) -> Any:
    parts = experts(noise)
    return sum(
        a * np.asarray(jax.vmap(lambda v, p=p: p.log_density(v, end))(x))
        for a, p in zip(exponents, parts, strict=True)
    )


@pytest.mark.parametrize("exponents", EXPONENTS[::2], ids=str)
def test_path_weights_of_a_product_have_mean_z_at_two_coarse_steps(
    exponents: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E[w] over the start and the noise of both steps by Gauss–Hermite, for steps of any size."""
    monkeypatch.setattr(combination.random, "normal", lambda key, shape, dtype=None: key)
    path = combination.noised_product(experts(), exponents)
    nodes, weights = np.polynomial.hermite_e.hermegauss(64)
    weights = weights / weights.sum()
    total = sum(exponents)
    betas = (0.0, 0.96, 1.0)

    def log_w(u: Any, z: Any) -> Any:
        x = jnp.full(1, u / np.sqrt(total))
        log_q = norm_log(u) + 0.5 * np.log(total)
        found = path.at(0.0).log_density(x) - log_q
        for k in range(2):
            a, b = betas[k], betas[k + 1]
            y = combination.DENOISING.forward(z[k][None], path, a, b, x, ())
            step = path.at(b).log_density(y) - path.at(a).log_density(x)
            found = found + step + combination.DENOISING.log_b_over_f(path, a, b, x, y, ())
            x = y
        return found

    def norm_log(u: Any) -> Any:
        return -0.5 * u**2 - 0.5 * np.log(2 * np.pi)

    z = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), -1).reshape(-1, 2)
    share = np.outer(weights, weights).ravel()
    table = jax.jit(jax.vmap(lambda u: jax.vmap(lambda v: log_w(u, v))(z)))(nodes)
    mean = float(weights @ (np.exp(np.asarray(table)) @ share))
    x, cell = grid(-10.0, 10.0, 4001, 1)
    truth = np.exp(log_product(x, exponents, 0.0)).sum() * cell
    assert abs(mean / truth - 1) < 2e-3, (mean, truth)


@pytest.mark.parametrize("exponents", EXPONENTS[:1], ids=str)
def test_a_denoised_product_has_the_moments_and_the_evidence_of_the_product(exponents: Any) -> None:
    x, cell = grid(-10.0, 10.0, 4001, 1)
    p = np.exp(log_product(x, exponents, 0.0)) * cell
    mean = (p @ x[:, 0]) / p.sum()
    made = [
        combination.denoise_product(key, experts(), 1000, exponents, steps=16)
        for key in jax.random.split(jax.random.key(0), 12)
    ]
    ratios = np.exp([float(m.log_z) for m in made]) / p.sum()
    weighted = np.array([float(m.weights @ m.x[:, 0]) for m in made]) * ratios
    for values, truth in ((ratios, 1.0), (weighted, mean)):
        assert abs(values.mean() - truth) < 5 * values.std(ddof=1) / np.sqrt(12)
    assert ratios.std() < 0.1


def test_where_all_laws_are_standard_normal_no_step_adds_to_the_weights() -> None:
    unit = noised_mixture([1.0], [[0.0]], [[[1.0]]])
    path = combination.noised_product((unit, unit), (1.4, 0.8))

    @jax.jit
    def gains(x: Any, y: Any) -> Any:
        step = path.at(0.7).log_density(y) - path.at(0.2).log_density(x)
        log_g = step + combination.DENOISING.log_b_over_f(path, 0.2, 0.7, x, y, ())
        return jnp.stack([log_g, score_product.growth(path, x, 0.4)])

    assert np.abs(gains(jnp.array([1.3]), jnp.array([-0.4]))).max() < 1e-9


@pytest.mark.parametrize("exponents", EXPONENTS[1:], ids=str)
def test_weights_by_scores_alone_are_off_by_the_first_order(exponents: Any) -> None:
    """E[Ẑ] as a product of transfer operators on a grid: no sampling at all."""
    noise = Noise(0.1, 60.0)
    path = combination.noised_product(experts(noise), exponents, END)
    x, cell = grid(-7.0, 7.0, 561, 1)
    truth = np.exp(log_product(x, exponents, END, noise)).sum() * cell
    total = sum(exponents)

    @jax.jit
    def step(mass: Any, a: Any, b: Any) -> Any:
        s, t = path.time(a), path.time(b)
        mean, _, variance = jax.vmap(lambda v: combination.backwards(path, a, b, v))(x)
        log_f = -0.5 * (x[:, 0] - mean) ** 2 / variance[:, None]
        log_f = log_f - 0.5 * jnp.log(2 * jnp.pi * variance)[:, None]
        growth = jax.vmap(lambda v: score_product.growth(path, v, s))(x)
        return cell * (mass * jnp.exp((s - t) * growth)) @ jnp.exp(log_f)

    errors = []
    for steps in (50, 100):
        mass = norm.pdf(x[:, 0], 0, total**-0.5) * np.exp(float(combination.log_normaliser(path)))
        for k in range(steps):
            mass = step(mass, k / steps, (k + 1) / steps)
        errors.append(abs(float(jnp.sum(mass)) * cell / truth - 1))
    assert 0.7 < np.log2(errors[0] / errors[1]) < 1.4, errors


def test_a_product_of_densities_is_a_target_for_any_engine() -> None:
    """(N(0, 1), N(1, 2)): the product is N(1/3, 2/3) with Z = N(1; 0, 3)."""
    parts = [noised_mixture([1.0], [[m]], [[[v]]]) for m, v in ((0.0, 1.0), (1.0, 2.0))]
    target = combination.product(parts)
    x = jnp.array([0.4])
    truth = norm.logpdf(0.4, 1 / 3, np.sqrt(2 / 3)) + norm.logpdf(1.0, 0.0, np.sqrt(3.0))
    assert np.isclose(target.log_density(x), truth)
    assert np.isclose(target.tempered(0.0).log_density(x), norm.logpdf(0.4))
    half = combination.product(parts, (0.5, 0.5)).log_density(x)
    assert np.isclose(half, 0.5 * sum(p.log_prob(x) for p in parts))
    fit = infer(target, "importance", draws=2000, chains=2, seed=1)
    found = fit.log_evidence
    assert abs(found.value - norm.logpdf(1.0, 0.0, np.sqrt(3.0))) < 5 * found.error


# Engines


@pp.model
def squares() -> None:
    a = pp.sample("a", dist.Normal(0, 2))
    with pp.plate("i", 3):
        pp.sample("y", dist.Normal(a * a, 1.0))


def evidence() -> float:
    at, cell = grid(-8.0, 8.0, 8001, 1)
    log_g = norm.logpdf(np.array([3.0, 3.6, 2.7]), at**2, 1).sum(1) + norm.logpdf(at[:, 0], 0, 2)
    return float(np.log(np.exp(log_g).sum() * cell))


def test_an_engine_learns_from_an_earlier_fit_of_a_model_with_two_modes() -> None:
    posterior = squares().observe(y=[3.0, 3.6, 2.7])
    earlier = posterior.infer("importance", draws=2000, chains=1, seed=1)
    settings = {"steps": 200, "width": 16, "grid": 12, "group": 32}
    fit = posterior.infer(
        "flow_matching", earlier=earlier, chains=2, draws=1000, seed=2, **settings
    )
    found = fit.log_evidence
    assert abs(found.value - evidence()) < 5 * found.error and found.error < 0.05
    assert fit.attrs["gradients"]["sampling"] == 2000
    assert max(fit.attrs["weights"]["k_hat"]) < 0.7
    assert 0.4 < (fit.draws("a") > 0).mean() < 0.6


def test_without_earlier_draws_the_engine_makes_its_own_and_counts_them() -> None:
    posterior = squares().observe(y=[3.0, 3.6, 2.7])
    engine = SchroedingerBridge(warm="importance", pilots=2000, components=6, steps=100, points=32)
    made = engine.populate(jax.random.key(0), posterior.target(), 1000, silent)
    assert made.gradients >= 1000 + 2000
    assert made.notes[0].startswith("Learned from 2000 particles of 'importance'")
    assert made.stats["loss"].shape == (100,)
    assert abs(float(made.population.log_z) - evidence()) < 5 * made.log_z_error < 0.25


def test_a_learned_density_is_a_proposal_in_chains() -> None:
    """Independence Metropolis on two modes: both are visited in their shares, and often left."""
    proposal = flow_proposal(jax.random.key(0), draws_of_two_modes(), SHORT)
    kernel = Independence()

    def chain(key: Any, x: Any) -> Any:
        state = kernel.init(key, TARGET, x, proposal)

        def step(state: Any, k: Any) -> tuple[Any, Any]:
            state, info = kernel.step(k, TARGET, state, proposal)
            return state, (state.x[0], info["acceptance_rate"])

        return jax.lax.scan(step, state, jax.random.split(key, 40))[1]

    keys = jax.random.split(jax.random.key(1), 100)
    start = jnp.asarray(draws_of_two_modes(100))
    x, accepted = (np.asarray(v) for v in jax.jit(jax.vmap(chain))(keys, start))
    share = (x > 0).mean(axis=1)
    # Started in the target: chains are independent, so their shares tell the error.
    assert abs(share.mean() - 0.7 * norm.cdf(4) - 0.3 * norm.cdf(-2)) < 5 * share.std() / 10
    assert accepted.mean() > 0.5


# What cannot be learned from, and what is out of range


POINTS = np.random.default_rng(0).standard_normal((40, 2))
LOADED = SimpleNamespace(population=None, result=None, posterior=object())


@pytest.mark.parametrize(
    ("draws", "error", "says"),
    [
        (np.zeros(5), SettingsError, r"shape \[n, d\]"),
        (POINTS[:4], SettingsError, "at least 8"),
        (np.where(np.arange(40)[:, None] == 3, np.nan, POINTS), SettingsError, "NaN"),
        (np.where(np.arange(2) == 1, 1.0, POINTS), SettingsError, "Coordinate 1"),
        ("smc", SettingsError, "neither a fit"),
        (Samples(POINTS, np.full(40, -1.0)), SettingsError, "weight"),
        (Samples(POINTS, np.zeros(40)), SettingsError, "zero"),
        (LOADED, UnsupportedError, "loaded"),
        (
            Population(POINTS, np.where(np.arange(40) == 0, 0.0, -np.inf), 0.0),
            SettingsError,
            "worth 1.0",
        ),
    ],
)
def test_draws_that_cannot_be_learned_from(draws: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        samples_of(draws)


def test_draws_of_another_model_and_targets_that_no_density_on_r_d_describes() -> None:
    engine = FlowMatching(earlier=POINTS[:, :1])
    with pytest.raises(SettingsError, match="have 1 coordinates, but the target has 2"):
        engine.populate(jax.random.key(0), TARGET, 10, silent)
    finite = FiniteTarget(jnp.zeros(3), jnp.zeros(3))
    with pytest.raises(UnsupportedError, match="no gradient"):
        engine.populate(jax.random.key(0), finite, 10, silent)
    with pytest.raises(UnsupportedError, match="makes no weighted population"):
        FlowMatching(warm="nuts").populate(jax.random.key(0), TARGET, 10, silent)
    with pytest.raises(SettingsError, match="nothing can be learned"):
        SchroedingerBridge(earlier=np.zeros((20, 2)))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: FlowMatching(coupling="exat"), "Did you mean 'exact'"),
        (lambda: FlowMatching(interpolant="line"), "Did you mean 'linear'"),
        (lambda: FlowMatching(grid=0), "grid"),
        (lambda: FlowMatching(defence=1.5), "defence"),
        (lambda: FlowMatching(rate=0.0), "rate"),
        (lambda: FlowMatching(warm=3), "population engine"),
        (lambda: SchroedingerBridge(epsilon=0.0), "epsilon"),
        (lambda: SchroedingerBridge(components=0), "components"),
        (lambda: SchroedingerBridge(points=3), "points"),
        (lambda: ProbabilityFlow("rk5"), "Did you mean 'rk4'"),
        (lambda: Exponential(4), "1, 2 or 3"),
        (lambda: Multistep(0), "1, 2 or 3"),
        (lambda: PredictorCorrector(Multistep(2)), "one-step"),
        (lambda: Noise().grid(10, 0.0), "end"),
        (lambda: Noise().grid(10, 0.1, "even"), "spacing"),
        (lambda: denoise(jax.random.key(0), EulerMaruyama, Line(), 5, [1.0, 0.5]), "integrator"),
        (lambda: denoise(jax.random.key(0), EulerMaruyama(), Line(), 5, [0.5, 1.0]), "descend"),
        (lambda: noised_mixture([1.0], [[0.0]], [[[-1.0]]]), "positive definite"),
        (lambda: noised_mixture([1.0], [0.0], [[[1.0]]]), r"\[K\]"),
        (lambda: combination.product([]), "no law"),
        (lambda: combination.product(experts(), (1.0,)), "2 finite numbers"),
        (lambda: combination.noised_product(experts(), (1.0, -1.0)), "must be positive"),
        (lambda: combination.noised_product((experts()[0], *experts(Noise(0.1, 9.0)))), "noised"),
        (lambda: couplings.assignment(np.zeros((2, 1)), np.zeros((3, 1))), "one shape"),
        (lambda: couplings.assignment(np.full((2, 1), np.nan), np.zeros((2, 1))), "NaN"),
    ],
)
def test_settings_out_of_range(make: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        make()


def test_laws_without_a_density_are_not_combined_as_if_they_had_one() -> None:
    score_only = SimpleNamespace(dim=1, noise=Noise(), score=Line().score)
    with pytest.raises(UnsupportedError, match="denoise_scores"):
        combination.denoise_product(jax.random.key(0), (score_only,), 10)
    with pytest.raises(UnsupportedError, match="denoise_product"):
        combination.product((score_only,))
    bare = SimpleNamespace(dim=1, log_prob=None, sample=None)
    with pytest.raises(UnsupportedError, match="no score"):
        combination.noised_product((bare,))


def test_a_field_that_is_too_steep_for_its_steps_is_refused() -> None:
    steep = some_flow().velocity
    with pytest.raises(UnsupportedError, match="Use at least 10 steps"):
        discrete_flow(steep, 5)
    with pytest.raises(UnsupportedError, match="Lipschitz"):
        discrete_flow(SimpleNamespace(dim=2), 5)
    with pytest.raises(SettingsError, match="3 and 2 coordinates"):
        discrete_flow(steep, 10, identity(3, float))


def test_a_regression_that_diverges_goes_back_to_what_was_good() -> None:
    def rows(rng: np.random.Generator, count: int) -> Any:
        rows.calls += 1
        return np.full(count, np.nan if rows.calls > 1 else 1.0)

    rows.calls = 0
    made = regress(np.random.default_rng(0), jnp.zeros(()), _square, rows, Schedule(100, 2), silent)
    assert len(made.losses) == 100 and "diverged after 100 of 100 steps" in made.notes[0]
    assert 0.0 < float(made.model) < 1.0


def _square(model: Any, row: Any) -> Any:
    return (model - row) ** 2
