"""nutpie on models written in PyMC, compiled by numba; its low-rank metric where that helps.

This module needs PyMC, nutpie and the data, and nothing of ppcore's but the reader of the database.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import nutpie
import pymc as pm
import pytensor.tensor as pt

from benchmarks.posteriordb import designs
from benchmarks.posteriordb.drawn import CHAINS, CORRELATED, DRAWS, WARMUP, Drawn, Prepared


def linear(x: np.ndarray, y: np.ndarray) -> None:
    beta = pm.Flat("beta", shape=x.shape[1])
    pm.Normal("y", x @ beta, pm.HalfFlat("sigma"), observed=y)


def linear_half_cauchy(x: np.ndarray, y: np.ndarray) -> None:
    beta = pm.Flat("beta", shape=x.shape[1])
    pm.Normal("y", x @ beta, pm.HalfCauchy("sigma", 2.5), observed=y)


def bayesian(x: np.ndarray, y: np.ndarray) -> None:
    beta = pm.Normal("beta", 0, 10, shape=x.shape[1])
    pm.Normal("y", x @ beta, pm.HalfNormal("sigma", 10), observed=y)


def autoregression(x: np.ndarray, y: np.ndarray) -> None:
    alpha = pm.Normal("alpha", 0, 10)
    beta = pm.Normal("beta", 0, 10, shape=x.shape[1])
    pm.Normal("y", alpha + x @ beta, pm.HalfCauchy("sigma", 2.5), observed=y)


def diamonds(x: np.ndarray, y: np.ndarray) -> None:
    b = pm.Normal("b", 0, 1, shape=x.shape[1])
    intercept = pm.StudentT("Intercept", nu=3, mu=8, sigma=10)
    sigma = pm.HalfStudentT("sigma", nu=3, sigma=10)
    pm.Normal("Y", intercept + x @ b, sigma, observed=y)


def trend(data: dict[str, Any]) -> None:
    alpha = pm.Normal("alpha", data["pmualpha"], data["psalpha"])
    beta = pm.Normal("beta", data["pmubeta"], data["psbeta"])
    pm.Normal("y", alpha + beta * data["x"], pm.HalfFlat("sigma"), observed=data["y"])


def schools_centered(data: dict[str, Any]) -> None:
    mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
    theta = pm.Normal("theta", mu, tau, shape=len(data["y"]))
    pm.Normal("y", theta, data["sigma"], observed=data["y"])


def schools_noncentered(data: dict[str, Any]) -> None:
    mu, tau = pm.Normal("mu", 0, 5), pm.HalfCauchy("tau", 5)
    z = pm.Normal("theta_trans", 0, 1, shape=len(data["y"]))
    theta = pm.Deterministic("theta", mu + tau * z)
    pm.Normal("y", theta, data["sigma"], observed=data["y"])


def radon(data: dict[str, Any]) -> None:
    mu, tau = pm.Normal("mu_alpha", 0, 10), pm.HalfNormal("sigma_alpha", 1)
    sigma, beta = pm.HalfNormal("sigma_y", 1), pm.Normal("beta", 0, 10)
    raw = pm.Normal("alpha_raw", 0, 1, shape=int(data["J"]))
    alpha = mu + tau * raw
    mean = alpha[data["county_idx"] - 1] + beta * data["floor_measure"]
    pm.Normal("log_radon", mean, sigma, observed=data["log_radon"])


def item_response(data: dict[str, Any]) -> None:
    sigma_theta, sigma_a, sigma_b = (
        pm.HalfCauchy(n, 2) for n in ("sigma_theta", "sigma_a", "sigma_b")
    )
    mu_b = pm.Normal("mu_b", 0, 5)
    theta = pm.Normal("theta", 0, sigma_theta, shape=int(data["J"]))
    a = pm.LogNormal("a", 0, sigma_a, shape=int(data["I"]))
    b = pm.Normal("b", mu_b, sigma_b, shape=int(data["I"]))
    pm.Bernoulli("y", logit_p=a[:, None] * (theta - b[:, None]), observed=data["y"])


def _covariance(x: np.ndarray, rho: Any, alpha: Any) -> Any:
    return alpha**2 * pt.exp(-0.5 * (np.subtract.outer(x, x) / rho) ** 2)


def gaussian_process(data: dict[str, Any]) -> None:
    x = data["x"].astype(float)
    rho, alpha = pm.Gamma("rho", 25, 4), pm.HalfNormal("alpha", 2)
    matrix = _covariance(x, rho, alpha) + pm.HalfNormal("sigma", 1) * np.eye(len(x))
    pm.MvNormal("y", np.zeros(len(x)), cov=matrix, observed=data["y"])


def poisson_process(data: dict[str, Any]) -> None:
    x = data["x"].astype(float)
    rho, alpha = pm.Gamma("rho", 25, 4), pm.HalfNormal("alpha", 2)
    z = pm.Normal("f_tilde", 0, 1, shape=len(x))
    factor = pt.linalg.cholesky(_covariance(x, rho, alpha) + 1e-10 * np.eye(len(x)))
    pm.Poisson("k", pt.exp(pm.Deterministic("f", factor @ z)), observed=data["k"])


_BY_NAME = {
    "kilpisjarvi_mod-kilpisjarvi": trend,
    "eight_schools-eight_schools_centered": schools_centered,
    "eight_schools-eight_schools_noncentered": schools_noncentered,
    "radon_all-radon_variable_intercept_noncentered": radon,
    "irt_2pl-irt_2pl": item_response,
    "gp_pois_regr-gp_regr": gaussian_process,
    "gp_pois_regr-gp_pois_regr": poisson_process,
}
_BY_DESIGN = {
    **{name: (linear, design) for name, design in designs.FLAT.items()},
    **{name: (linear_half_cauchy, design) for name, design in designs.HALF_CAUCHY.items()},
    "sblrc-blr": (bayesian, designs.blr),
    "arK-arK": (autoregression, designs.autoregression),
    "diamonds-diamonds": (diamonds, designs.diamonds),
}


def prepare(name: str, data: dict[str, Any]) -> Prepared:
    """nutpie on a posterior; raises ``LookupError`` for one that is not written in PyMC."""
    if name not in _BY_NAME and name not in _BY_DESIGN:
        raise LookupError("not written in PyMC")
    with pm.Model() as model:
        if name in _BY_NAME:
            _BY_NAME[name](data)
        else:
            declare, design = _BY_DESIGN[name]
            declare(*design(data))
    low_rank = name in CORRELATED
    compiled: list[Any] = []

    def fit(seed: int) -> Drawn:
        if not compiled:
            compiled.append(nutpie.compile_pymc_model(model))
        found = nutpie.sample(
            compiled[0],
            draws=DRAWS,
            tune=WARMUP,
            chains=CHAINS,
            seed=seed,
            progress_bar=False,
            low_rank_modified_mass_matrix=low_rank,
        )
        sites = {str(n): v.values for n, v in found.posterior.data_vars.items()}
        steps = int(found.sample_stats["n_steps"].values.sum())
        note = f"PyMC model, {'low-rank' if low_rank else 'diagonal'} metric"
        return Drawn(sites, DRAWS / (DRAWS + WARMUP), steps, note)

    return Prepared(fit)
