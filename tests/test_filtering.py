"""Chains: filtering, smoothing and draws of paths by inverting a scan step by step."""

from __future__ import annotations

import itertools
from functools import lru_cache

import jax
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm, poisson

import ppcore as pp
from ppcore import dist
from ppcore.errors import ModelError, UnsupportedError
from ppcore.exact import NotExact, ZeroEvidenceError, solve
from ppcore.exact.forward_backward_solver import solve_forward_backward
from ppcore.exact.gaussian import solve_gaussian
from ppcore.exact.kalman_solver import solve_kalman

DRAWS = 4000
SIGMAS = 5.5  # a false alarm in fewer than 4e-8 of comparisons


def kalman(model):
    return solve_kalman(model.diagram, model.data, model.evidence)


def dense(model):
    return solve_gaussian(model.diagram, model.data, model.evidence)


def finite(model):
    return solve_forward_backward(model.diagram, model.data, model.evidence)


# -- linear-Gaussian chains ----------------------------------------------------------------------


@pp.model
def trend(n, keep=True):
    """A local linear trend with a random drift and a forecast."""
    level = pp.sample("level0", dist.Normal(0, 3))
    slope = pp.sample("slope0", dist.Normal(0, 1))
    pp.sample("early", dist.Normal(level + slope, 0.5))
    drift = pp.sample("drift", dist.Normal(0, 0.5))

    def step(carry, _):
        level, slope = carry
        pp.sample("y", dist.Normal(level, 0.5))
        level = pp.sample("level", dist.Normal(level + slope + drift, 0.3))
        slope = pp.sample("slope", dist.Normal(slope, 0.1))
        pp.deterministic("mix", level - 2 * slope)
        return (level, slope), None

    (level, slope), _ = pp.scan(step, (level, slope), length=n)
    pp.sample("next", dist.Normal(level + slope, 0.5))


@lru_cache
def trend_solutions():
    y = np.cumsum(np.random.default_rng(0).normal(size=25))
    model = trend(25).observe(y=y, early=0.4)
    return kalman(model), dense(model)


def test_composed_inverses_are_the_inverse_of_the_composite() -> None:
    """The chain rule: inverting step by step agrees with conditioning the joint at once."""
    chain, whole = trend_solutions()
    assert chain.log_evidence == pytest.approx(whole.log_evidence, abs=1e-10)
    for site in ("level", "slope", "mix", "level0", "slope0", "drift"):
        ours, theirs = chain.marginal(site), whole.marginal(site)
        np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-10)
        np.testing.assert_allclose(ours.cov, theirs.cov, atol=1e-10)
        np.testing.assert_allclose(ours.variance, theirs.variance, atol=1e-10)


def test_drawn_paths_follow_the_joint_posterior() -> None:
    chain, whole = trend_solutions()
    draws = chain.sample(jax.random.key(2), DRAWS)
    assert set(draws) == set(chain.sites) and draws["level"].shape == (DRAWS, 25)
    np.testing.assert_allclose(draws["mix"], draws["level"] - 2 * draws["slope"], atol=1e-12)
    law = whole.joint("level0", "drift", "level", "slope", "next")
    parts = [draws[s].reshape(DRAWS, -1) for s in ("level0", "drift", "level", "slope", "next")]
    flat = np.concatenate(parts, axis=1)
    sd = np.sqrt(np.diagonal(law.cov))
    assert abs((flat.mean(0) - law.mean) / sd).max() < SIGMAS / np.sqrt(DRAWS)
    correlation = law.cov / np.outer(sd, sd)
    error = (np.cov(flat.T) - law.cov) / np.outer(sd, sd)
    assert (abs(error) < SIGMAS * np.sqrt((1 + correlation**2) / DRAWS)).all()


def test_what_lies_behind_the_chain_is_drawn_only() -> None:
    chain, _ = trend_solutions()
    with pytest.raises(NotExact, match="'next'"):
        chain.marginal("next")
    with pytest.raises(ModelError, match="Did you mean 'slope'"):
        chain.marginal("slop")


def state_space(y, design, transition, selection, noise, obs, initial_cov):
    """statsmodels' smoother of a state-space model that starts at mean zero."""
    from statsmodels.tsa.statespace.kalman_smoother import KalmanSmoother

    y = np.asarray(y, float).reshape(len(y), -1)
    k = len(transition)
    model = KalmanSmoother(y.shape[1], k, k_posdef=len(noise))
    model.bind(np.array(y))
    model["design"], model["transition"] = design, transition
    model["selection"], model["state_cov"], model["obs_cov"] = selection, noise, obs
    model.initialize_known(np.zeros(k), initial_cov)
    model.tolerance = 0  # never take the filter for converged
    return model.smooth()


@pp.model
def pair(n, a, q, h, r):
    x = pp.sample("x0", dist.MultivariateNormal(np.zeros(2), np.eye(2)))

    def step(x, _):
        pp.sample("y", dist.MultivariateNormal(h @ x, r))
        return pp.sample("x", dist.MultivariateNormal(a @ x, q)), None

    pp.scan(step, x, length=n)


def test_agreement_with_statsmodels() -> None:
    rng = np.random.default_rng(1)
    a, h = np.array([[0.9, 0.3], [-0.2, 0.7]]), rng.normal(size=(3, 2))
    q, r = np.array([[0.3, 0.1], [0.1, 0.2]]), np.eye(3) * 0.4 + 0.1
    y = rng.normal(size=(300, 3))
    chain = kalman(pair(300, a, q, h, r).observe(y=y))
    theirs = state_space(y, h, a, np.eye(2), q, r, np.eye(2))
    assert chain.log_evidence == pytest.approx(theirs.llf, abs=1e-8)
    np.testing.assert_allclose(chain.means, theirs.predicted_state.T[:300], atol=1e-8)
    roots = np.asarray(chain.roots)
    predicted = theirs.predicted_state_cov.transpose(2, 0, 1)[:300]
    np.testing.assert_allclose(roots @ roots.swapaxes(1, 2), predicted, atol=1e-8)
    ours, later = chain.marginal("x"), slice(1, None)
    np.testing.assert_allclose(ours.mean[:-1], theirs.smoothed_state.T[later], atol=1e-8)
    smoothed = theirs.smoothed_state_cov.transpose(2, 0, 1)
    np.testing.assert_allclose(ours.covs[:-1], smoothed[later], atol=1e-8)
    np.testing.assert_allclose(chain.marginal("x0").mean, theirs.smoothed_state[:, 0], atol=1e-8)


@pp.model
def companion(n):
    """An AR(2) in companion form: the state's noise has rank one, the start is known."""

    def step(carry, _):
        x, before = carry
        new = pp.sample("x", dist.Normal(1.2 * x - 0.4 * before, 0.7))
        pp.sample("y", dist.Normal(new, 0.2))
        return (new, x), None

    pp.scan(step, (np.array(0.0), np.array(0.0)), length=n)


def test_a_singular_transition_and_a_known_start() -> None:
    y = np.random.default_rng(2).normal(size=200)
    chain = kalman(companion(200).observe(y=y))
    transition = np.array([[1.2, -0.4], [1, 0]])
    start = np.diag([0.49, 0.0])
    theirs = state_space(y, [[1, 0]], transition, [[1], [0]], [[0.49]], [[0.04]], start)
    assert chain.log_evidence == pytest.approx(theirs.llf, abs=1e-8)
    np.testing.assert_allclose(chain.marginal("x").mean, theirs.smoothed_state[0], atol=1e-8)
    np.testing.assert_allclose(
        chain.marginal("x").variance, theirs.smoothed_state_cov[0, 0], atol=1e-8
    )


@pp.model
def exact_sum(n):
    """Evidence without noise: x moves by known steps in total."""

    def step(carry, _):
        a = pp.sample("a", dist.Normal(0, 1))
        b = pp.sample("b", dist.Normal(0, 2))
        total = carry + a + b
        pp.sample("seen", dist.Delta(total))
        pp.sample("twice", dist.Delta(2 * total))
        return total, None

    pp.scan(step, np.array(0.0), length=n)


def test_evidence_without_noise() -> None:
    seen = np.array([1.0, 3.0, 2.0])
    chain = kalman(exact_sum(3).observe(seen=seen, twice=2 * seen))
    moves = np.diff(np.r_[0, seen])
    np.testing.assert_allclose(chain.marginal("a").mean, moves / 5, atol=1e-12)
    np.testing.assert_allclose(chain.marginal("a").variance, 0.8, atol=1e-12)
    expected = norm(0, np.sqrt(5)).logpdf(moves).sum()
    assert chain.log_evidence == pytest.approx(expected)
    bad = np.array([2.0, 6.1, 4.0])
    with pytest.raises(ZeroEvidenceError, match="step 1"):
        kalman(exact_sum(3).observe(seen=seen, twice=bad))


@pp.model
def seasonal(x, keep, reverse):
    """Inputs that vary, a counter in the carry, elements that are missing."""

    def step(carry, element):
        level, t = carry
        z, seen = element
        with pp.plate("sensor", 2):
            pp.sample("y", dist.Normal(level * z, np.exp(-0.1 * t)).mask(seen))
        level = pp.sample("level", dist.Normal(0.9 * level + t / 10, 0.5 + 0.1 * t))
        return (level, t + 1), None

    start = pp.sample("start", dist.Normal(0, 1))
    pp.scan(step, (start, np.array(0.0)), (x, keep), reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
def test_steps_that_differ_and_missing_elements(reverse) -> None:
    rng = np.random.default_rng(3)
    keep = rng.random((8, 2)) < 0.7
    model = seasonal(rng.normal(size=8), keep, reverse).observe(y=rng.normal(size=(8, 2)))
    chain, whole = kalman(model), dense(model)
    assert chain.log_evidence == pytest.approx(whole.log_evidence, abs=1e-10)
    for site in ("level", "start"):
        np.testing.assert_allclose(chain.marginal(site).mean, whole.marginal(site).mean, atol=1e-10)
        np.testing.assert_allclose(chain.marginal(site).cov, whole.marginal(site).cov, atol=1e-10)
    draws = chain.sample(jax.random.key(0), 2000)["level"]
    z = (draws.mean(0) - whole.marginal("level").mean) / draws.std(0) * np.sqrt(2000)
    assert abs(z).max() < SIGMAS


@pp.model
def walk(n):
    def step(x, _):
        x = pp.sample("x", dist.Normal(x, 0.1))
        pp.sample("y", dist.Normal(x, 1.0))
        return x, None

    pp.scan(step, pp.sample("x0", dist.Normal(0, 1)), length=n)


def test_a_hundred_thousand_steps() -> None:
    n = 100_000
    y = np.random.default_rng(4).normal(size=n)
    chain = kalman(walk(n).observe(y=y))
    theirs = state_space(y, [[1]], [[1]], [[1]], [[0.01]], [[1]], [[1.01]])
    assert chain.log_evidence == pytest.approx(theirs.llf, rel=1e-10)
    np.testing.assert_allclose(chain.marginal("x").mean, theirs.smoothed_state[0], atol=1e-8)
    with pytest.raises(UnsupportedError, match="step by step"):
        _ = chain.marginal("x").cov


def test_models_that_are_no_linear_gaussian_chain() -> None:
    @pp.model
    def logistic(n):
        def step(x, _):
            return pp.sample("x", dist.Normal(3 * x * (1 - x), 0.1)), None

        pp.scan(step, pp.sample("x0", dist.Normal(0, 1)), length=n)

    with pytest.raises(NotExact, match="'multiply'") as caught:
        kalman(logistic(3))
    assert caught.value.solver == "kalman"

    @pp.model
    def behind(n):
        x, _ = pp.scan(lambda x, _: (pp.sample("x", dist.Normal(x, 1)), None), 0.0 * X0, length=n)
        pp.sample("y", dist.Normal(x, 1.0))

    X0 = np.array(0.0)
    with pytest.raises(NotExact, match="evidence about the chain's results"):
        kalman(behind(3).observe(y=1.0))
    assert solve_of(behind(3).observe(y=1.0)) == "gaussian"

    @pp.model
    def flat():
        pp.sample("x", dist.Normal(0, 1))

    with pytest.raises(NotExact, match="no scan"):
        kalman(flat())


def solve_of(model) -> str:
    return solve(model.diagram, model.data, model.evidence).solver


# -- finite chains -------------------------------------------------------------------------------

START = np.array([0.5, 0.3, 0.2])
MOVES = np.array([[0.9, 0.05, 0.05], [0.1, 0.8, 0.1], [0.0, 0.3, 0.7]])
MEANS = np.array([-1.0, 0.0, 2.0])


@pp.model
def weather(x, moves):
    first = pp.sample("first", dist.Categorical(START))

    def step(z, offset):
        new = pp.sample("z", dist.Categorical(pp.math.get_at(moves, z)))
        pp.sample("y", dist.Normal(pp.math.get_at(MEANS, new) + offset, 1.0))
        pp.deterministic("stay", 1 * (new == z))
        return new, None

    z, _ = pp.scan(step, first, x)
    pp.sample("after", dist.Normal(pp.math.get_at(MEANS, z), 0.1))


def enumerate_paths(y, x):
    """{(first, z…): log p(path, y)} by hand."""
    out = {}
    with np.errstate(divide="ignore"):
        for path in itertools.product(range(3), repeat=len(y) + 1):
            log = np.log(START[path[0]])
            for t in range(len(y)):
                log += np.log(MOVES[path[t], path[t + 1]])
                log += norm.logpdf(y[t], MEANS[path[t + 1]] + x[t])
            out[path] = log
    return out


@lru_cache
def weather_solution():
    rng = np.random.default_rng(5)
    y, x = rng.normal(size=6), rng.normal(size=6)
    return finite(weather(x, MOVES).observe(y=y)), enumerate_paths(y, x)


def test_forward_backward_agrees_with_enumeration() -> None:
    chain, paths = weather_solution()
    total = logsumexp(list(paths.values()))
    assert chain.log_evidence == pytest.approx(total, abs=1e-12)
    share = {p: np.exp(v - total) for p, v in paths.items()}
    z, first, stay = np.zeros((6, 3)), np.zeros(3), np.zeros((6, 2))
    for path, p in share.items():
        first[path[0]] += p
        for t in range(6):
            z[t, path[t + 1]] += p
            stay[t, int(path[t] == path[t + 1])] += p
    np.testing.assert_allclose(chain.marginal("z").probs, z, atol=1e-12)
    np.testing.assert_allclose(chain.marginal("first").probs, first, atol=1e-12)
    np.testing.assert_allclose(chain.marginal("stay").probs, stay, atol=1e-12)


def test_drawn_finite_paths_follow_the_joint_posterior() -> None:
    """Every path's frequency, by its own binomial error."""
    chain, paths = weather_solution()
    draws = chain.sample(jax.random.key(1), DRAWS)
    assert (draws["stay"][:, 1:] == (draws["z"][:, 1:] == draws["z"][:, :-1])).all()
    total = logsumexp(list(paths.values()))
    drawn = np.concatenate([draws["first"][:, None], draws["z"]], axis=1)
    codes = drawn @ 3 ** np.arange(7)[::-1]
    counts = np.bincount(codes, minlength=3**7)
    p = np.exp(np.array(list(paths.values())) - total)
    assert not counts[p == 0].any()
    expected, common = DRAWS * p, DRAWS * p > 5
    assert common.sum() > 50
    off = (counts - expected)[common] / np.sqrt(expected * (1 - p))[common]
    assert abs(off).max() < SIGMAS
    assert poisson(expected[~common].sum()).sf(counts[~common].sum()) > 1e-8
    means = MEANS[draws["z"][:, -1]]
    assert abs((draws["after"] - means).mean()) < SIGMAS * 0.1 / np.sqrt(DRAWS)


def test_finite_chains_in_reverse_with_several_leaves() -> None:
    """A second-order chain run backwards in time: the carry is a pair."""

    @pp.model
    def second(n, reverse):
        def step(carry, _):
            a, b = carry
            new = pp.sample("z", dist.Bernoulli(0.2 + 0.3 * a + 0.4 * b))
            pp.sample("y", dist.Normal(1.0 * new, 0.5))
            return (new, a), None

        pp.scan(step, (np.array(0), np.array(1)), length=n, reverse=reverse)

    y = np.random.default_rng(6).normal(size=5)
    logs, paths = [], list(itertools.product((0, 1), repeat=5))
    for path in paths:
        log, (a, b) = 0.0, (0, 1)
        for new, value in zip(path, y[::-1], strict=True):
            p = 0.2 + 0.3 * a + 0.4 * b
            log += np.log(p if new else 1 - p) + norm.logpdf(value, new, 0.5)
            a, b = new, a
        logs.append(log)
    chain = finite(second(5, True).observe(y=y))
    assert chain.log_evidence == pytest.approx(logsumexp(logs), abs=1e-12)
    ones = (np.exp(np.array(logs) - logsumexp(logs)) @ np.array(paths))[::-1]
    np.testing.assert_allclose(chain.marginal("z").mean, ones, atol=1e-12)


def test_no_underflow() -> None:
    """Evidence that one state alone explains, 40 standard deviations from the others."""
    y = np.where(np.arange(400) % 2, -60.0, 60.0)
    chain = finite(weather(np.zeros(400), MOVES * 0.98 + 0.02 / 3).observe(y=y))
    assert np.isfinite(chain.log_evidence)
    np.testing.assert_array_equal(chain.marginal("z").probs.argmax(1), np.where(y > 0, 2, 0))


def test_impossible_evidence_names_its_step() -> None:
    @pp.model
    def stuck(n):
        def step(z, _):
            new = pp.sample("z", dist.Categorical(pp.math.get_at(np.eye(2), z)))
            pp.sample("y", dist.Delta(1.0 * new))
            return new, None

        pp.scan(step, np.array(0), length=n)

    with pytest.raises(ZeroEvidenceError, match="step 2"):
        finite(stuck(4).observe(y=np.array([0.0, 0, 1, 0])))


def test_a_hundred_thousand_finite_steps() -> None:
    n = 100_000
    y = np.random.default_rng(7).normal(size=n)
    model = weather(np.zeros(n), MOVES).observe(y=y)
    chain = finite(model)
    with np.errstate(divide="ignore"):
        alpha, log_moves = np.log(START), np.log(MOVES)
    emission = norm.logpdf(y[:2000, None], MEANS)
    for t in range(2000):
        alpha = logsumexp(alpha[:, None] + log_moves, axis=0) + emission[t]
    assert float(np.sum(chain.norms[:2000])) == pytest.approx(logsumexp(alpha), rel=1e-10)
    probs = chain.marginal("z").probs
    np.testing.assert_allclose(probs.sum(1), 1.0, atol=1e-9)


def test_infer_takes_chains() -> None:
    model = weather(np.zeros(10), MOVES).observe(y=np.linspace(-2, 2, 10))
    assert solve_of(model) == "forward_backward"
    assert solve_of(walk(10).observe(y=np.zeros(10))) == "kalman"
    fit = walk(10).observe(y=np.zeros(10)).infer("exact", seed=1, draws=100)
    assert fit.draws("x").shape[-1] == 10


def test_finite_chains_are_refused_with_the_site() -> None:
    with pytest.raises(NotExact, match="'x'") as caught:
        finite(walk(3).observe(y=np.zeros(3)))
    assert caught.value.solver == "forward_backward"

    @pp.model
    def captured(n):
        bias = pp.sample("bias", dist.Bernoulli(0.5))

        def step(z, _):
            return pp.sample("z", dist.Bernoulli(0.3 + 0.4 * bias)), None

        pp.scan(step, np.array(0), length=n)

    with pytest.raises(NotExact, match="must be known"):
        finite(captured(3))
    assert solve_of(captured(3)) == "tensor"
