"""Linear regressions."""

from __future__ import annotations

from typing import Any

import numpy as np

import ppcore as pp
from ppcore import Model, dist

Data = dict[str, Any]


def flat(shape: tuple[int, ...] = ()) -> dist.Description:
    """Density 1 on R^shape."""
    return dist.ImproperUniform(dist.constraints.real, shape, ())


def flat_positive() -> dist.Description:
    """Density 1 on (0, ∞)."""
    return dist.ImproperUniform(dist.constraints.positive, (), ())


@pp.model
def linear(x):
    """y ~ N(xβ, σ) with β flat on R^p and σ flat on (0, ∞)."""
    beta = pp.sample("beta", flat((x.shape[1],)))
    sigma = pp.sample("sigma", flat_positive())
    pp.sample("y", dist.Normal(x @ beta, sigma))


@pp.model
def linear_half_cauchy(x):
    """y ~ N(xβ, σ) with β flat on R^p and σ ~ half-Cauchy(2.5)."""
    beta = pp.sample("beta", flat((x.shape[1],)))
    sigma = pp.sample("sigma", dist.HalfCauchy(2.5))
    pp.sample("y", dist.Normal(x @ beta, sigma))


@pp.model
def bayesian(x):
    """y ~ N(xβ, σ) with β_d ~ N(0, 10) and σ ~ half-normal(10), without intercept."""
    beta = pp.sample("beta", dist.Normal(0, 10).expand([x.shape[1]]))
    sigma = pp.sample("sigma", dist.HalfNormal(10))
    pp.sample("y", dist.Normal(x @ beta, sigma))


@pp.model
def trend(x, loc_alpha, scale_alpha, loc_beta, scale_beta):
    """y ~ N(α + βx, σ) with normal α and β, σ flat; x is far from 0, so α and β correlate."""
    alpha = pp.sample("alpha", dist.Normal(loc_alpha, scale_alpha))
    beta = pp.sample("beta", dist.Normal(loc_beta, scale_beta))
    sigma = pp.sample("sigma", flat_positive())
    pp.sample("y", dist.Normal(alpha + beta * x, sigma))


@pp.model
def student(centered):
    """Y ~ N(Intercept + X_c b, σ) with b_k ~ N(0, 1) and Student-t₃ Intercept and σ > 0."""
    b = pp.sample("b", dist.Normal(0, 1).expand([centered.shape[1]]))
    intercept = pp.sample("Intercept", dist.StudentT(3, 8, 10))
    sigma = pp.sample("sigma", dist.FoldedDistribution(dist.StudentT(3, 0, 10)))
    pp.sample("Y", dist.Normal(intercept + centered @ b, sigma))


def columns(*given: Any) -> np.ndarray:
    """Columns as a float matrix; numbers are repeated."""
    return np.stack(np.broadcast_arrays(*given), axis=1).astype(float)


def logearn_interaction(data: Data) -> Model:
    height, male = data["height"], data["male"]
    return linear(columns(1, height, male, height * male)).observe(y=np.log(data["earn"]))


def earn_height(data: Data) -> Model:
    return linear(columns(1, data["height"])).observe(y=data["earn"])


def log10earn_height(data: Data) -> Model:
    return linear(columns(1, data["height"])).observe(y=np.log10(data["earn"]))


def kidscore_mom_work(data: Data) -> Model:
    work = data["mom_work"]
    return linear(columns(1, work == 2, work == 3, work == 4)).observe(y=data["kid_score"])


def mesquite(data: Data) -> Model:
    names = ("diam1", "diam2", "canopy_height", "total_height", "density", "group")
    return linear(columns(1, *(data[n] for n in names))).observe(y=data["weight"])


def logmesquite_logvas(data: Data) -> Model:
    one, two, canopy = data["diam1"], data["diam2"], data["canopy_height"]
    x = columns(
        1,
        np.log(one * two * canopy),
        np.log(one * two),
        np.log(one / two),
        np.log(data["total_height"]),
        np.log(data["density"]),
        data["group"],
    )
    return linear(x).observe(y=np.log(data["weight"]))


def nes(data: Data) -> Model:
    age = data["age_discrete"]
    first = (1, data["real_ideo"], data["race_adj"], age == 2, age == 3, age == 4)
    x = columns(*first, data["educ1"], data["gender"], data["income"])
    return linear(x).observe(y=data["partyid7"])


def kidscore_momiq(data: Data) -> Model:
    return linear_half_cauchy(columns(1, data["mom_iq"])).observe(y=data["kid_score"])


def kidscore_interaction(data: Data) -> Model:
    school, iq = data["mom_hs"], data["mom_iq"]
    return linear_half_cauchy(columns(1, school, iq, school * iq)).observe(y=data["kid_score"])


def blr(data: Data) -> Model:
    return bayesian(data["X"].astype(float)).observe(y=data["y"])


def kilpisjarvi(data: Data) -> Model:
    prior = (data[n] for n in ("pmualpha", "psalpha", "pmubeta", "psbeta"))
    return trend(data["x"].astype(float), *prior).observe(y=data["y"])


def diamonds(data: Data) -> Model:
    x = data["X"][:, 1:].astype(float)
    return student(x - x.mean(axis=0)).observe(Y=data["Y"])
