"""The classic kernels: what each does to a distribution, exactly where that can be had."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_mcmc.barker import Barker
from ppcore_mcmc.elliptical_slice import EllipticalSlice
from ppcore_mcmc.fitted import elliptical_slice, independence
from ppcore_mcmc.graph_target import graph
from ppcore_mcmc.hmc import HMC
from ppcore_mcmc.independence import Independence
from ppcore_mcmc.pseudo_prior import StudentT, fitted
from ppcore_mcmc.random_walk import RandomWalk
from ppcore_mcmc.self_repellent import SelfRepellent, SelfRepellentKernel, log_base, log_repelled
from ppcore_mcmc.slice import Slice
from ppcore_mcmc.stretch import Stretch, Walkers, sweep
from scipy import stats

from ppcore import random
from ppcore.contract import Consistent, Density
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.precision import scope
from ppcore.target import DensityTarget
from ppcore.testing.checks import consistency
from ppcore.testing.checks.finite_kernel import transition_matrix
from ppcore.testing.models import FINITE
from ppcore.testing.session import QUICK, Session
from ppcore.testing.subject import Subject
from ppcore.tuning.preconditioner import Dense

RNG = np.random.default_rng(0)
FACTOR = np.array([[1.3, 0.0], [-0.4, 0.8]])
KEYS = jax.random.split(jax.random.key(0), 200)


@pytest.fixture(autouse=True)
def double():
    with scope("float64"):
        yield


def banana(x, data):
    return -0.5 * x[0] ** 2 - 0.5 * (x[1] - data * x[0] ** 2) ** 2


BANANA = DensityTarget(banana, 2, np.float64(0.7))
AT = np.array([0.4, -0.3])


def gaussian(x, precision):
    return -0.5 * x @ precision @ x


def steps(kernel, params, target=BANANA, x=AT):
    """``(state, info)`` of one step from x with each of ``KEYS``."""

    def one(key, target, params, x):
        k_init, k_step = jax.random.split(key)
        state = kernel.init(k_init, target, x, params)
        return kernel.step(k_step, target, state, params)

    program = jax.jit(jax.vmap(one, (0, None, None, None)), compiler_options=QUICK)
    state, info = program(KEYS, target, params, x)
    return jax.tree.map(np.asarray, (state, info))


def density(x):
    return np.asarray(jax.vmap(BANANA.log_density)(jnp.asarray(x)))


class TestMetropolis:
    """Where a step was accepted its end is the proposal, so that the ratio can be redone."""

    def moved(self, state, info):
        moved = np.any(state.x != AT, axis=1)
        assert 0.1 < moved.mean() < 1
        return state.x[moved], info["acceptance_rate"][moved]

    def test_a_random_walk_accepts_by_the_ratio_of_densities(self):
        kernel = RandomWalk()
        state, info = steps(kernel, kernel.parameters(Dense(FACTOR), 0.8, 1.0))
        y, probability = self.moved(state, info)
        want = np.minimum(1, np.exp(density(y) - density(AT[None])))
        np.testing.assert_allclose(probability, want, rtol=1e-12)
        np.testing.assert_allclose(state.log_density, density(state.x), rtol=1e-12)

    def test_barker_accepts_by_the_ratio_of_its_own_proposal_density(self):
        kernel, step = Barker(), 1.1
        state, info = steps(kernel, kernel.parameters(Dense(FACTOR), step, 1.0))
        y, probability = self.moved(state, info)
        score = jax.vmap(jax.grad(BANANA.log_density))

        def log_q(to, at):
            v = np.linalg.solve(FACTOR, (to - at).T).T
            lean = v * (np.asarray(score(jnp.asarray(at))) @ FACTOR)
            return (np.log(2) + stats.norm.logpdf(v, 0, step) - np.log1p(np.exp(-lean))).sum(1)

        here = np.broadcast_to(AT, y.shape)
        log_ratio = density(y) - density(here) + log_q(here, y) - log_q(y, here)
        np.testing.assert_allclose(probability, np.minimum(1, np.exp(log_ratio)), rtol=1e-10)

    def test_hmc_on_a_gaussian_follows_the_exact_flow_as_steps_shrink(self):
        kernel = HMC(max_steps=4096)
        target = DensityTarget(gaussian, 2, np.linalg.inv(FACTOR @ FACTOR.T))
        state, info = steps(kernel, kernel.parameters(Dense(FACTOR), 0.02, 1.5), target)
        assert info["acceptance_rate"].min() > 0.999
        # Energy ½|w|² + ½|z|² is kept and the flow is a rotation, so that the end lies in the disc.
        start = np.linalg.solve(FACTOR, AT)
        end = np.linalg.solve(FACTOR, state.x.T).T
        angle = info["n_gradients"] * 0.02
        assert angle.min() > 0.7 and angle.max() < 2.4
        momenta = end - np.cos(angle)[:, None] * start
        assert abs(np.mean((momenta / np.sin(angle)[:, None]) ** 2) - 1) < 0.35

    def test_what_is_not_a_number_is_rejected(self):
        nowhere = DensityTarget(lambda x, _: jnp.where(x[0] == AT[0], 0.0, jnp.nan), 2)
        for kernel in (RandomWalk(), Barker()):
            state, info = steps(kernel, kernel.parameters(Dense(FACTOR), 0.5, 1.0), nowhere)
            assert np.all(state.x == AT) and np.all(info["acceptance_rate"] == 0)


class TestSlice:
    @pytest.mark.parametrize("width", [0.05, 1000.0])
    def test_ends_inside_a_slice_and_within_its_budget(self, width):
        kernel = Slice(width=width, updates=1)
        state, info = steps(kernel, kernel.parameters(Dense(FACTOR), 1.0, 1.0))
        np.testing.assert_allclose(state.log_density, density(state.x), rtol=1e-12)
        assert info["n_evaluations"].max() <= kernel.max_steps + kernel.max_tries
        assert np.any(state.x != AT, axis=1).mean() > 0.95

    def test_is_uniform_on_the_slice_of_a_box(self):
        """On a flat density the slice is the whole box: one update draws t uniformly from it."""
        box = DensityTarget(lambda x, _: jnp.where(jnp.abs(x[0] - 0.3) < 1, 0.0, -jnp.inf), 1)
        kernel = Slice(width=0.7, updates=1, max_steps=50)
        params = kernel.parameters(Dense(np.eye(1)), 1.0, 1.0)
        state, _ = steps(kernel, params, box, np.array([1.1]))
        assert stats.kstest(state.x[:, 0], stats.uniform(-0.7, 2).cdf).pvalue > 1e-3

    def test_stays_when_its_tries_are_spent(self):
        needle = DensityTarget(lambda x, _: jnp.where(jnp.all(x == AT), 0.0, -jnp.inf), 2)
        kernel = Slice(max_tries=4)
        state, _ = steps(kernel, kernel.parameters(Dense(FACTOR), 1.0, 1.0), needle)
        assert np.all(state.x == AT)


class TestStudentT:
    @pytest.mark.parametrize("dof", [None, 1, 5])
    def test_has_the_density_that_scipy_has(self, dof):
        q = StudentT(AT, FACTOR, np.linalg.inv(FACTOR), dof)
        x = RNG.normal(size=(7, 2))
        same = (
            stats.multivariate_normal(AT, FACTOR @ FACTOR.T)
            if dof is None
            else stats.multivariate_t(AT, FACTOR @ FACTOR.T, df=dof)
        )
        np.testing.assert_allclose(jax.vmap(q.log_prob)(x), same.logpdf(x), rtol=1e-12)
        assert q.contract == Density() and q.dim == 2

    def test_draws_have_the_law_of_their_density(self):
        q = StudentT(np.zeros(2), FACTOR, np.linalg.inv(FACTOR), 4)
        x = q.sample(jax.random.key(1), 4000)
        square = np.sum(np.asarray(jax.vmap(q.whiten)(x)) ** 2, axis=1) / 2
        assert stats.kstest(square, stats.f(2, 4).cdf).pvalue > 1e-3

    @pytest.mark.parametrize("dof", [None, 5])
    def test_is_fitted_by_maximum_likelihood(self, dof):
        z = RNG.normal(size=(20_000, 2))
        scale = 1.0 if dof is None else np.sqrt(dof / RNG.chisquare(dof, (20_000, 1)))
        q = fitted(AT + scale * z @ FACTOR.T, dof)
        np.testing.assert_allclose(q.location, AT, atol=0.05)
        np.testing.assert_allclose(q.factor @ q.factor.T, FACTOR @ FACTOR.T, atol=0.1)


@pytest.mark.parametrize("dof", [None, 3])
def test_elliptical_slices_of_the_pseudo_prior_itself_take_the_first_try(dof):
    q = StudentT(AT, FACTOR, np.linalg.inv(FACTOR), dof)
    target = DensityTarget(lambda x, q: q.log_prob(x), 2, q)
    state, info = steps(EllipticalSlice(dof), q, target, AT + 1.0)
    assert np.all(info["n_evaluations"] == 1)
    if dof is None:  # x − m = (x₀ − m) cos θ + F z sin θ, θ uniform: variance F Fᵀ/2 around.
        spread = np.cov(state.x.T) - 0.5 * np.ones((2, 2))
        np.testing.assert_allclose(spread, 0.5 * FACTOR @ FACTOR.T, atol=0.5)


class Table:
    """A normalised distribution on the states of a finite target, drawn through ppcore.random."""

    def __init__(self, target, log_p):
        self.target, self.log_p = target, jax.nn.log_softmax(jnp.asarray(log_p))

    def sample(self, key, n):
        return self.target.states[random.categorical(key, self.log_p, (n,))]

    def log_prob(self, x):
        return self.log_p[self.target.code(x)]


@pytest.mark.parametrize("name", FINITE)
def test_independence_is_exactly_reversible(name):
    target = FINITE[name]()
    proposal = Table(target, np.random.default_rng(1).normal(size=len(target.states)))
    p = np.asarray(transition_matrix(Independence(), proposal, target))
    flow = np.asarray(jax.nn.softmax(target.log_gamma))[:, None] * p
    np.testing.assert_allclose(flow, flow.T, atol=1e-14)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-14)
    assert p.min() > 0


@pytest.mark.parametrize("make", [independence, elliptical_slice])
def test_warm_up_learns_the_distribution_without_gradients(make):
    mean = np.array([60.0, -80.0])
    precision = np.linalg.inv(FACTOR @ FACTOR.T)
    target = DensityTarget(lambda x, d: gaussian(x - d[0], d[1]), 2, (mean, precision))
    engine = make(dof=None, warmup_draws=128)
    warm = engine.warmup(jax.random.key(0), target, 32, lambda _: None)
    q = warm.tuned.params
    np.testing.assert_allclose(q.location, mean, atol=0.2)
    np.testing.assert_allclose(q.factor @ q.factor.T, FACTOR @ FACTOR.T, atol=0.3)
    assert warm.gradients == 0 and warm.x.shape == (32, 2)


def test_a_proposal_that_is_given_is_used_as_it_is():
    target = DensityTarget(gaussian, 2, np.eye(2))
    given = StudentT(np.zeros(2), np.eye(2), np.eye(2), None)
    warm = independence(given, warmup_draws=16).warmup(jax.random.key(0), target, 4, lambda _: None)
    assert warm.tuned.params is given and warm.tuned.thin == 1


class TestStretch:
    def test_commutes_with_affine_maps(self):
        """One key on a target and on its image under x → A x + b: the walkers are images too."""
        a, b = np.array([[2.0, 1.0], [0.0, 0.5]]), np.array([3.0, -1.0])
        inverse = np.linalg.inv(a)
        image = DensityTarget(lambda y, d: banana(d[0] @ (y - d[1]), 0.7), 2, (inverse, b))
        x = RNG.normal(size=(10, 2))

        quick = jax.jit(lambda k, t, at: sweep(k, t, at, 2.0)[0], compiler_options=QUICK)

        def run(key, target, x):
            at = Walkers(x, jax.vmap(target.log_density)(x))
            return quick(key, target, at).x

        plain = run(KEYS[0], BANANA, x)
        mapped = run(KEYS[0], image, x @ a.T + b)
        np.testing.assert_allclose(mapped, plain @ a.T + b, rtol=1e-9, atol=1e-9)
        assert np.any(plain != x)

    def test_too_few_walkers_are_refused(self):
        with pytest.raises(SettingsError, match="at least 6 walkers"):
            Stretch().warmup(KEYS[0], BANANA, 5, lambda _: None)


class TestSelfRepellent:
    RING = ([(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)], np.log([1.0, 2.0, 4.0, 0.5]))

    def matrix(self, target, visits, alpha):
        rows = []
        for i in range(len(target.states)):
            if visits is None:
                to, log_p = log_base(target, i)
            else:
                to, log_p = log_repelled(target, i, visits, alpha)
            p = np.exp(np.asarray(log_p - jax.nn.logsumexp(log_p)))
            rows.append(np.bincount(np.asarray(to), p, len(target.states)))
        return np.stack(rows)

    def test_the_base_chain_and_every_frozen_walk_are_exactly_reversible(self):
        target, alpha = graph(*self.RING), 2.0
        pi = np.exp(target.log_mass) / np.exp(target.log_mass).sum()
        p = self.matrix(target, None, alpha)
        np.testing.assert_allclose(pi[:, None] * p, (pi[:, None] * p).T, atol=1e-15)
        np.testing.assert_allclose(self.matrix(target, 100 * pi, alpha), p, atol=1e-15)
        visits = np.array([3.0, 7.0, 1.0, 2.0])
        repelled = (visits / pi) ** -alpha
        law = pi * repelled * (p @ repelled)
        flow = law[:, None] * self.matrix(target, visits, alpha)
        np.testing.assert_allclose(flow, flow.T, atol=1e-12 * flow.max())

    def test_repulsion_lowers_the_variance_of_averages(self):
        target = graph(*self.RING)
        x = np.asarray(target.states)[np.zeros(256, int)]
        spread = {}
        for alpha in (0.0, 10.0):
            engine = SelfRepellent(alpha)
            carry = engine.init(None, target, np.float64(alpha), x)
            _, draws, _ = engine.block(KEYS[1], target, np.float64(alpha), carry, 1024)
            spread[alpha] = np.var(np.mean(np.asarray(draws)[..., 0] == 2, axis=1))
        # The asymptotic variance falls by 2α/(1 + λ) + 1 ≥ 11 for eigenvalues |λ| ≤ 1 of P.
        assert spread[10.0] < spread[0.0] / 5

    def test_a_walk_that_forgets_the_target_is_found_out(self, monkeypatch):
        class Even(SelfRepellent):
            """Repelled towards equal visits of all states."""

            def block(self, key, target, tuned, carry, n):
                return super().block(key, target.tempered(jnp.zeros(())), tuned, carry, n)

        monkeypatch.setattr(consistency, "FINITE", {"finite_line": FINITE["finite_line"]})
        for engine, ok in ((SelfRepellent(), True), (Even(), False)):
            session = Session(Subject("walk", Consistent(), engine=engine), (), 1, 1e-4, 2000)
            (found,) = consistency.run(session)
            assert found.ok is ok, found.message
        assert "averages do not converge" in found.message

    @pytest.mark.parametrize(
        ("edges", "mass", "says"),
        [
            ([(0, 1)], [0.0, 0.0, 0.0], "node 2 cannot be reached"),
            ([(0, 3)], [0.0, 0.0], "0 to 1"),
            ([(0, 1)], [0.0, -np.inf], r"log_mass\[1\]=-inf must be finite"),
        ],
    )
    def test_graphs_that_cannot_be_walked_are_refused(self, edges, mass, says):
        with pytest.raises(SettingsError, match=says):
            graph(edges, mass)

    def test_other_targets_are_refused(self):
        with pytest.raises(UnsupportedError, match="needs a target on a finite graph"):
            SelfRepellent().warmup(KEYS[0], BANANA, 4, lambda _: None)

    def test_nothing_is_promised_of_the_kernel_but_consistency(self):
        assert SelfRepellentKernel().contract == SelfRepellent().contract == Consistent()


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (lambda: Slice(width=0.0), "width=0.0"),
        (lambda: Slice(updates=0), "updates=0"),
        (lambda: EllipticalSlice(dof=0), "dof=0"),
        (lambda: HMC(max_steps=0), "max_steps=0"),
        (lambda: Stretch(stretch=1.0), "stretch=1.0"),
        (lambda: SelfRepellent(alpha=-1.0), "alpha=-1.0"),
        (lambda: independence(dof=1.5), "dof=1.5"),
    ],
)
def test_bad_settings_are_refused(build, says):
    with pytest.raises(SettingsError, match=says):
        build()
