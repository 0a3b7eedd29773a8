"""The check models: joint draws and densities agree, evidences are right, adapters work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

import ppcore as pp
from ppcore import dist, precision
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.target import DensityTarget
from ppcore.testing.models import (
    CONJUGATE,
    FINITE,
    POOL,
    feature_scale,
    from_target,
    pool,
    raw_features,
    simulate,
)
from ppcore.testing.models.formulas import FORMULAS
from ppcore.testing.session import take


@pytest.fixture(autouse=True)
def double():
    with precision.scope("float64"):
        yield


def test_the_pool_is_large_enough():
    assert len(POOL) >= 12 and all(m.dim == 3 for m in POOL.values())


# One program each for the whole pool: the kind of model is an argument.
AXES = POOL["normal"].axes
SCORE = jax.jit(jax.vmap(jax.grad(lambda v, t: t.log_density(v)), (0, AXES)))
LIKELIHOOD = jax.jit(lambda t, key: jax.vmap(t.log_likelihood)(t.sample_reference(key, 50_000)))


@jax.jit
def central(x, targets):
    """Central differences of the log density."""
    step = 1e-5 * jnp.eye(3)

    def one(v, t):
        ends = jax.vmap(t.log_density)(jnp.concatenate([v + step, v - step]))
        return (ends[:3] - ends[3:]) / 2e-5

    return jax.vmap(one, (0, AXES))(x, targets)


@pytest.mark.parametrize("name", POOL)
def test_draws_follow_the_density(name):
    """Over the joint the score of the parameters has mean zero (z at 1e-6 per coordinate), which
    ties the draws to the density; and the score is the derivative of the density."""
    x, targets = simulate(POOL[name], jax.random.split(jax.random.key(11), 20_000))
    score = np.asarray(SCORE(x, targets))
    assert np.all(np.isfinite(score))
    z = score.mean(0) / (score.std(0) / np.sqrt(len(score)))
    assert np.abs(z).max() < 4.9
    near = np.all(np.abs(x) < 5.0, axis=1)
    gap = np.abs(np.asarray(central(x, targets)) - score) / (1.0 + np.abs(score))
    assert gap[near].max() < 1e-5


@pytest.mark.parametrize("name", [n for n, m in POOL.items() if m.log_evidence])
def test_evidence_is_right(name):
    """Prior importance sampling with 50,000 draws, within five standard errors."""
    _, targets = simulate(POOL[name], jax.random.split(jax.random.key(3), 1))
    target = take(targets, POOL[name], 0)
    ratio = np.exp(LIKELIHOOD(target, jax.random.key(1)) - POOL[name].log_evidence(target))
    assert abs(ratio.mean() - 1.0) < 5.0 * ratio.std() / np.sqrt(len(ratio))


@pytest.mark.parametrize("name", ["gamma_scale", "beta_binomial", "bounded", "student_t"])
def test_priors_of_one_parameter_models_are_normalised(name):
    _, parts = FORMULAS[name]
    grid = jnp.linspace(-60.0, 60.0, 24_001)
    tail = 20.0 if name == "student_t" else 1.0
    prior = jax.jit(jax.vmap(lambda v: parts(jnp.full(3, v), jnp.ones((3, 3)))[0] / 3.0))
    mass = integrate.trapezoid(np.exp(prior(tail * grid)), tail * grid)
    assert abs(mass - 1.0) < 1e-6


def test_features_are_bounded_and_equal_states_have_equal_features():
    model = pool(("funnel",))["funnel"]
    x, targets = simulate(model, jax.random.split(jax.random.key(5), 50))
    states = jnp.stack([x, x, 100.0 * x], axis=1)
    f = np.asarray(feature_scale(model)(raw_features(model, states, targets)))
    assert np.array_equal(f[:, 0], f[:, 1]) and np.abs(f).max() <= 0.5
    assert f.shape[2] == len(model.feature_names)


def test_families_share_nothing_but_their_formulas():
    small = pool(("funnel", "normal"))
    x, targets = simulate(small["normal"], jax.random.split(jax.random.key(0), 2))
    assert targets.family == ("funnel", "normal") and x.shape == (2, 3)
    with pytest.raises(SettingsError, match="Did you mean 'funnel'"):
        pool(("funel",))


@pytest.mark.parametrize("make", FINITE.values())
def test_finite_targets(make):
    target = make()
    states = target.states
    assert np.array_equal(jax.vmap(target.code)(states), np.arange(len(states)))
    assert np.allclose(jax.vmap(target.log_density)(states), target.log_gamma)
    assert np.isclose(np.exp(target.table_prior).sum(), 1.0)
    cold = target.tempered(jnp.asarray(0.0))
    assert np.allclose(cold.log_gamma, target.table_prior.ravel())


def test_extending_the_conjugate_model_adds_data():
    x, target = CONJUGATE.simulate_joint(jax.random.key(0))
    more = CONJUGATE.extend(jax.random.key(1), target, x)
    assert more.y.shape[0] == 2 * target.y.shape[0]
    assert float(more.posterior[1]) < float(target.posterior[1])


def test_an_observed_model_becomes_a_check_model():
    @pp.model
    def line(t):
        a = pp.sample("a", dist.Normal(0, 1))
        s = pp.sample("s", dist.HalfNormal(1))
        with pp.plate("t", len(t)):
            pp.sample("y", dist.Normal(a * t, s))

    t = np.linspace(-1, 1, 5)
    model = from_target(line(t).observe(y=np.zeros(5)).target(), "line")
    x, _ = simulate(model, jax.random.split(jax.random.key(0), 6))
    assert x.shape == (6, 2) and feature_scale(model).spread.shape == (8,)


def test_a_bare_density_cannot_be_a_check_model():
    target = DensityTarget(lambda x, data: -jnp.sum(x**2), 2)
    with pytest.raises(UnsupportedError, match="cannot draw parameters and data jointly"):
        from_target(target, "bare")


def test_a_factor_cannot_be_simulated():
    @pp.model
    def tilted():
        a = pp.sample("a", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(a, 1))
        pp.factor("tilt", -(a**2))

    with pytest.raises(UnsupportedError, match="factor 'tilt'"):
        from_target(tilted().observe(y=0.3).target(), "tilted")
