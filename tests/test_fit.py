"""Fits: inference end to end on a small model, its groups, file, report and warnings."""

from __future__ import annotations

import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import arviz_stats.base
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walker import Walk

import ppcore as pp
from ppcore import dist, registry
from ppcore.contract import Contract, Density, Invariant
from ppcore.errors import (
    ModelError,
    PluginError,
    SettingsError,
    StartError,
    UnsupportedError,
)
from ppcore.fit import Fit, infer, load, plotting
from ppcore.fit.record import FORMAT
from ppcore.fit.store import StoreError
from ppcore.fit.tree import dataset
from ppcore.report import SamplingWarning, assess
from ppcore.report.diagnostics import diagnose, energy_fraction
from ppcore.target import DensityTarget

X = np.array([-1.0, 0.0, 1.0, 2.0])
Y = np.array([-0.8, 0.1, 1.3, 1.9])


@pp.model
def line(x):
    slope = pp.sample("slope", dist.Normal(0, 1))
    scale = pp.sample("scale", dist.HalfNormal(1))
    with pp.plate("point", len(x)):
        mean = pp.deterministic("mean", slope * x)
        pp.sample("y", dist.Normal(mean, scale))


def posterior() -> Any:
    return line(X).observe(y=Y)


def quietly(model: Any, engine: Any = None, **settings: Any) -> Fit:
    settings = {"draws": 500, "chains": 4, "seed": 3, "progress": "off"} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        return infer(model, engine or Walk(0.7), **settings)


@cache
def fitted() -> Fit:
    return quietly(posterior())


@pytest.fixture
def fit() -> Fit:
    return fitted()


@pytest.fixture
def walk(fresh_registry: None) -> Iterator[str]:
    registry.register(registry.EngineSpec("walk", Walk, contract=Invariant(reversible=True)))
    yield "walk"


# infer


def test_the_seed_decides_and_is_recorded() -> None:
    one, two = quietly(posterior(), seed=None), quietly(posterior(), seed=None)
    assert one.attrs["seed"] != two.attrs["seed"]
    again = quietly(posterior(), seed=one.attrs["seed"])
    np.testing.assert_array_equal(again.draws("slope"), one.draws("slope"))


def test_models_infer_through_the_registry(walk: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        fit = posterior().infer(walk, draws=500, chains=4, seed=3, progress="off", scale=0.7)
    assert fit.attrs["engine"] == "walk"
    assert fit.attrs["engine_settings"] == {"scale": 0.7}
    np.testing.assert_array_equal(fit.draws("slope"), fitted().draws("slope"))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"drws": 10}, "has a setting 'drws'. Did you mean 'draws'?"),
        ({"scal": 1.0}, "has a setting 'scal'. Did you mean 'scale'?"),
        ({"engine": "wlak"}, "Engine 'wlak' is not known. Did you mean 'walk'?"),
        ({"precision": "double"}, "precision='double'"),
        ({"draws": -1}, "draws=-1"),
        ({"chains": 0}, "chains=0"),
        ({"seed": "one"}, "seed='one'"),
        ({"progress": "richh"}, "Did you mean 'rich'?"),
        ({"engine": Walk(), "scale": 2.0}, r"belong in Walk\(...\)"),
        ({"engine": Walk}, "neither a name nor an engine"),
    ],
)
def test_misspelt_settings_are_refused(walk: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        infer(posterior(), **{"engine": walk, **settings})


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be sampled"):
        infer(lambda x: x, Walk(), progress="off")


def test_a_site_cannot_be_called_like_an_axis() -> None:
    @pp.model
    def odd():
        pp.sample("chain", dist.Normal(0, 1))

    with pytest.raises(ModelError, match="'chain': that is the name of an axis"):
        infer(odd(), Walk(), progress="off")


def test_a_failed_start_names_the_guilty_site() -> None:
    @pp.model
    def impossible():
        width = pp.sample("width", dist.Uniform(0, 1))
        pp.sample("late", dist.Normal(0, width - 2))

    with pytest.raises(StartError, match="site 'late' has log density nan at 16 of 16") as error:
        infer(impossible().observe(late=3.0), Walk(), progress="off")
    assert "'width'" not in str(error.value)


def test_a_plain_density_can_be_inferred() -> None:
    fit = quietly(DensityTarget(lambda x, data: -0.5 * jnp.sum(x**2), 2))
    assert fit.draws("x").shape == (4, 500, 2)
    assert fit.attrs["health"]["rhat"][0].startswith("x[")
    assert list(fit.summary().index) == ["x[0]", "x[1]"]
    with pytest.raises(UnsupportedError, match="made from a plain density"):
        fit.predict()


def test_an_interrupted_run_is_a_fit_of_what_was_drawn(tmp_path: Path) -> None:
    def stop(progress: Any) -> None:
        if progress.phase == "sampling" and progress.done >= 100:
            raise KeyboardInterrupt

    part = quietly(posterior(), progress=stop, checkpoint=tmp_path / "run", seed=None)
    done = part.attrs["draws"]
    assert not part.attrs["complete"] and 100 <= done < 500
    assert "interrupted" in repr(part)
    assert part.predict("y").shape == (4, done, 4)
    whole = quietly(posterior(), checkpoint=tmp_path / "run", seed=None)
    assert whole.attrs["seed"] == part.attrs["seed"], "the saved run's seed is used"
    np.testing.assert_array_equal(whole.draws("slope")[:, :done], part.draws("slope"))


def test_infer_imports_neither_xarray_nor_arviz() -> None:
    script = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
import numpy as np
from walker import Walk
from ppcore.fit import infer
from ppcore.target import DensityTarget
fit = infer(DensityTarget(lambda x, data: -0.5 * (x**2).sum(), 1), Walk(), seed=1, progress="off")
fit.draws("x"), repr(fit)
slow = {{"xarray", "arviz_stats", "arviz_base", "pandas", "arviz", "rich"}} & set(sys.modules)
assert not slow, slow
fit.summary()
assert "arviz" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, timeout=120)


# What a fit holds


def test_groups_are_in_arvizs_layout(fit: Fit) -> None:
    data = fit.data
    assert {"posterior", "sample_stats", "observed_data"} <= set(data.children)
    assert data["posterior"]["mean"].dims == ("chain", "draw", "point")
    assert data["posterior"]["slope"].dims == ("chain", "draw")
    assert data["observed_data"]["y"].dims == ("point",)
    assert {"lp", "acceptance_rate", "diverging"} <= set(data["sample_stats"].data_vars)
    assert list(fit.posterior) == ["slope", "scale", "mean"]
    assert (fit.draws("scale") > 0).all()
    np.testing.assert_allclose(fit.draws("mean"), fit.draws("slope")[..., None] * X)
    np.testing.assert_array_equal(fit.posterior["slope"], fit.draws("slope"))


def test_the_record_tells_how_the_draws_were_made(fit: Fit) -> None:
    attrs = fit.attrs
    assert attrs["engine_settings"] == {"scale": 0.7}
    assert attrs["engine_type"] == "walker.Walk"
    assert attrs["contract"] == "Invariant(reversible=True, irreducible=True)"
    assert attrs["gradients"] == {"warmup": 7, "sampling": 2000}
    assert (attrs["seed"], attrs["precision"], attrs["complete"]) == (3, "float64", True)
    assert {"ppcore", "jax", "numpyro", "python"} <= set(attrs["versions"])
    assert {"warmup_seconds", "sampling_seconds", "first_draw_seconds"} <= set(attrs["timings"])
    assert attrs["notes"] == ["hi"]
    assert fit.data.attrs["seed"] == 3


def test_draws_of_an_unknown_site(fit: Fit) -> None:
    for ask in (fit.draws, lambda name: fit.summary([name]), lambda name: fit.plot("trace", name)):
        with pytest.raises(SettingsError, match=r"Did you mean 'slope'\?"):
            ask("slop")


def test_summary(fit: Fit) -> None:
    table = fit.summary()
    assert list(table.index) == ["slope", "scale", *(f"mean[{i}]" for i in range(4))]
    assert {"mean", "sd", "ess_bulk", "ess_tail", "r_hat", "mcse_mean"} <= set(table.columns)
    exact = fit.summary("slope", digits=None)
    assert exact.loc["slope", "mean"] == pytest.approx(fit.draws("slope").mean(), rel=1e-12)
    rounded = table.loc["slope", "mean"]
    assert abs(rounded - exact.loc["slope", "mean"]) < 0.01 * exact.loc["slope", "sd"]
    assert "..." not in repr(table)
    assert {"hdi50_lb", "hdi50_ub"} <= set(fit.summary(ci_prob=0.5, ci_kind="hdi").columns)


def test_the_report_fits_a_screen(fit: Fit) -> None:
    text = repr(fit)
    for part in ("line by Walk", "4 chains × 500 draws", "seed 3", "R-hat", "ESS", "mean[4]"):
        assert part in text
    assert len(text.splitlines()) < 20
    assert "<b>Fit of line" in fit._repr_html_()


def test_axes_never_clash() -> None:
    values = {
        "county": np.zeros((2, 3, 5)),
        "a": np.zeros((2, 3, 5)),
        "b": np.zeros((2, 3, 6)),
        "c": np.zeros((2, 3, 4, 4)),
    }
    dims = {"county": ("county",), "a": ("group",), "b": ("group",), "c": ("draw", "draw")}
    made = dataset(values, dims)
    assert made["county"].dims == ("chain", "draw", "county_dim_0")
    assert made["a"].dims == ("chain", "draw", "group")
    assert made["b"].dims == ("chain", "draw", "b_dim_0")
    assert made["c"].dims == ("chain", "draw", "c_dim_0", "c_dim_1")


# Predictions


def test_predictions_follow_the_draws() -> None:
    fit = quietly(posterior())
    drawn = fit.predict("y", seed=1)
    assert drawn.dims == ("chain", "draw", "point") and drawn.shape == (4, 500, 4)
    z = (drawn.values - fit.draws("mean")) / fit.draws("scale")[..., None]
    # 8,000 standard normals: |mean| > 5/sqrt(8000) has probability 6e-7.
    assert abs(z.mean()) < 5 / np.sqrt(z.size)
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * z.size)
    np.testing.assert_array_equal(fit.predict("y", seed=1), drawn)
    assert not np.array_equal(fit.predict("y", seed=2), drawn)
    assert list(fit.predict()) == ["y"]
    assert "posterior_predictive" in fit.data.children


def test_predictions_at_new_covariates(fit: Fit) -> None:
    future = line(np.array([10.0, 20.0]))
    drawn = fit.predict("y", model=future)
    assert drawn.shape == (4, 500, 2)
    np.testing.assert_allclose(
        fit.predict("mean", model=future), fit.draws("slope")[..., None] * np.array([10.0, 20.0])
    )
    assert list(fit.predict(model=future)) == ["y"]
    with pytest.raises(SettingsError, match=r"Did you mean 'mean'\?"):
        fit.predict("meann", model=future)


def test_predicting_with_latents_of_another_shape_is_refused() -> None:
    @pp.model
    def groups(n):
        with pp.plate("group", n):
            effect = pp.sample("effect", dist.Normal(0, 1))
            pp.sample("seen", dist.Normal(effect, 1))

    fit = quietly(groups(3).observe(seen=np.zeros(3)), draws=20)
    with pytest.raises(SettingsError, match=r"'effect' was drawn with shape \(3,\).*shape \(4,\)"):
        fit.predict(model=groups(4))


def test_the_prior() -> None:
    fit = quietly(posterior())
    drawn = fit.prior("scale", draws=200, seed=1)
    assert drawn.shape == (1, 200) and (drawn > 0).all()
    assert {"slope", "scale", "mean"} <= set(fit.data["prior"].data_vars)
    assert list(fit.data["prior_predictive"].data_vars) == ["y"]
    with pytest.raises(SettingsError, match=r"Did you mean 'slope'\?"):
        fit.prior("slop")


def test_the_pointwise_likelihood_and_loo() -> None:
    fit = quietly(posterior())
    found = fit.log_likelihood()["y"]
    mean, scale = fit.draws("mean"), fit.draws("scale")[..., None]
    expected = -0.5 * ((Y - mean) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        assert fit.loo().n_data_points == 4
    with pytest.raises(SettingsError, match="'z' is not observed"):
        fit.loo("z")


def test_loo_names_the_observations_it_cannot_judge() -> None:
    @pp.model
    def narrow(n):
        mu = pp.sample("mu", dist.Normal(0, 10))
        with pp.plate("i", n):
            pp.sample("y", dist.Normal(mu, 0.1))

    fit = quietly(narrow(4).observe(y=np.array([0.0, 0.1, -0.1, 3.0])), Walk(0.1))
    with pytest.warns(SamplingWarning, match=r"k-hat is above 0.7 for .*worst: y\[3\]"):
        fit.loo()


def test_a_model_without_evidence_has_no_likelihood() -> None:
    fit = quietly(line(X), Walk(0.3), draws=20)
    with pytest.raises(UnsupportedError, match="observes nothing"):
        fit.log_likelihood()


# Files


def test_a_saved_fit_is_the_same_fit(tmp_path: Path) -> None:
    fit = quietly(posterior())
    fit.predict()
    fit.prior(draws=10)
    fit.log_likelihood()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fit.save(tmp_path / "line.zarr") == tmp_path / "line.zarr"
        loaded = load(tmp_path / "line.zarr")
    assert loaded.attrs == fit.attrs
    assert set(loaded.data.children) == set(fit.data.children)
    for name, group in fit.data.children.items():
        for site, values in group.data_vars.items():
            np.testing.assert_array_equal(loaded.data[name][site], values)
    assert list(loaded.posterior) == list(fit.posterior)
    assert loaded.warnings == fit.warnings
    assert repr(loaded) == repr(fit)
    assert loaded.summary().equals(fit.summary())
    with pytest.raises(UnsupportedError, match="Pass model=, the model with its data"):
        loaded.predict("y")
    np.testing.assert_array_equal(loaded.predict("y", model=posterior()), fit.predict("y"))
    assert loaded.log_likelihood()["y"].shape == (4, 500, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["line.zarr"]


def test_nothing_is_overwritten_unasked(tmp_path: Path, fit: Fit) -> None:
    place = fit.save(tmp_path / "a.zarr")
    with pytest.raises(StoreError, match="Pass overwrite=True"):
        fit.save(place)
    other = quietly(posterior(), seed=4)
    other.save(place, overwrite=True)
    assert load(place).attrs["seed"] == 4
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "draft.txt").write_text("draft")
    with pytest.raises(StoreError, match="not a saved fit, so it is not overwritten"):
        fit.save(tmp_path / "thesis", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zarr", "thesis"]


def test_a_failed_save_leaves_nothing_and_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = quietly(posterior())
    place = fit.save(tmp_path / "a.zarr")

    def half(self: Any, store: Any, **_: Any) -> None:
        Path(store).mkdir()
        (Path(store) / "zarr.json").write_text("{")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(fit.data), "to_zarr", half)
    for path, overwrite in ((place, True), (tmp_path / "b.zarr", False)):
        with pytest.raises(StoreError, match="No space left"):
            fit.save(path, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]
    assert load(place).attrs["seed"] == 3


def test_what_is_no_saved_fit_is_refused(tmp_path: Path, fit: Fit) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        load(tmp_path / "nothing.zarr")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="no zarr store"):
        load(tmp_path / "file")
    fit.posterior.to_zarr(tmp_path / "strange.zarr", consolidated=False)
    with pytest.raises(StoreError, match="not one that ppcore saved"):
        load(tmp_path / "strange.zarr")
    newer = fit.data.copy()
    newer.attrs["ppcore_format"] = FORMAT + 1
    newer.to_zarr(tmp_path / "newer.zarr", consolidated=False)
    with pytest.raises(StoreError, match="upgrade ppcore"):
        load(tmp_path / "newer.zarr")


# Plots


def test_plots(fit: Fit) -> None:
    import matplotlib

    matplotlib.use("Agg")
    assert fit.plot("forest", "slope") is not None
    assert fit.plot("trace", ["slope", "scale"], chains=2) is not None
    with pytest.raises(SettingsError, match=r"Did you mean 'trace'\?"):
        fit.plot("trce")


def test_few_chains_are_shown_of_many() -> None:
    fit = quietly(posterior(), chains=20, draws=20)
    assert plotting.few_chains(fit.data, "trace", 8)["posterior"].sizes["chain"] == 8
    assert plotting.few_chains(fit.data, "forest", 8)["posterior"].sizes["chain"] == 20


def test_plots_that_are_not_installed(fit: Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arviz_plots", None)
    with pytest.raises(PluginError, match=r"ppcore\[plots\]"):
        fit.plot()


# Diagnostics and warnings


def chains(shape: tuple[int, ...], memory: float, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=shape)
    x = noise.copy()
    for t in range(1, shape[1]):
        x[:, t] = memory * x[:, t - 1] + np.sqrt(1 - memory**2) * noise[:, t]
    return x


@pytest.mark.parametrize("memory", [0.9, 0.3, 0.0, -0.5])
@pytest.mark.parametrize("shape", [(4, 1000, 3), (64, 100, 3), (2, 10, 3)])
def test_diagnostics_are_arvizs(shape: tuple[int, ...], memory: float) -> None:
    x = chains(shape, memory)
    x[..., 0] = np.round(x[..., 0], 1)
    found = diagnose(x)
    stats = arviz_stats.base.array_stats
    axes = {"chain_axis": 0, "draw_axis": 1}
    for j in range(x.shape[2]):
        one = x[..., j]
        assert found.rhat[j] == pytest.approx(stats.rhat(one, **axes), rel=1e-10)
        assert found.ess_bulk[j] == pytest.approx(stats.ess(one, method="bulk", **axes), rel=1e-10)
        tail = stats.ess(one, method="tail", prob=(0.05, 0.95), **axes)
        assert found.ess_tail[j] == pytest.approx(tail, rel=1e-10)
    np.testing.assert_allclose(
        energy_fraction(x[..., 1]), stats.bfmi(x[..., 1], **axes), rtol=1e-10
    )


def test_diagnostics_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    x = chains((4, 100, 7), 0.5)
    whole = diagnose(x)
    monkeypatch.setattr("ppcore.report.diagnostics.CELLS", 900)
    np.testing.assert_array_equal(diagnose(x).ess_bulk, whole.ess_bulk)


def name(i: int) -> str:
    return f"theta[{i}]"


def warned(x: np.ndarray, **stats: np.ndarray) -> str:
    return "\n".join(assess(x, stats, name).warnings)


def test_good_draws_raise_no_warning() -> None:
    for shape in ((4, 1000, 5), (64, 100, 5)):
        health = assess(chains(shape, 0.0), {"diverging": np.zeros(shape[:2], bool)}, name)
        assert health.warnings == ()
        assert health.divergences == 0 and health.rhat[1] < 1.01  # type: ignore[index]


def test_chains_that_disagree() -> None:
    x = chains((4, 1000, 5), 0.0)
    x[0, :, 3] += 2
    assert "R-hat is above 1.01 for 1 of 5 coordinates, worst: theta[3]" in warned(x)
    assert "draws=2000" in warned(x)


def test_few_effective_draws() -> None:
    text = warned(chains((4, 500, 2), 0.97))
    assert "effective sample size is below 400 (for 4 chains) for 2 of 2" in text
    # Many short chains are judged together: 100 for each of 64 would be every draw there is.
    assert "effective" not in warned(chains((64, 100, 2), 0.5))
    assert "below 800 (for 64 chains)" in warned(chains((64, 20, 2), 0.5))


def test_divergences_are_placed() -> None:
    x = chains((4, 1000, 3), 0.0)
    diverging = x[..., 2] < -2
    text = warned(x, diverging=diverging)
    assert f"{diverging.sum()} of 4000 transitions diverged" in text
    assert "They gather at low values of theta[2]" in text


def test_energies_that_hardly_change() -> None:
    slow = chains((4, 1000, 1), 0.95)[..., 0]
    assert "E-BFMI is 0." in warned(chains((4, 1000, 1), 0.0), energy=slow)
    many = chains((64, 100, 1), 0.0)
    assert "E-BFMI" not in warned(many, energy=many[..., 0])


def test_chains_that_never_moved() -> None:
    x = chains((4, 100, 3), 0.0)
    x[..., 1] = 1.0
    assert "No chain moved in theta[1]" in warned(x)
    x = chains((4, 100, 3), 0.0)
    x[2] = 0.5
    assert "Chains that never moved: 2" in warned(x)
    assert "too few to judge" in warned(chains((4, 2, 1), 0.0))


def test_infer_warns_once_at_the_users_own_line() -> None:
    with pytest.warns(SamplingWarning) as seen:
        fit = posterior().infer(Walk(0.05), draws=50, chains=2, seed=1, progress="off")
    assert len(seen) == 1
    assert Path(seen[0].filename).name == "test_fit.py"
    assert "R-hat" in str(seen[0].message) and "slope" in str(seen[0].message)
    assert "\n".join(fit.warnings) == str(seen[0].message)


def test_values_that_overflow_are_told_of() -> None:
    @dataclass(frozen=True)
    class Far(Walk):
        def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
            carry, draws, stats = super().block(key, target, tuned, carry, n)
            return carry, draws.at[..., 1].set(800.0), stats

    fit = quietly(posterior(), Far(), draws=20)
    with pytest.warns(SamplingWarning, match="Site 'scale' is not finite in 80 of 80 draws"):
        fit.draws("scale")


# Engines that draw at once


@dataclass
class Exact:
    """Standard normal draws of one site."""

    solver: str = "toy"
    log_evidence: float = -1.5
    sites: tuple[str, ...] = ("slope",)

    def marginal(self, site: str) -> str:
        return f"law of {site}"

    def sample(self, key: Any, n: int) -> dict[str, np.ndarray]:
        return {"slope": np.asarray(jax.random.normal(key, (n,)))}


@dataclass(frozen=True)
class AtOnce:
    contract: ClassVar[Contract] = Density()
    default_draws: ClassVar[int] = 100
    solution: Any = field(default_factory=Exact)

    def solve(self, target: Any) -> Any:
        assert target.log_density is not None
        return self.solution


def test_an_engine_that_draws_at_once() -> None:
    fit = infer(posterior(), AtOnce(), seed=1)
    assert fit.draws("slope").shape == (4, 100)
    assert fit.attrs["log_evidence"] == -1.5
    assert fit.solution.marginal("slope") == "law of slope"
    assert fit.summary().loc["slope", "r_hat"] < 1.1
    assert "independent draws" in repr(fit)
    np.testing.assert_array_equal(
        infer(posterior(), AtOnce(), seed=1).draws("slope"), fit.draws("slope")
    )
    with pytest.raises(SettingsError, match="checkpoint= has no meaning"):
        infer(posterior(), AtOnce(), checkpoint="somewhere")


# Speed


def test_a_second_call_costs_little_beyond_the_draws() -> None:
    quietly(posterior(), draws=100)
    began = time.perf_counter()
    fit = quietly(posterior(), draws=100)
    fit.draws("slope")
    spent = time.perf_counter() - began - fit.attrs["timings"]["total_seconds"]
    assert spent < 0.2
