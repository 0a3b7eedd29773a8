"""SMC, annealed and plain importance sampling as engines: evidence, one trace, bad input."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy import stats
from ppcore_smc.ais import AIS
from ppcore_smc.importance import Importance
from ppcore_smc.smc import SMC
from small import posterior

import ppcore as pp
from ppcore import dist, precision
from ppcore.contract import ProperlyWeighted
from ppcore.errors import PopulationError, SettingsError, UnsupportedError
from ppcore.fit import Fit, infer
from ppcore.fit.weighted import draw
from ppcore.fit.weights import LogEvidence, k_hat, weights
from ppcore.population import Population
from ppcore.report import SamplingWarning
from ppcore.run.keys import Keys
from ppcore.target import DensityTarget
from ppcore.testing.models.conjugate import NormalTarget

DATA = np.random.default_rng(0).normal([0.5, -1.0], 1.0, (12, 2))
TRACED: list[int] = []


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Counted(NormalTarget):
    """A conjugate normal model that notes each trace of its likelihood."""

    def parts(self, x: Any) -> tuple[Any, Any]:
        TRACED.append(1)
        return super().parts(x)


def exact(y: np.ndarray) -> float:
    """log ∫ Π N(θ; 0, 1) Π N(y; θ, 1)."""
    m = len(y)
    log_z = 0.0
    for column in y.T:
        inside = column @ column - column.sum() ** 2 / (m + 1)
        log_z -= 0.5 * (m * math.log(2 * math.pi) + math.log(m + 1) + inside)
    return log_z


def quiet(model: Any, engine: Any, **settings: Any) -> Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        return infer(model, engine, progress="off", **settings)


@cache
def fitted() -> Fit:
    with precision.scope("float64"):
        target = NormalTarget(jnp.asarray(DATA))
    return quiet(target, SMC(), draws=512, chains=4, seed=1)


def test_evidence_and_moments_are_exact_within_their_errors() -> None:
    """Fixed seeds; four standard errors (6e-5 for a normal), at least 0.02 of them."""
    with precision.scope("float64"):
        target = NormalTarget(jnp.asarray(DATA))
        mean, sd = (np.asarray(v) for v in target.posterior)
    fits = {
        "smc": fitted(),
        "ais": quiet(target, AIS(temperatures=32), draws=512, chains=4, seed=1),
        "importance": quiet(target, Importance(), draws=4096, chains=4, seed=1),
        "data": quiet(target, SMC("random_walk", by="data"), draws=512, chains=4, seed=2),
        "waste-free": quiet(target, SMC(waste_free=8), draws=512, chains=4, seed=3),
        "pilot": quiet(target, SMC(pilot=True), draws=512, chains=4, seed=5),
        "autoregressive": quiet(target, SMC("autoregressive"), draws=512, chains=4, seed=4),
    }
    for name, fit in fits.items():
        found = fit.log_evidence
        assert found.error is not None and found.error < 0.15, name
        assert abs(found.value - exact(DATA)) < 4 * max(found.error, 0.02), (name, str(found))
        x = fit.draws("x").reshape(-1, 2)
        assert np.abs(x.mean(0) - mean).max() < 0.25 * sd.max(), name
        population = fit.population
        assert population is not None
        w = weights(population)
        np.testing.assert_allclose(w @ population.x, x.mean(0), atol=0.1 * sd.max())
        assert sum(fit.attrs["gradients"].values()) > 2000


def test_one_trace_for_sixty_temperatures_other_seeds_and_other_data() -> None:
    with precision.scope("float64"):
        engine, silent = SMC(ess=0.996), lambda progress: None
        y = jnp.asarray(3.0 * DATA)
        first = engine.populate(Keys(1).block(0), Counted(y), 256, silent)
        assert len(first.stats["temperature"]) >= 60
        TRACED.clear()
        other = engine.populate(Keys(2).block(0), Counted(2.0 * y), 256, silent)
        again = SMC(ess=0.996, pilot=True).populate(Keys(1).block(0), Counted(y), 256, silent)
    assert not TRACED
    # The second run repeats the first, whose gradients count too, with particles of its own.
    for name in ("temperature", "step_size", "moves"):
        np.testing.assert_allclose(again.stats[name], first.stats[name], rtol=1e-12)
    assert again.gradients == pytest.approx(2 * first.gradients, rel=0.1)
    assert abs(float(again.population.log_z - first.population.log_z)) > 1e-6
    assert len(other.stats["temperature"]) != len(first.stats["temperature"])


def test_a_pilot_makes_the_evidence_unbiased() -> None:
    assert SMC(pilot=True).contract == ProperlyWeighted()
    assert SMC().contract == ProperlyWeighted(unbiased_evidence=False)
    assert SMC("random_walk", pilot=True).stage.contract == ProperlyWeighted()


def test_a_fit_keeps_its_population_and_its_evidence(tmp_path: Any) -> None:
    model = posterior()
    fit = quiet(model, "smc", draws=200, chains=2, seed=3)
    again = quiet(model, "smc", draws=200, chains=2, seed=3)
    np.testing.assert_array_equal(fit.draws("slope"), again.draws("slope"))
    fit.save(tmp_path / "fit")
    loaded = pp.load(tmp_path / "fit")
    assert fit.population is not None and loaded.population is not None
    np.testing.assert_array_equal(loaded.population.x, fit.population.x)
    assert loaded.population.log_z == pytest.approx(fit.log_evidence.value)
    assert loaded.log_evidence == fit.log_evidence
    assert loaded.attrs["weights"]["ess"] == pytest.approx([200.0, 200.0])
    assert "log evidence" in repr(loaded) and "temperatures" in repr(fit)
    assert fit.posterior["mean"].shape == (2, 200, 4)


def test_evidence_of_an_engine_that_knows_none() -> None:
    from small import fitted as walked

    with pytest.raises(UnsupportedError, match="does not estimate the evidence"):
        _ = walked().log_evidence
    assert str(LogEvidence(-1.0, None)) == "-1.000 (error unknown)"


def test_weights_that_a_few_particles_carry_are_reported() -> None:
    with precision.scope("float64"):
        target = NormalTarget(jnp.asarray(DATA * 0.1 + 3.5))
    with pytest.warns(SamplingWarning) as seen:
        infer(target, Importance(), draws=400, chains=2, seed=1, progress="off")
    said = str(seen[0].message)
    assert "are worth" in said and "smaller steps (smc)" in said
    rng = np.random.default_rng(5)
    heavy = Population(np.zeros((4000, 1)), 2.0 * rng.exponential(size=4000), np.zeros(()))
    assert (k_hat(heavy) or 0.0) > 1.0
    assert k_hat(Population(np.zeros((100, 1)), np.zeros(100), np.zeros(()))) is None


def test_draws_repeat_particles_in_proportion_to_their_weights() -> None:
    """Systematic resampling: ⌊N W⌋ or ⌈N W⌉ copies of each."""

    @dataclass(frozen=True)
    class Fixed:
        default_chains = 2
        default_draws = 4
        contract = Importance().contract

        def populate(self, key: Any, target: Any, n: int, report: Any) -> Any:
            from ppcore.engine import Populated

            x = jnp.arange(4.0)[:, None]
            return Populated(Population(x, jnp.log(jnp.asarray([4, 2, 1, 1.0])), jnp.zeros(())), 4)

    with precision.scope("float64"):
        drawn = draw(Fixed(), DensityTarget(bowl, 1), 4, 2, 0, "off", str)
    np.testing.assert_array_equal(np.bincount(drawn.result.x[0, :, 0].astype(int))[:2], [2, 1])
    assert drawn.evidence == LogEvidence(0.0, 0.0)


def bowl(x: Any, data: Any) -> Any:
    return -0.5 * jnp.sum(x**2)


def unit(x: Any, data: Any) -> Any:
    return stats.norm.logpdf(x).sum()


def unit_draw(key: Any, data: Any) -> Any:
    return jax.random.normal(key, (1,))


def nowhere(x: Any, data: Any) -> Any:
    return unit(x, data) + jnp.where(x[0] > 50.0, 0.0, -jnp.inf)


def undefined(x: Any, data: Any) -> Any:
    return unit(x, data) + data


@pytest.mark.parametrize("engine", [SMC(), Importance(), AIS(temperatures=4, pilot=32)])
def test_dead_populations_are_handed_over(engine: Any) -> None:
    target = DensityTarget(nowhere, 1, (), unit, unit_draw)
    with pytest.raises(PopulationError, match="all 32 weights vanish") as caught:
        quiet(target, engine, draws=32, chains=1, seed=0)
    error = caught.value
    assert error.population is not None and error.population.x.shape == (32, 1)
    assert np.isfinite(error.population.x).all()
    assert error.stage in ("tempering", "importance") and error.temperature is not None
    assert "Use more particles" in str(error)


def test_an_undefined_likelihood_never_yields_a_posterior() -> None:
    target = DensityTarget(undefined, 1, np.float64("nan"), unit, unit_draw)
    with pytest.raises(PopulationError, match="Check data for NaN"):
        quiet(target, SMC(), draws=32, chains=1, seed=0)
    with pytest.raises(PopulationError, match="Check data for NaN"):
        quiet(target, Importance(), draws=32, chains=1, seed=0)


@pp.model
def improper():
    mu = pp.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
    pp.sample("y", dist.Normal(mu, 1))


def test_an_improper_prior_is_named_with_what_to_do() -> None:
    model = improper().observe(y=1.0)
    with pytest.raises(UnsupportedError, match=r"site 'mu' is improper.*reference='laplace'"):
        quiet(model, "smc", reference="prior", draws=64, chains=1, seed=0)
    fit = quiet(model, "smc", draws=64, chains=1, seed=0)
    assert abs(fit.log_evidence.value) < 0.1
    assert any("Gaussian at a mode" in note for note in fit.attrs["notes"])


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: SMC(move="hcm"), "Did you mean 'hmc'"),
        (lambda: SMC(reference="laplas"), "Did you mean 'laplace'"),
        (lambda: SMC(by="data", reference="laplace"), "starts from the prior"),
        (lambda: SMC(waste_free=0), "at least 1"),
        (lambda: AIS(schedule=(0.5,)), "must end at 1"),
        (lambda: AIS(schedule=(0.5, 0.4, 1.0)), "must increase"),
        (lambda: AIS(resample="sistematic"), "Did you mean 'systematic'"),
        (lambda: quiet(posterior(), "smc", block_size=3), "has no meaning"),
        (lambda: quiet(posterior(), SMC(waste_free=7), draws=20), "cannot be made of chains"),
    ],
)
def test_settings_are_checked(build: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        build()


def test_models_take_in_their_data_one_by_one() -> None:
    model = posterior()
    with precision.scope("float64"):
        target = model.target("float64")
        x = jnp.asarray([0.4, -0.3])
        log_prior, terms = target.parts(x)
        assert terms.shape == (4,)
        np.testing.assert_allclose(terms.sum(), target.log_likelihood(x), rtol=1e-12)
        np.testing.assert_allclose(log_prior, target.log_prior(x), rtol=1e-12)
