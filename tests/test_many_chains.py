"""Many-chain engines: the integrator's Jacobian, right answers, one program, nested R-hat."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_mcmc.chees import ChEES, criterion_slope
from ppcore_mcmc.late_adjusted import LateAdjusted
from ppcore_mcmc.mams import MAMS
from ppcore_mcmc.mclmc import MCLMC
from ppcore_mcmc.meads import MEADS, largest_eigenvalue
from ppcore_mcmc.microcanonical import Flight, direction, energy_gain, isokinetic, lift

from ppcore.contract import Biased, Invariant
from ppcore.engine import Engine
from ppcore.errors import SettingsError, StartError
from ppcore.precision import scope
from ppcore.report import assess
from ppcore.report.diagnostics import nested_rhat
from ppcore.target import DensityTarget, value_and_gradient
from ppcore.tuning.preconditioner import Dense

ENGINES = {
    "chees": ChEES(warmup_draws=160),
    "meads": MEADS(warmup_draws=160),
    "mams": MAMS(warmup_draws=160),
    "mclmc": MCLMC(warmup_draws=160),
    "late_adjusted": LateAdjusted(),
}
by_name = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)
traces = []


def silent(progress):
    del progress


def quartic(x, data):
    return -0.25 * jnp.sum(x**4) - 0.5 * jnp.sum(data * x**2) + 0.3 * x[0] * x[-1]


def flight(target, precondition, x, u):
    log_density, gradient = value_and_gradient(target, x[None])
    force = precondition.pull(gradient)
    return Flight(x[None], u[None], log_density, gradient, force, jnp.zeros(1))


def test_isokinetic_step_is_reversible_and_its_kinetic_energy_is_the_jacobian():
    rng = np.random.default_rng(0)
    with scope("float64"):
        target = DensityTarget(quartic, 4, np.float64(0.7))
        precondition = Dense(np.eye(4) + 0.3 * np.tril(rng.normal(size=(4, 4))))
        x, u = jnp.asarray(rng.normal(size=4)), direction(jnp.asarray(rng.normal(size=4)))
        step = jnp.full((1, 1), 0.4)

        @jax.jit
        def move(x, u):
            return isokinetic(target, precondition, flight(target, precondition, x, u), step)

        end = move(x, u)
        np.testing.assert_allclose(jnp.linalg.norm(end.u), 1.0, rtol=1e-12)
        back = move(end.x[0], -end.u[0])
        np.testing.assert_allclose(back.x[0], x, atol=1e-12)
        np.testing.assert_allclose(back.u[0], -u, atol=1e-12)
        np.testing.assert_allclose(back.kinetic, -end.kinetic, atol=1e-12)

        def both(v):
            end = move(v[:4], v[4:])
            return jnp.concatenate([end.x[0], end.u[0]])

        jacobian = np.asarray(jax.jit(jax.jacfwd(both))(jnp.concatenate([x, u])))
        # Of directions only what is tangent to the sphere counts, at both ends.
        tangent = [np.linalg.svd(np.asarray(v)[None])[2][1:].T for v in (u, end.u[0])]
        ends = [np.block([[np.eye(4), np.zeros((4, 3))], [np.zeros((4, 4)), t]]) for t in tangent]
        volume = abs(np.linalg.det(ends[1].T @ jacobian @ ends[0]))
        np.testing.assert_allclose(np.log(volume), -end.kinetic[0], atol=1e-9)


def test_energy_is_kept_to_third_order_in_the_step():
    with scope("float64"):
        target = DensityTarget(quartic, 3, np.float64(0.7))
        precondition = Dense(np.eye(3))
        x, u = jnp.array([0.3, -1.0, 0.8]), direction(jnp.array([1.0, 0.2, -0.5]))
        start = flight(target, precondition, x, u)
        step = jax.jit(lambda h: energy_gain(start, isokinetic(target, precondition, start, h)))
        gains = [float(step(jnp.full((1, 1), h))[0]) for h in (0.02, 0.01)]
    assert 6.5 < gains[0] / gains[1] < 9.5


def gaussian(x, data):
    """N(mean, precision⁻¹), counting how often Python runs it."""
    traces.append(x.shape)
    away = x - data["mean"]
    return -0.5 * away @ data["precision"] @ away


def correlated(dim, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(dim, dim)) + 2 * np.eye(dim)
    data = {"mean": 10 * rng.normal(size=dim), "precision": np.linalg.inv(root @ root.T)}
    return DensityTarget(gaussian, dim, data), data["mean"], root @ root.T


@by_name
def test_finds_a_gaussian_with_one_program_however_it_is_run(engine):
    assert isinstance(engine, Engine)
    target, mean, covariance = correlated(4)
    with scope("float64"):
        before = len(traces)
        warm = engine.warmup(jax.random.key(1), target, 32, silent)
        frozen = [np.array(leaf) for leaf in jax.tree.leaves(warm.tuned)]
        carry = engine.init(jax.random.key(2), target, warm.tuned, warm.x)
        _, draws, stats = engine.block(jax.random.key(3), target, warm.tuned, carry, 150)
        # late_adjusted runs the program of mams.
        assert len(traces) <= before + 1
        expected = jax.vmap(jax.vmap(target.log_density))(draws[:, :2])

        def run(key, target, tuned, x):
            carry = engine.init(jax.random.key(2), target, tuned, x)
            return engine.block(key, target, tuned, carry, 33)[1:]

        traced = jax.jit(run)(jax.random.key(3), target, warm.tuned, warm.x)
    flat, sd = draws.reshape(-1, 4), np.sqrt(np.diag(covariance))
    # At least 800 effective draws and five standard errors; the bias of mclmc is within.
    assert np.all(np.abs(flat.mean(0) - mean) < 5 * sd / np.sqrt(800))
    assert np.all(np.abs(flat.std(0) / sd - 1) < 5 / np.sqrt(2 * 800))
    assert all(value.shape == (32, 150) for value in stats.values())
    assert warm.gradients > 0 and stats["n_gradients"].min() >= 1
    np.testing.assert_allclose(stats["log_density"][:, :2], expected, rtol=1e-9)
    np.testing.assert_allclose(traced[0], draws[:, :33], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(traced[1]["n_gradients"], stats["n_gradients"][:, :33])
    for old, new in zip(frozen, jax.tree.leaves(warm.tuned), strict=True):
        np.testing.assert_array_equal(old, new)


@by_name
def test_tuning_has_one_shape_for_any_number_of_chains(engine):
    target = correlated(4)[0]
    with scope("float64"):
        short = replace(engine, warmup_draws=16, max_warmup_draws=16)
        shapes = [
            jax.tree.map(np.shape, short.warmup(jax.random.key(0), target, chains, silent).tuned)
            for chains in (1, 32)
        ]
    assert shapes[0] == shapes[1]


def line(x, data):
    return -0.5 * (x[0] - data) ** 2


@pytest.mark.parametrize("engine", [MAMS(warmup_draws=96), MCLMC(warmup_draws=96)])
def test_a_target_of_one_coordinate_gets_another_beside(engine):
    target = DensityTarget(line, 1, np.float64(3.0))
    assert lift(target).dim == 2
    with scope("float64"):
        warm = engine.warmup(jax.random.key(0), target, 64, silent)
        carry = engine.init(jax.random.key(1), target, warm.tuned, warm.x)
        _, draws, _ = engine.block(jax.random.key(2), target, warm.tuned, carry, 100)
    assert warm.x.shape == (64, 1) and draws.shape == (64, 100, 1)
    assert abs(draws.mean() - 3) < 0.1 and abs(draws.std() - 1) < 0.1


def nowhere(x, data):
    return jnp.sum(x) * jnp.nan


def test_no_finite_start_is_an_error():
    with scope("float64"), pytest.raises(StartError, match="not finite"):
        MEADS().warmup(jax.random.key(0), DensityTarget(nowhere, 2), 4, silent)


@pytest.mark.parametrize("cls", [ChEES, MEADS, MAMS, MCLMC, LateAdjusted])
def test_settings_are_checked_and_contracts_declared(cls):
    with pytest.raises(SettingsError, match="Did you mean 'dense'"):
        cls(metric="dens")
    with pytest.raises(SettingsError, match="warmup_draws=3 must be an integer of at least 16"):
        cls(warmup_draws=3)
    biased = cls is MCLMC
    assert isinstance(cls().contract, Biased if biased else Invariant)


def rotation(rng, time, chains=4000):
    """A Gaussian's Hamiltonian flow for ``time``, from and with independent normals."""
    x, z = rng.normal(size=(2, chains, 5))
    end = np.cos(time) * x + np.sin(time) * z
    return x, end, np.cos(time) * z - np.sin(time) * x, np.ones(chains)


def test_chees_climbs_toward_a_quarter_turn_from_either_side():
    # ChEES of a rotation by t is ∝ sin² t: it grows up to π/2 and falls after.
    rng = np.random.default_rng(1)
    assert criterion_slope(*rotation(rng, 0.7), 0.7) > 0
    assert criterion_slope(*rotation(rng, 2.0), 2.0) < 0


def test_the_largest_eigenvalue_is_found_among_many_small_ones():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(400, 50)) * np.r_[10.0, np.ones(49)]
    # tr S² / tr S = (10⁴ + 49) / (10² + 49).
    assert largest_eigenvalue(rows) == pytest.approx(10049 / 149, rel=0.2)


def persistent(rho, chains, draws, seed=0):
    rng = np.random.default_rng(seed)
    x = [rng.normal(size=(chains, 2))]
    for _ in range(draws - 1):
        x.append(rho * x[-1] + np.sqrt(1 - rho**2) * rng.normal(size=(chains, 2)))
    return np.stack(x, axis=1)


@pytest.mark.parametrize(
    ("rho", "chains", "draws", "agree"),
    [(0.0, 256, 8, True), (0.5, 256, 64, True), (0.98, 256, 64, False), (0.9, 4096, 8, False)],
)
def test_nested_rhat_sees_whether_draws_depend_on_starts(rho, chains, draws, agree):
    found = nested_rhat(persistent(rho, chains, draws))
    assert bool((found < 1.03).all()) == agree


def test_nested_rhat_of_modes_and_of_scales_that_chains_never_leave():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(64, 100, 2))
    x[:32, :, 0] += 8
    x[:, :, 1] *= np.exp(rng.normal(size=(64, 1)))
    assert (nested_rhat(x) > 1.05).all()
    np.testing.assert_allclose(nested_rhat(x[::-1]), nested_rhat(x))


def test_health_judges_many_short_chains_together_and_a_few_by_themselves():
    x = persistent(0.7, 256, 40)
    stats = {"diverging": np.zeros((256, 40), bool)}
    many = assess(x, stats, str)
    assert many.rhat is not None and many.rhat[1] < 1.01 and not many.warnings
    few = assess(x[:16], {}, str)
    assert few.rhat is not None and few.rhat[1] > 1.05
    stuck = persistent(0.98, 256, 40)
    assert "Nested R-hat is above 1.01" in "\n".join(assess(stuck, stats, str).warnings)
