"""What a fit holds: groups, record, summary, predictions, files, plots."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small import X, Y, fitted, line, posterior, quietly
from walker import Walk

import ppcore as pp
from ppcore import dist
from ppcore.errors import (
    PluginError,
    SettingsError,
    UnsupportedError,
)
from ppcore.fit import Fit, load, plotting
from ppcore.fit.record import FORMAT
from ppcore.fit.store import StoreError
from ppcore.fit.tree import dataset
from ppcore.report import SamplingWarning


@pytest.fixture
def fit() -> Fit:
    return fitted()


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
