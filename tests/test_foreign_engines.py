"""NumPyro's and Pyro's own engines by name: right in closed form, closed settings, contracts."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import ppcore as pp
from ppcore import dist, registry
from ppcore.errors import PopulationError, SettingsError, StartError
from ppcore.fit.infer import infer
from ppcore.run.checks import EngineError
from ppcore.target import DensityTarget
from ppcore.testing import Plan, run_suite
from ppcore.testing.certify import subject_of
from ppcore.testing.models import pool

Y = np.array([1.0, -2.0])
QUICK = {
    "numpyro_nuts": ({"warmup_draws": 200}, {"chains": 4, "draws": 500}),
    "numpyro_sa": ({"warmup_draws": 1000}, {"chains": 4, "draws": 5000}),
    "numpyro_aies": ({"warmup_draws": 200}, {"chains": 16, "draws": 1000}),
    "numpyro_ess": ({"warmup_draws": 100}, {"chains": 8, "draws": 500}),
    "numpyro_svi": ({"steps": 400}, {"chains": 2, "draws": 1000}),
    "pyro_nuts": ({"warmup_draws": 50}, {"chains": 1, "draws": 200}),
    "pyro_svi": ({"steps": 60, "rate": 0.05, "particles": 1}, {"chains": 1, "draws": 1000}),
}
CHECKS = {
    "numpyro_nuts": "invariance",
    "numpyro_aies": "invariance",
    "numpyro_ess": "invariance",
    "numpyro_svi": "averages",
}


@pp.model
def model() -> None:
    with pp.plate("i", 2):
        theta = pp.sample("theta", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(theta, 1))


@pytest.fixture(params=QUICK)
def name(request: pytest.FixtureRequest) -> str:
    if request.param.startswith("pyro"):
        pytest.importorskip("pyro")
    return str(request.param)


@pytest.mark.filterwarnings("ignore::ppcore.report.SamplingWarning")
def test_a_posterior_in_closed_form(name: str) -> None:
    """θ_i | y ~ N(y_i/2, 1/2) and log Z = Σ log N(y_i; 0, 2). Means within 5 of the standard errors
    that the fit itself states, sds within a seventh, the evidence within 5 of its own error."""
    settings, sizes = QUICK[name]
    fit = model().observe(y=Y).infer(name, seed=3, progress=False, **sizes, **settings)
    error = np.asarray(fit.summary(["theta"])["mcse_mean"], float)
    draws = fit.result.x.reshape(-1, 2)
    assert (np.abs(draws.mean(0) - Y / 2) < 5 * np.maximum(error, 0.01)).all()
    assert np.abs(draws.std(0) - 0.5**0.5).max() < 0.1
    if name.endswith("svi"):
        log_z = float((-0.25 * Y**2 - 0.5 * np.log(4 * np.pi)).sum())
        assert abs(fit.log_evidence.value - log_z) < 5 * max(fit.attrs["log_evidence_error"], 0.01)
    again = model().observe(y=Y).infer(name, seed=3, progress=False, **sizes, **settings)
    np.testing.assert_array_equal(fit.result.x, again.result.x)


@pytest.mark.parametrize("checked", CHECKS)
def test_black_box_checks(checked: str) -> None:
    """What the listed contract calls for, on one model and few replicates; error 1e-3 in all."""
    engine = registry.engine(checked, QUICK[checked][0])
    plan = Plan(replicates=300, only=(CHECKS[checked],), models=tuple(pool(("normal",)).values()))
    report = run_suite(subject_of(checked, engine, registry.spec(checked).contract), plan)
    assert report.ok and len(report.results) == 1, report.results


def nowhere(x, data):
    return jnp.where(jnp.isnan(x).any(), 0.0, -jnp.inf)


def test_a_density_that_is_nowhere_finite_is_refused(name: str) -> None:
    settings, sizes = QUICK[name]
    with pytest.raises((StartError, PopulationError, EngineError)):
        infer(DensityTarget(nowhere, 2), name, seed=1, progress=False, **sizes, **settings)


@pytest.mark.parametrize(
    ("engine", "settings", "said"),
    [
        ("numpyro_svi", {"guide": "multivariat"}, "Did you mean 'multivariate'"),
        ("numpyro_aies", {"move": "strech"}, "Did you mean 'stretch'"),
        ("numpyro_ess", {"move": "gausian"}, "Did you mean 'gaussian'"),
        ("numpyro_nuts", {"target_accept": 1.5}, "target_accept"),
        ("numpyro_sa", {"points": 1}, "no covariance"),
        ("numpyro_svi", {"step": 10}, "Did you mean 'steps'"),
    ],
)
def test_settings_are_closed(engine: str, settings: dict, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        registry.engine(engine, settings)


def test_ensembles_want_an_even_number_of_walkers_that_span_the_space() -> None:
    with pytest.raises(SettingsError, match="even number of walkers"):
        model().observe(y=Y).infer("numpyro_aies", chains=5, seed=1, progress=False)


@pytest.mark.parametrize(
    ("guide", "correlation"), [("normal", 0.2), ("low_rank", 0.5), ("iaf", 0.5), ("laplace", 0.5)]
)
def test_every_guide_is_weighed_properly(guide: str, correlation: float) -> None:
    """log Z of a Gaussian of correlation ρ, within 5 of the standard errors that the fit states.

    Under a Gaussian guide of covariance Q, E[w²] is finite if 2 Σ⁻¹ − Q⁻¹ is positive definite: for
    a diagonal Q, if its variances exceed (1 + ρ)/2. Those that SVI leads to are 1 − ρ², too small
    from ρ = 1/2 on, where a standard error would mean nothing; hence "normal" is tried at 0.2.
    """
    fit = infer(
        DensityTarget(correlated, 2, jnp.asarray(correlation)),
        "numpyro_svi",
        seed=1,
        progress=False,
        chains=1,
        draws=2000,
        steps=300,
        guide=guide,
    )
    error = max(fit.attrs["log_evidence_error"], 0.02)
    log_z = np.log(2 * np.pi * np.sqrt(1 - correlation**2))
    assert abs(fit.log_evidence.value - log_z) < 5 * error


def correlated(x, rho):
    return -0.5 * (x[0] ** 2 - 2 * rho * x[0] * x[1] + x[1] ** 2) / (1 - rho**2)
