"""Engines that learn from earlier draws: evidence, costs, and draws that cannot be learned from."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learned_laws import SHORT, TARGET, draws_of_two_modes, grid, silent
from ppcore_diffusion.flow_matching import FlowMatching, flow_proposal
from ppcore_diffusion.samples import Samples, samples_of
from ppcore_diffusion.schroedinger_bridge import SchroedingerBridge
from ppcore_mcmc.independence import Independence
from scipy.stats import norm

import ppcore as pp
from ppcore import dist, precision
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.population import Population
from ppcore.testing.models.finite import FiniteTarget


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


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
    ],
)
def test_settings_out_of_range(make: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        make()
