"""The MCMC engines: right answers, one program, one trace, same numbers however they are run."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_mcmc.ensemble import CHUNK, Ensemble, transitions
from ppcore_mcmc.nuts import NUTS

from ppcore.engine import Engine
from ppcore.errors import SettingsError, StartError
from ppcore.precision import scope
from ppcore.target import DensityTarget

ENGINES = [Ensemble(warmup_draws=160), NUTS(warmup_draws=200)]
by_name = pytest.mark.parametrize("engine", ENGINES, ids=["ensemble", "nuts"])
traces = []


def silent(progress):
    del progress


def gaussian(x, data):
    """N(mean, precision⁻¹), counting how often Python runs it."""
    traces.append(x.shape)
    away = x - data["mean"]
    return -0.5 * away @ data["precision"] @ away


def correlated(dim, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dim, dim)) + 2 * np.eye(dim)
    data = {"mean": 100 * rng.normal(size=dim), "precision": np.linalg.inv(root @ root.T)}
    return DensityTarget(gaussian, dim, data), data["mean"], root @ root.T


def fit(engine, target, seed, chains, draws):
    warm_key, init_key, key = jax.random.split(jax.random.key(seed), 3)
    warm = engine.warmup(warm_key, target, chains, silent)
    carry = engine.init(init_key, target, warm.tuned, warm.x)
    return warm, *engine.block(key, target, warm.tuned, carry, draws)[1:]


@by_name
def test_is_an_engine_and_finds_a_gaussian(engine):
    assert isinstance(engine, Engine)
    target, mean, covariance = correlated(6)
    with scope("float64"):
        warm, draws, stats = fit(engine, target, 1, engine.default_chains, 200)
        expected = jax.vmap(jax.vmap(target.log_density))(draws)
    flat = draws.reshape(-1, 6)
    sd = np.sqrt(np.diag(covariance))
    # At least 300 effective draws: five standard errors are 0.29 sd of the mean.
    assert np.all(np.abs(flat.mean(0) - mean) < 5 * sd / np.sqrt(300))
    assert np.all(np.abs(flat.std(0) / sd - 1) < 5 / np.sqrt(2 * 300))
    assert draws.dtype == np.float64 and draws.shape == (engine.default_chains, 200, 6)
    assert warm.gradients > 0 and stats["n_gradients"].min() >= 1
    assert all(value.shape == draws.shape[:2] for value in stats.values())
    np.testing.assert_allclose(stats["log_density"], expected, rtol=1e-9)


@by_name
def test_other_data_seeds_lengths_and_tunings_trace_nothing(engine):
    with scope("float64"):
        fit(engine, correlated(5)[0], 1, 8, 20)
        before = len(traces)
        fit(engine, correlated(5, seed=1)[0], 2, 8, 33)
    assert len(traces) == before


@by_name
def test_the_gradient_appears_once_in_the_program(engine):
    with scope("float64"):
        before = len(traces)
        fit(engine, correlated(7)[0], 1, 8, 20)
    assert len(traces) == before + 1


@by_name
@pytest.mark.parametrize("draws", [1, 5, 120])
def test_same_draws_jitted_or_not_vmapped_or_looped(engine, draws):
    with scope("float64"):
        targets = [correlated(3, seed)[0] for seed in range(2)]
        warm = engine.warmup(jax.random.key(0), targets[0], 2, silent)
        x = jnp.stack([jnp.asarray(target.data["mean"])[None] for target in targets])
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *targets)
        keys = jax.random.split(jax.random.key(9), 2)

        def run(key, target, x):
            carry = engine.init(key, target, warm.tuned, x)
            return engine.block(key, target, warm.tuned, carry, draws)[1:]

        looped = [run(*each) for each in zip(keys, targets, x, strict=True)]
        jitted = [jax.jit(run)(*each) for each in zip(keys, targets, x, strict=True)]
        mapped = jax.jit(jax.vmap(run))(keys, stacked, x)
    for i in range(2):
        for name, value in looped[i][1].items():
            np.testing.assert_allclose(jitted[i][1][name], value, rtol=1e-6, atol=1e-6)
            np.testing.assert_allclose(mapped[1][name][i], value, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(jitted[i][0], looped[i][0], rtol=1e-6)
        np.testing.assert_allclose(mapped[0][i], looped[i][0], rtol=1e-6)


@pytest.mark.parametrize("draws", [5, 40])
def test_thinned_draws_are_the_same_however_they_are_run(draws):
    engine = Ensemble(warmup_draws=64)
    with scope("float64"):
        targets = [correlated(3, seed)[0] for seed in range(2)]
        warm = engine.warmup(jax.random.key(0), targets[0], 4, silent)
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *targets)
        tuned = [replace(warm.tuned, thin=np.int32(thin)) for thin in (3, 2)]
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tuned)
        x = jnp.asarray(np.stack([np.tile(t.data["mean"], (4, 1)) for t in targets]))
        keys = jax.random.split(jax.random.key(9), 2)

        def run(key, target, tuned, x):
            carry = engine.init(key, target, tuned, x)
            return engine.block(key, target, tuned, carry, draws)[1:]

        looped = [run(*each) for each in zip(keys, targets, tuned, x, strict=True)]
        mapped = jax.jit(jax.vmap(run))(keys, stacked, both, x)
    for i in range(2):
        np.testing.assert_allclose(mapped[0][i], looped[i][0], rtol=1e-6)
        for name, value in looped[i][1].items():
            np.testing.assert_allclose(mapped[1][name][i], value, rtol=1e-6, atol=1e-6)


def test_a_thinned_draw_is_the_last_of_its_transitions():
    target, *_ = correlated(3)
    engine = Ensemble(warmup_draws=64)
    with scope("float64"):
        warm = engine.warmup(jax.random.key(0), target, 4, silent)
        tuned = replace(warm.tuned, thin=np.int32(2))
        carry = engine.init(None, target, tuned, warm.x)
        key = jax.random.key(1)
        _, draws, stats = engine.block(key, target, tuned, carry, 6)
        parts = []
        for sweep in range(2):
            index, active = np.int32(sweep), np.int32(6)
            carry, out = transitions(key, index, target, tuned, carry, CHUNK, active)
            parts.append({name: np.asarray(value)[:6] for name, value in out.items()})
    every = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    np.testing.assert_array_equal(draws, np.swapaxes(every["x"][1::2], 0, 1))
    steps = every["n_gradients"].reshape(6, 2).sum(1)
    np.testing.assert_array_equal(stats["n_gradients"], np.tile(steps, (4, 1)))
    acceptance = every["acceptance_rate"].reshape(6, 2, 4).mean(1)
    np.testing.assert_allclose(stats["acceptance_rate"], acceptance.T)


@by_name
def test_no_key_is_used_twice(engine):
    with scope("float64"), jax.debug_key_reuse(True):
        fit(engine, correlated(4)[0], 3, 4, 20)


@by_name
def test_tuned_parameters_are_not_touched_and_the_block_repeats(engine):
    target, *_ = correlated(4)
    with scope("float64"):
        warm = engine.warmup(jax.random.key(0), target, 4, silent)
        before = [np.array(leaf) for leaf in jax.tree.leaves(warm.tuned)]
        carry = engine.init(jax.random.key(1), target, warm.tuned, warm.x)
        one = engine.block(jax.random.key(2), target, warm.tuned, carry, 30)[1]
        two = engine.block(jax.random.key(2), target, warm.tuned, carry, 30)[1]
    np.testing.assert_array_equal(one, two)
    for old, new in zip(before, jax.tree.leaves(warm.tuned), strict=True):
        np.testing.assert_array_equal(old, new)


@by_name
def test_single_precision(engine):
    target, mean, covariance = correlated(3)
    with scope("float32"):
        single = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), target)
        _, draws, stats = fit(engine, single, 1, 8, 100)
    assert draws.dtype == np.float32 and stats["energy"].dtype == np.float32
    assert np.all(np.abs(draws.mean((0, 1)) - mean) < np.sqrt(np.diag(covariance)))


def nowhere(x, data):
    return jnp.sum(x) * jnp.nan


@by_name
def test_no_finite_start_is_an_error(engine):
    with scope("float64"), pytest.raises(StartError, match="not finite"):
        engine.warmup(jax.random.key(0), DensityTarget(nowhere, 2), 4, silent)


@pytest.mark.parametrize("engine", [Ensemble, NUTS])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"target_accept": 1.5}, "target_accept=1.5 must be a number between 0 and 1"),
        ({"metric": "dens"}, "Did you mean 'dense'"),
        ({"warmup_draws": 3}, "warmup_draws=3 must be an integer of at least 16"),
        ({"rank": -1}, "rank=-1"),
    ],
)
def test_bad_settings_are_refused(engine, settings, says):
    with pytest.raises(SettingsError, match=says):
        engine(**settings)
