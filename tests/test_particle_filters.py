"""Particle methods on scans: exact by enumeration on tiny models, near closed forms on others."""

from __future__ import annotations

import itertools
import warnings
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_smc.ancestor_sampling import smooth_step
from ppcore_smc.auxiliary_filter import Auxiliary
from ppcore_smc.bootstrap_filter import Bootstrap
from ppcore_smc.ffbsi import backward_paths
from ppcore_smc.filtering import run_filter, traced
from ppcore_smc.guided_filter import Guided
from ppcore_smc.learned_proposal import Unlearned
from ppcore_smc.lineage import lineage_variance
from ppcore_smc.particle_filter import ParticleFilter
from ppcore_smc.particle_gibbs import GibbsKernel, ParticleGibbs
from ppcore_smc.pmmh import PMMH
from ppcore_smc.smc2 import SMC2

import ppcore as pp
from ppcore import dist, precision, random
from ppcore.errors import PopulationError, SettingsError, UnsupportedError
from ppcore.report import SamplingWarning
from ppcore.state_space import state_space

MOVE, EMIT = np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([[0.9, 0.1], [0.25, 0.75]])
FIRST = np.array([0.6, 0.4])
SIGMAS = 4.5  # a false alarm in fewer than 1e-5 of comparisons


@pp.model
def hidden(n):
    z = pp.sample("z0", dist.Categorical(probs=FIRST))

    def step(z, _):
        z = pp.sample("z", dist.Categorical(probs=pp.math.get_at(MOVE, z)))
        pp.sample("y", dist.Categorical(probs=pp.math.get_at(EMIT, z)))
        return z, None

    pp.scan(step, z, length=n)


@pp.model
def remembering(n):
    """The carry holds the last two states: ancestors are weighed by two steps ahead."""
    a = pp.sample("a", dist.Categorical(probs=FIRST))

    def step(carry, _):
        new, old = carry
        probs = 0.5 * (pp.math.get_at(MOVE, new) + pp.math.get_at(EMIT, old))
        z = pp.sample("z", dist.Categorical(probs=probs))
        pp.sample("y", dist.Categorical(probs=pp.math.get_at(EMIT, z)))
        return (z, new), None

    pp.scan(step, (a, a), length=n)


@pp.model
def walk(n, reverse=False):
    x = pp.sample("x0", dist.Normal(0, 1))

    def step(x, _):
        x = pp.sample("x", dist.Normal(0.9 * x, 0.5))
        pp.sample("y", dist.Normal(x, 0.4))
        return x, None

    pp.scan(step, x, length=n, reverse=reverse)


@pp.model
def unknown(n):
    phi = pp.sample("phi", dist.Beta(8, 2))

    def step(x, _):
        x = pp.sample("x", dist.Normal(phi * x, 0.5))
        pp.sample("y", dist.Normal(x, 0.4))
        return x, None

    pp.scan(step, pp.sample("x0", dist.Normal(0, 1)), length=n)


@pp.model
def second_order(n):
    a, b = pp.sample("a", dist.Normal(0, 1)), pp.sample("b", dist.Normal(0, 1))

    def step(carry, _):
        u, v = carry
        w = pp.sample("x", dist.Normal(0.6 * u + 0.3 * v, 0.5))
        pp.sample("y", dist.Normal(w, 0.4))
        return (w, u), None

    pp.scan(step, (a, b), length=n)


Y = np.array([0.2, -0.3, 0.5, 1.1, 0.8, 0.1, -0.6, -0.2])


def space_of(model):
    with precision.scope("float64"):
        return state_space(model.target())


def quietly(model, engine, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        return model.infer(engine, progress="off", seed=1, **settings)


# -- reading a model -----------------------------------------------------------------------------


def test_sites_are_told_apart_by_what_they_reach() -> None:
    plan = space_of(unknown(4).observe(y=Y[:4])).plan
    assert (plan.parameters, plan.initial, plan.states) == (("phi",), ("x0",), ("x",))
    assert plan.memory == 1
    plan = space_of(second_order(4).observe(y=Y[:4])).plan
    assert (plan.initial, plan.memory) == (("a", "b"), 2)


@pp.model
def summing(n):
    """The carry's second part is a sum, which never forgets; its third counts, alike for all."""

    def step(carry, _):
        x, total, count = carry
        x = pp.sample("x", dist.Normal(x, 1))
        pp.sample("y", dist.Normal(total + 0.0 * count, 1))
        return (x, total + x, count + 1), None

    pp.scan(step, (pp.sample("x0", dist.Normal(0, 1)), 0.0, 0), length=n)


def test_a_sum_in_the_carry_is_never_forgotten() -> None:
    assert space_of(summing(3).observe(y=Y[:3])).plan.memory is None


def test_what_is_no_state_space_model_is_refused() -> None:
    @pp.model
    def plain():
        pp.sample("y", dist.Normal(pp.sample("mu", dist.Normal(0, 1)), 1))

    with pytest.raises(UnsupportedError, match="one pp.scan"):
        plain().observe(y=1.0).infer("particle_filter", seed=1)
    with pytest.raises(UnsupportedError, match="discrete"):
        hidden(3).observe(y=[0, 1, 1]).infer(ParticleFilter(proposal="guided"), seed=1)

    @pp.model
    def flat(n):
        mu = pp.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))

        def step(x, _):
            pp.sample("y", dist.Normal(x + mu, 1))
            return pp.sample("x", dist.Normal(x, 1)), None

        pp.scan(step, 0.0, length=n)

    model = flat(3).observe(y=Y[:3])
    for engine in ("pmmh", "smc2"):
        with pytest.raises(UnsupportedError, match="proper"):
            quietly(model, engine)
    with pytest.raises(UnsupportedError, match="improper"):
        quietly(model, "particle_filter")


def test_settings_out_of_range_are_errors() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'guided'"):
        ParticleFilter(proposal="guide")
    with pytest.raises(SettingsError, match="particles"):
        PMMH(particles=1)
    with pytest.raises(SettingsError, match="threshold"):
        SMC2(threshold=1.5)


# -- exact, by enumeration -----------------------------------------------------------------------


def law(model, names):
    """γ of every path of a finite model, by its own joint density: {path: mass}."""
    found = {}
    space = space_of(model)
    plan = space.plan
    with precision.scope("float64"):
        for path in itertools.product([0, 1], repeat=1 + space.length):
            start = space.start(None, {plan.initial[0]: jnp.asarray(path[0])})
            carry, total = start.carry, start.log_p + start.log_g
            elements = space.elements(start.inputs)
            for t in range(space.length):
                element = jax.tree.map(lambda a, t=t: a[t], elements)
                given = {"z": jnp.asarray(path[1 + t])}
                moved = space.step(None, start.inputs, carry, element, given)
                carry, total = moved.carry, total + moved.log_p + moved.log_g
            found[path] = float(jnp.exp(total))
    return found


@pytest.mark.parametrize("scheme", ["multinomial", "systematic"])
def test_the_filter_is_properly_weighted_exactly(scheme: str) -> None:
    """E[Ẑ Σ W f(path)] = ∫ f γ with f the indicator of every path, to 1e-12."""
    model = hidden(2).observe(y=[0, 1])
    space, gamma = space_of(model), law(model, ("z0", "z"))

    def program(key):
        filtered = run_filter(key, space, {}, 2, Bootstrap(), scheme, 1.0)
        hits = jnp.zeros(8)
        for i in range(2):
            first, values = traced(filtered, jnp.asarray(i))
            code = 4 * filtered.start.values["z0"][first] + 2 * values["z"][0] + values["z"][1]
            hits = hits + jnp.exp(filtered.last.log_weight[i]) * (code == jnp.arange(8))
        return jnp.exp(filtered.log_z) * hits

    with precision.scope("float64"):
        found = np.asarray(random.expectation(program))
    np.testing.assert_allclose(found, list(gamma.values()), atol=1e-12)
    exact = np.exp(model.solve().log_evidence)
    assert found.sum() == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("model", [hidden(2), remembering(2)], ids=["markov", "two_back"])
def test_ancestor_sampling_leaves_the_smoothing_law_invariant_exactly(model) -> None:
    """πP = π over all paths with two particles, to 1e-12."""
    model = model.observe(y=[0, 1])
    space, gamma = space_of(model), law(model, None)
    first = space.plan.initial[0]
    pi = np.array(list(gamma.values()))
    pi /= pi.sum()
    paths = jnp.asarray(list(gamma))

    def row(key, path):
        moved = smooth_step(key, space, {}, {first: path[0], "z": path[1:]}, 2, Bootstrap())
        code = 4 * moved[first] + 2 * moved["z"][0] + moved["z"][1]
        return (code == jnp.arange(8)) * 1.0

    with precision.scope("float64"):
        p = np.asarray(random.expectation(row, over=paths))
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(pi @ p, pi, atol=1e-12)
    assert (p > 0).all()


# -- against closed forms ------------------------------------------------------------------------


@lru_cache
def filters(name: str):
    """log Ẑ of 200 runs of 64 particles on a linear-Gaussian walk, and the exact value."""
    model = walk(8).observe(y=Y)
    space = space_of(model)
    proposals = {
        "bootstrap": Bootstrap(),
        "guided": Guided(),
        "auxiliary": Auxiliary(),
        "learned": Unlearned(experts=2, sweeps=2, particles=128),
    }
    proposal = proposals[name]
    with precision.scope("float64"):
        if name == "learned":
            proposal = proposal.learn(jax.random.key(5), space)

        def run(k, proposal):
            return run_filter(k, space, {}, 64, proposal).log_z

        keys = jax.random.split(jax.random.key(3), 200)
        log_z = jax.jit(jax.vmap(run, (0, None)))(keys, proposal)
    return np.asarray(log_z), model.solve().log_evidence


@pytest.mark.parametrize("name", ["bootstrap", "guided", "auxiliary", "learned"])
def test_evidence_agrees_with_kalman_within_its_error(name: str) -> None:
    log_z, exact = filters(name)
    ratio = np.exp(log_z - exact)
    assert abs(ratio.mean() - 1) < SIGMAS * ratio.std() / np.sqrt(len(ratio))


def test_better_proposals_have_less_noise() -> None:
    blind = filters("bootstrap")[0].std()
    assert filters("guided")[0].std() < 0.7 * blind
    assert filters("learned")[0].std() < 0.7 * blind


def test_evidence_agrees_with_the_forward_algorithm() -> None:
    model = hidden(10).observe(y=[0, 1, 1, 0, 0, 1, 0, 1, 1, 1])
    fit = quietly(model, ParticleFilter(particles=256), draws=100)
    exact = model.solve()
    assert abs(fit.log_evidence.value - exact.log_evidence) < SIGMAS * fit.log_evidence.error
    assert 0 < fit.log_evidence.error < 0.2
    found = fit.draws("z").mean((0, 1))
    np.testing.assert_allclose(found, exact.marginal("z").mean, atol=SIGMAS * 0.5 / np.sqrt(100))


@pytest.mark.parametrize("bound", [None, "exact"])
def test_backward_paths_follow_the_smoothing_law(bound) -> None:
    model = walk(8).observe(y=Y)
    space, exact = space_of(model), model.solve()
    if bound is not None:
        bound = float(-np.log(0.5 * np.sqrt(2 * np.pi)) - np.log(0.4 * np.sqrt(2 * np.pi)))
    with precision.scope("float64"):

        def run(key):
            k_filter, k_back = jax.random.split(key)
            return backward_paths(
                k_back, run_filter(k_filter, space, {}, 1000, Guided()), 1000, bound
            )

        paths, broken = jax.jit(run)(jax.random.key(2))
    assert not broken
    for site in ("x", "x0"):
        law = exact.marginal(site)
        sd = np.sqrt(law.variance)
        drawn = np.asarray(paths[site])
        # Filter and draws both have about 1/√1000.
        assert np.max(abs(drawn.mean(0) - law.mean) / sd) < SIGMAS * np.sqrt(2 / 1000)
        assert np.max(abs(drawn.std(0) / sd - 1)) < SIGMAS * np.sqrt(1 / 1000)


def test_a_broken_bound_is_noticed() -> None:
    model = walk(4).observe(y=Y[:4])
    with pytest.raises(SettingsError, match="exceeded"):
        quietly(model, ParticleFilter(particles=64, runs=1, log_bound=-3.0), draws=20)
    with pytest.raises(SettingsError, match="log_bound"):
        memory = second_order(4).observe(y=Y[:4])
        quietly(memory, ParticleFilter(particles=64, smoothing="backward", log_bound=0.0))


def test_a_scan_that_runs_backwards_is_filtered_in_its_own_order() -> None:
    model = walk(8, True).observe(y=Y)
    fit = quietly(model, ParticleFilter(particles=500, runs=4, proposal="guided"), draws=250)
    exact = model.solve()
    assert abs(fit.log_evidence.value - exact.log_evidence) < SIGMAS * fit.log_evidence.error
    law = exact.marginal("x")
    gap = abs(fit.draws("x").mean((0, 1)) - law.mean) / np.sqrt(law.variance)
    assert gap.max() < SIGMAS * np.sqrt(2 / 1000)
    # The last step of the walk is the first element: there filter and smoother agree.
    filtered = fit.solution.filtered("x")
    assert abs(filtered.mean[0] - law.mean[0]) < 0.1 * np.sqrt(law.variance[0])


def test_families_estimate_the_error_of_one_run() -> None:
    model = walk(8).observe(y=Y)
    fit = quietly(model, ParticleFilter(particles=512, runs=8, resample="multinomial"), draws=25)
    spread = fit.solution.filtered_runs.log_z.std()
    typical = np.sqrt(np.mean(fit.solution.lineage_error**2))
    assert 0.3 < typical / spread < 3
    assert lineage_variance(np.zeros(4, int), np.log(np.full(4, 0.25)), 3) == 1


def test_impossible_data_name_the_step() -> None:
    @pp.model
    def bounded(n):
        def step(x, _):
            x = pp.sample("x", dist.Uniform(0, 1))
            pp.sample("y", dist.Uniform(x, x + 1))
            return x, None

        pp.scan(step, 0.0, length=n)

    with pytest.raises(PopulationError, match="step 2 of the scan"):
        quietly(bounded(4).observe(y=[0.5, 0.5, 7.0, 0.5]), ParticleFilter(particles=16))


# -- parameters ----------------------------------------------------------------------------------


@lru_cache
def truth():
    """p(phi | y) on a grid, by the Kalman filter, and log p(y)."""
    grid = (np.arange(60) + 0.5) / 60
    prior = np.log(grid**7 * (1 - grid))

    def log_likelihood(phi):
        mean, var, total = 0.0, 1.0, 0.0
        for y in Y:
            mean, var = phi * mean, phi**2 * var + 0.25
            total = total - 0.5 * (
                np.log(2 * np.pi * (var + 0.16)) + (y - mean) ** 2 / (var + 0.16)
            )
            gain = var / (var + 0.16)
            mean, var = mean + gain * (y - mean), var * (1 - gain)
        return total

    log = prior + np.array([log_likelihood(phi) for phi in grid])
    w = np.exp(log - log.max())
    evidence = np.logaddexp.reduce(log) - np.logaddexp.reduce(prior)
    mean = (w @ grid) / w.sum()
    return mean, np.sqrt(w @ (grid - mean) ** 2 / w.sum()), evidence


@pytest.mark.parametrize(
    "engine",
    [PMMH(particles=32, warmup_rounds=12), ParticleGibbs(particles=8, warmup_rounds=12)],
    ids=["pmmh", "particle_gibbs"],
)
def test_chains_over_parameters_find_the_posterior(engine) -> None:
    fit = quietly(unknown(8).observe(y=Y), engine, draws=800)
    mean, sd, _ = truth()
    found = fit.expect("phi", "mean")
    assert abs(float(found) - mean) < SIGMAS * float(found.mcse)
    assert float(found.mcse) < 0.15 * sd
    assert 0.8 < fit.draws("phi").std() / sd < 1.25


def test_smc2_finds_posterior_and_evidence() -> None:
    fit = quietly(unknown(8).observe(y=Y), SMC2(theta_particles=64, particles=32), draws=250)
    mean, sd, evidence = truth()
    assert abs(fit.log_evidence.value - evidence) < SIGMAS * max(fit.log_evidence.error, 0.02)
    assert abs(fit.draws("phi").mean() - mean) < SIGMAS * sd / np.sqrt(120)
    assert set(fit.sites) == {"phi", "x0", "x"}


def test_particle_gibbs_on_a_finite_path_keeps_it_in_the_state() -> None:
    """Discrete states are no coordinates of x: the kernel carries them, and x holds θ alone."""

    @pp.model
    def noisy(n):
        p = pp.sample("p", dist.Beta(2, 2))

        def step(z, _):
            z = pp.sample("z", dist.Bernoulli(np.where(z == 1, 0.8, 0.3)))
            pp.sample("y", dist.Bernoulli(np.where(z == 1, p, 0.1)))
            return z, None

        pp.scan(step, 0, length=n)

    target = noisy(3).observe(y=[1, 0, 1]).target()
    kernel = GibbsKernel(particles=4)
    with precision.scope("float64"):
        params = {"step_size": jnp.asarray(1.0), "factor": jnp.eye(1)}
        x = jnp.zeros(1)
        state = kernel.init(jax.random.key(0), target, x, params)
        moved, _ = jax.eval_shape(kernel.step, jax.random.key(1), target, state, params)
    assert set(np.unique(state.path["z"])) <= {0, 1} and state.path["z"].shape == (3,)
    assert moved.path["z"].dtype == state.path["z"].dtype and moved.x.shape == (1,)
