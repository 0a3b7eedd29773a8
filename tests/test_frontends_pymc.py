"""PyMC models as densities: their names, dims, data and refusals."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import ppcore as pp
from ppcore import precision
from ppcore.errors import EvidenceError, ModelError, UnsupportedError

pm = pytest.importorskip("pymc")

pytestmark = pytest.mark.filterwarnings("ignore::ppcore.frontends.DensityOnlyWarning")
RNG = np.random.default_rng(0)
Y = RNG.normal(size=12)
COUNTY = RNG.integers(0, 3, 12)


def varying(y: np.ndarray = Y):
    with pm.Model(coords={"county": ["a", "b", "c"]}) as model:
        floor = pm.Data("floor", np.arange(12.0))
        mu = pm.Normal("mu", 0, 5)
        tau = pm.HalfCauchy("tau", 5)
        alpha = pm.Normal("alpha", mu, tau, dims="county")
        share = pm.Dirichlet("share", np.ones(3))
        pm.Deterministic("double", 2 * alpha, dims="county")
        pm.Potential("extra", -0.1 * (share**2).sum())
        pm.Normal("y", alpha[COUNTY] + 0.01 * floor, 1.0, observed=y)
    return model


def test_density_sites_and_dims() -> None:
    theirs = varying()
    model = pp.from_pymc(theirs)
    assert model.latents == ("mu", "tau", "alpha", "share")
    assert model.deterministics == ("double",) and model.observed == ("y",)
    assert model.dims["alpha"] == model.dims["double"] == ("county",)
    assert model.spaces["share"].shape == (3,)
    assert model.capabilities == {"gradient"}
    whole, slope = theirs.compile_logp(), theirs.compile_dlogp()
    x = np.random.default_rng(1).normal(size=(4, 7))
    with precision.scope("float64"):
        target = model.target()
        value, gradient = jax.vmap(jax.value_and_grad(target.log_density))(x)
        sites = target.constrain(x[0])
        parts = target.log_prior(x[0]) + target.log_likelihood(x[0])
    for row, v, g in zip(x, value, gradient, strict=True):
        at = {"mu": row[0], "tau_log__": row[1], "alpha": row[2:5], "share_simplex__": row[5:]}
        np.testing.assert_allclose(v, whole(at), rtol=1e-10)
        np.testing.assert_allclose(g, slope(at), rtol=1e-8)
    np.testing.assert_allclose(parts, value[0], rtol=1e-12)
    np.testing.assert_allclose(sites["tau"], np.exp(x[0, 1]))
    np.testing.assert_allclose(sites["double"], 2 * x[0, 2:5])
    np.testing.assert_allclose(np.asarray(sites["share"]).sum(), 1)


def test_data_are_leaves() -> None:
    target = pp.from_pymc(varying()).target()
    assert any(np.shape(leaf) == (12,) and np.allclose(leaf, Y) for leaf in target.data)


@pytest.mark.filterwarnings("ignore::ppcore.report.SamplingWarning")
def test_it_runs() -> None:
    """μ | y ~ N(y/2, 1/2), within 5 of the standard errors that the fit itself states."""
    with pm.Model() as coin:
        mu = pm.Normal("mu", 0, 1)
        pm.Normal("y", mu, 1, observed=1.5)
    fit = pp.from_pymc(coin).infer("nuts", seed=1, chains=4, draws=200)
    error = float(np.asarray(fit.summary(["mu"])["mcse_mean"], float)[0])
    assert abs(fit.draws("mu").mean() - 0.75) < 5 * error


def test_bad_models() -> None:
    with pytest.raises(ModelError, match=r"takes a pymc\.Model"):
        pp.from_pymc(lambda: None)
    with pm.Model() as labelled:
        pm.Bernoulli("z", 0.5)
    with pytest.raises(UnsupportedError, match="'z' is discrete"):
        pp.from_pymc(labelled)
    with pm.Model() as nothing:
        pm.Normal("y", 0, 1, observed=1.0)
    with pytest.raises(ModelError, match="no free variable"):
        pp.from_pymc(nothing)
    with pytest.raises(UnsupportedError, match="cannot be drawn"):
        pp.from_pymc(varying()).target().sample_reference(jax.random.key(0), 2)


def test_nan_data_are_refused() -> None:
    with pm.Model() as model:
        mu = pm.Normal("mu", 0, 1)
        data = pm.Data("data", np.array([1.0, 2.0]))
        pm.Normal("y", mu, 1, observed=data)
    data.set_value(np.array([1.0, np.nan]))
    with pytest.raises(EvidenceError, match="'y' is observed as NaN"):
        pp.from_pymc(model)
