"""Samplers of other projects behind extras: what is said without them, and that they keep their
contracts where they are installed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import ppcore as pp
from ppcore import dist, precision, registry
from ppcore.cli import main
from ppcore.errors import PluginError, PopulationError, SettingsError, StartError, UnsupportedError
from ppcore.fit.infer import infer
from ppcore.target import DensityTarget
from ppcore.testing import Plan, run_suite
from ppcore.testing.certify import subject_of
from ppcore.testing.models import pool

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# Modules that are named otherwise than the distribution that installs them.
DISTRIBUTIONS = {"pyro": "pyro-ppl"}
QUICK = {
    "emcee": ({"warmup_draws": 200}, {"chains": 16, "draws": 1000}),
    "dynesty": ({"live": 150}, {"chains": 2, "draws": 1000}),
    "nutpie": ({"tune": 100}, {"chains": 4, "draws": 500}),
}
Y = np.array([1.0, -2.0])


def listed() -> dict[tuple[str, str], registry.Spec]:
    known = registry.catalog()
    specs = (*known.engines.values(), *known.frontends.values(), *known.rewrites.values())
    return {(s.kind, s.name): s for s in specs if s.origin and s.origin.distribution == "ppcore"}


def name_in(requirement: str) -> str:
    return requirement.split(";")[0].split("[")[0].split(">")[0].split("<")[0].strip().lower()


CORE = {name_in(line) for line in PROJECT["dependencies"]}


@pytest.mark.parametrize("at", listed(), ids="-".join)
def test_what_an_entry_requires_is_installed_by_its_extra(at: tuple[str, str]) -> None:
    spec = listed()[at]
    wanted = {DISTRIBUTIONS.get(module, module) for module in spec.requires} - CORE
    if wanted:
        assert spec.extra in EXTRAS, f"{at}: {wanted} come with no extra"
        assert wanted <= {name_in(line) for line in EXTRAS[spec.extra]}


def test_without_extras_every_entry_lists_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_found", lambda module: module in CORE)
    assert main(["engines", "--json"]) == 0
    shown = {e["name"]: e for e in json.loads(capsys.readouterr().out)["engines"]}
    assert main(["engines"]) == 0
    text = capsys.readouterr().out
    lacking = 0
    for (kind, name), spec in listed().items():
        if kind == "engine":
            assert name in shown and name in text
        if registry.unavailable(spec) is None:
            continue
        lacking += 1
        remedy = f'pip install "ppcore[{spec.extra}]"'
        with pytest.raises(PluginError) as said:
            registry.resolve(name, kind)
        assert remedy in str(said.value) and name in str(said.value)
        assert f"not available: {kind} {name!r}" in text and remedy in text
        if kind == "engine":
            assert remedy in shown[name]["unavailable"]
            with pytest.raises(PluginError, match="not installed"):
                infer(model().observe(y=Y), name)
    assert lacking >= 4


@pp.model
def model() -> None:
    with pp.plate("i", 2):
        theta = pp.sample("theta", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(theta, 1))


@pytest.fixture(params=QUICK)
def external(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param)
    return str(request.param)


@pytest.mark.filterwarnings("ignore::ppcore.report.SamplingWarning")
def test_a_posterior_in_closed_form(external: str) -> None:
    """θ_i | y ~ N(y_i/2, 1/2) and log Z = Σ log N(y_i; 0, 2). Means within 5 of the standard errors
    that the fit itself states, sds within a tenth, the evidence within 4.5 of its own."""
    settings, sizes = QUICK[external]
    fit = model().observe(y=Y).infer(external, seed=3, progress=False, **sizes, **settings)
    said = fit.summary(["theta"])
    draws = fit.result.x.reshape(-1, 2)
    error = np.asarray(said["mcse_mean"], float)
    assert (np.abs(draws.mean(0) - Y / 2) < 5 * np.maximum(error, 0.01)).all()
    assert np.abs(draws.std(0) - 0.5**0.5).max() < 0.07
    if external == "dynesty":
        log_z = float((-0.25 * Y**2 - 0.5 * np.log(4 * np.pi)).sum())
        assert abs(fit.log_evidence.value - log_z) < 4.5 * max(
            fit.attrs["log_evidence_error"], 0.05
        )
    if external == "nutpie":
        assert fit.result.gradients["sampling"] > 4 * 600
    again = model().observe(y=Y).infer(external, seed=3, progress=False, **sizes, **settings)
    np.testing.assert_array_equal(fit.result.x, again.result.x)


def test_black_box_checks(external: str) -> None:
    """What the listed contract calls for, on one model and few replicates; error 1e-3 in all. The
    manners are those of test_certified.py, the whole is in the certificate."""
    spec = registry.spec(external)
    engine = registry.engine(external, QUICK[external][0])
    only = {"emcee": "invariance", "dynesty": "averages", "nutpie": "consistency"}[external]
    plan = Plan(replicates=300, only=(only,), models=tuple(pool(("normal",)).values()))
    report = run_suite(subject_of(external, engine, spec.contract), plan)
    assert report.ok and len(report.results) == 1, report.results


@pytest.mark.filterwarnings("ignore::ppcore.report.SamplingWarning")
def test_single_precision(external: str) -> None:
    settings, sizes = QUICK[external]
    fit = (
        model()
        .observe(y=Y)
        .infer(external, seed=3, progress=False, precision="float32", **sizes, **settings)
    )
    assert fit.result.x.dtype == np.float32
    assert np.abs(fit.result.x.mean((0, 1)) - Y / 2).max() < 0.2


def nowhere(x, data):
    return jnp.where(jnp.isnan(x).any(), 0.0, -jnp.inf)


def log_normal(x, data):
    return -0.5 * jnp.sum(x**2 + jnp.log(2 * jnp.pi))


def draw_normal(key, data):
    from ppcore import random

    return random.normal(key, (2,))


def test_bad_input_is_refused_with_a_remedy(external: str) -> None:
    settings, sizes = QUICK[external]
    dead = DensityTarget(nowhere, 2, (), log_normal, draw_normal)
    with pytest.raises((StartError, PopulationError)):
        infer(dead, external, seed=1, progress=False, **sizes, **settings)
    wrong = {"emcee": ("move", "strech", "stretch"), "nutpie": ("metric", "diagonl", "diagonal")}
    key, value, meant = wrong.get(external, ("sample", "rwlk", "rwalk"))
    with pytest.raises(
        SettingsError, match=f"{key}='{value}' is not known. Did you mean '{meant}'"
    ):
        registry.engine(external, {key: value})


def test_emcee_wants_walkers_that_span_the_space() -> None:
    pytest.importorskip("emcee")
    with pytest.raises(SettingsError, match="needs at least 6 walkers"):
        model().observe(y=Y).infer("emcee", chains=4, seed=1, progress=False)


def test_dynesty_wants_a_prior() -> None:
    pytest.importorskip("dynesty")
    with pytest.raises(UnsupportedError, match="starts from the prior"):
        infer(DensityTarget(log_normal, 2), "dynesty", seed=1, progress=False)


def test_the_pseudo_prior_is_normalised() -> None:
    """∫ q = 1 through the map from the cube: the mean of γ/q over a lattice in u is Z = 1."""
    pytest.importorskip("dynesty")
    from ppcore_external.dynesty import _from_cube, _log_ratio

    with precision.scope("float64"):
        middle, scale = jnp.array([0.3, -1.0]), jnp.array([0.7, 2.0])
        target = DensityTarget(log_normal, 2)
        u = (np.arange(400) + 0.5) / 400
        cube = np.stack(np.meshgrid(u, u), -1).reshape(-1, 2)
        x = [_from_cube(middle, scale, row) for row in cube[::1601]]
        assert all(np.isfinite(row).all() for row in x)
        import jax

        log_w = jax.vmap(lambda v: _log_ratio(target, middle, scale, _from_cube(middle, scale, v)))(
            jnp.asarray(cube)
        )
        assert abs(float(jnp.exp(log_w).mean()) - 1.0) < 1e-3
