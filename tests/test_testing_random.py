"""Draws from keys and from scripts: the same laws, the second exactly."""

import doctest
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from ppcore import population, precision, random
from ppcore.errors import PPCoreError, UnsupportedError

LOG_P = jnp.log(jnp.array([0.2, 0.5, 0.3]))


@pytest.fixture(autouse=True)
def double():
    with precision.scope("float64"):
        yield


@pytest.mark.parametrize("module", [random, population])
def test_examples(module):
    assert doctest.testmod(module).failed == 0


def test_a_script_walks_every_permutation_once():
    seen = {
        tuple(map(int, v)): p
        for v, p in random.enumerate_traces(lambda key: np.asarray(random.permutation(key, 3)))
    }
    assert len(seen) == 6
    assert all(math.isclose(p, 1 / 6) for p in seen.values())


def test_both_enumerations_agree():
    def program(key):
        a, b = random.split(key)
        i = random.categorical(a, LOG_P)
        return i + 10.0 * random.bernoulli(b, (1.0 + i) / 4.0)

    exact = sum(float(v) * p for v, p in random.enumerate_traces(program))
    assert math.isclose(exact, float(random.expectation(program)), rel_tol=1e-14)
    by_hand = sum(p * (i + 10 * (1 + i) / 4) for i, p in enumerate([0.2, 0.5, 0.3]))
    assert math.isclose(exact, by_hand, rel_tol=1e-6)


def test_impossible_choices_are_never_walked():
    log_p = jnp.log(jnp.array([0.5, 0.0, 0.5]))
    values = [int(v) for v, _ in random.enumerate_traces(lambda k: random.categorical(k, log_p))]
    assert values == [0, 2]


def test_batches_of_traces_add_up():
    program = lambda key: random.categorical(key, jnp.zeros(3), (4,)).sum()  # noqa: E731
    assert math.isclose(float(random.expectation(program, batch=7)), 4.0, rel_tol=1e-12)


def test_cells_make_a_uniform_finite():
    mean = random.expectation(lambda k: 1.0 * (random.uniform(k, cells=jnp.array([0.3])) < 0.3))
    assert math.isclose(float(mean), 0.3, rel_tol=1e-14)


@pytest.mark.parametrize("draw", [random.normal, random.uniform, random.exponential])
def test_continuous_draws_are_refused_under_a_script(draw):
    with pytest.raises(UnsupportedError, match="script cannot enumerate"):
        draw(random.Script())


def test_an_endless_program_is_stopped():
    with pytest.raises(PPCoreError, match="more than 50 traces"):
        list(random.enumerate_traces(lambda k: random.categorical(k, jnp.zeros(9), (3,)), 50))


def test_keys_draw_the_named_laws():
    """Chi-square at 1e-4 each."""
    key = jax.random.key(1)
    counts = np.bincount(random.categorical(key, LOG_P, (20_000,)), minlength=3)
    assert stats.chisquare(counts, 20_000 * np.array([0.2, 0.5, 0.3])).pvalue > 1e-4
    hits = int(random.bernoulli(key, 0.3, (20_000,)).sum())
    assert stats.binomtest(hits, 20_000, 0.3).pvalue > 1e-4


def test_coupled_normals_keep_their_law_and_share_their_path():
    keys = jax.random.split(jax.random.key(2), (20_000, 2))
    both = jax.vmap(lambda k: random.normal(random.Coupled(k[0], k[1])))(keys)
    halves = jax.vmap(lambda k: random.normal(k[0]) + random.normal(k[1]))(keys)
    assert np.allclose(both * math.sqrt(2.0), halves)
    assert stats.kstest(np.asarray(both), "norm").pvalue > 1e-4


@pytest.mark.parametrize("start", [random.Script(), None])
def test_each_and_scan_are_the_same_under_key_and_script(start):
    key = jax.random.key(0) if start is None else start
    x = jnp.arange(3.0)
    moved = random.each(lambda k, v: v + 1.0 * random.bernoulli(k, 1.0), key, x)
    assert np.array_equal(moved, x + 1)
    total, steps = random.scan(
        lambda k, c, v: (c + v * random.bernoulli(k, 1.0), c), key, jnp.zeros(()), x, 3
    )
    assert float(total) == 3.0 and steps.shape == (3,)


def test_a_dead_population_reports_zero_evidence():
    start = population.equally_weighted(jnp.zeros((3, 1)))
    end = population.reweight(start, jnp.full(3, -jnp.inf))
    assert np.isneginf(end.log_z) and np.allclose(end.weights, 1 / 3)
    live = population.reweight(start, jnp.array([0.0, -jnp.inf, 0.0]))
    assert math.isclose(float(live.log_z), math.log(2 / 3)) and math.isclose(float(live.ess), 2.0)
    assert math.isclose(float(live.estimate(lambda x: x[0] + 2.0)), 2.0)
