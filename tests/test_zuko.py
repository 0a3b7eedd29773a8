"""A flow of torch on JAX's targets: proper weights, the exchange, and refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("zuko")

from ppcore_zuko.flow import Law, ZukoFlow, _student  # noqa: E402

from ppcore import precision  # noqa: E402
from ppcore.errors import PopulationError, SettingsError, UnsupportedError  # noqa: E402
from ppcore.target import DensityTarget  # noqa: E402

COVARIANCE = np.array([[4.0, 1.8], [1.8, 1.0]])
MEAN = np.array([1.0, -2.0])
LOG_Z = 0.7 + np.log(2 * np.pi) + 0.5 * np.log(np.linalg.det(COVARIANCE))
QUICK = ZukoFlow(layers=2, width=8, bins=4, steps=60, batch=64)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def gaussian(x: Any, data: Any) -> Any:
    off = x - data
    return 0.7 - 0.5 * off @ jnp.linalg.solve(COVARIANCE, off)


def silent(_: Any) -> None:
    """Takes reports."""


@pytest.mark.parametrize("engine", (ZukoFlow(steps=1, batch=8, layers=1, width=8), QUICK))
def test_weights_are_proper_before_training_and_after(engine: ZukoFlow) -> None:
    """E[Ẑ] = Z and E[x | weights]: z-tests at five standard errors of one run."""
    target = DensityTarget(gaussian, 2, jnp.asarray(MEAN))
    made = engine.populate(jax.random.key(3), target, 4000, silent)
    population = made.population
    assert made.log_z_error is not None
    assert abs(float(population.log_z) - LOG_Z) < 5 * made.log_z_error
    weights = np.asarray(population.weights)
    gap = weights @ (np.asarray(population.x) - MEAN)
    error = np.sqrt((weights[:, None] ** 2 * (np.asarray(population.x) - MEAN) ** 2).sum(0))
    assert (np.abs(gap) < 5 * error).all()
    assert float(population.ess) > 1000
    assert made.gradients > engine.batch and len(made.stats["loss"]) == engine.steps


def test_the_same_key_gives_the_same_draws_and_leaves_the_callers_alone() -> None:
    target = DensityTarget(gaussian, 2, jnp.asarray(MEAN))
    engine = ZukoFlow(steps=3, batch=8, layers=1, width=8)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one = engine.populate(jax.random.key(1), target, 64, silent).population
    two = engine.populate(jax.random.key(1), target, 64, silent).population
    other = engine.populate(jax.random.key(2), target, 64, silent).population
    assert np.array_equal(one.x, two.x) and not np.array_equal(one.x, other.x)
    assert torch.equal(before, torch.random.get_rng_state())


def test_densities_of_the_proposal_are_normalised() -> None:
    """In one dimension by quadrature: the flow, and the Student-t that guards it."""
    law = Law.near(ZukoFlow(layers=1, width=8), Moments(), torch.float64)
    z = torch.linspace(-400, 400, 160_001, dtype=torch.float64)[:, None]
    step = float(z[1] - z[0])
    with torch.no_grad():
        assert abs(float(law.flow().log_prob(z).exp().sum()) * step - 1) < 1e-4
        assert abs(float(_student(z).exp().sum()) * step - 1) < 1e-4


class Moments:
    """A mode of a law on the line."""

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(1), np.eye(1)


def test_training_that_loses_the_target_is_reported() -> None:
    def cliff(x: Any, data: Any) -> Any:
        return jnp.where(jnp.abs(x[0]) < data, -0.5 * jnp.sum(x**2), jnp.nan)

    target = DensityTarget(cliff, 1, jnp.asarray(3.0))
    law = Law.near(QUICK, Moments(), torch.float64)
    view = DensityTarget(cliff, 1, jnp.asarray(0.0)).torch()
    stats, notes = QUICK._train(law, view, silent)
    assert "diverged" in notes[0] and len(stats["loss"]) < QUICK.steps
    with pytest.raises(PopulationError, match="NaN"):
        ZukoFlow(steps=1, batch=8).populate(jax.random.key(0), target, 500, silent)


def test_bad_settings_and_targets_are_refused() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'spline'"):
        ZukoFlow(map="splines")
    with pytest.raises(SettingsError, match="rate"):
        ZukoFlow(rate=-1.0)

    class Finite(DensityTarget):
        has_gradient = False

    with pytest.raises(UnsupportedError, match="gradient"):
        QUICK.populate(jax.random.key(0), Finite(gaussian, 2, MEAN), 10, silent)
