"""Linear regressions."""

from __future__ import annotations

from typing import Any

import ppcore as pp
from benchmarks.posteriordb import designs
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


def logearn_interaction(data: Data) -> Model:
    return _observed(linear, designs.logearn_interaction(data))


def earn_height(data: Data) -> Model:
    return _observed(linear, designs.earn_height(data))


def log10earn_height(data: Data) -> Model:
    return _observed(linear, designs.log10earn_height(data))


def kidscore_mom_work(data: Data) -> Model:
    return _observed(linear, designs.kidscore_mom_work(data))


def mesquite(data: Data) -> Model:
    return _observed(linear, designs.mesquite(data))


def logmesquite_logvas(data: Data) -> Model:
    return _observed(linear, designs.logmesquite_logvas(data))


def nes(data: Data) -> Model:
    return _observed(linear, designs.nes(data))


def kidscore_momiq(data: Data) -> Model:
    return _observed(linear_half_cauchy, designs.kidscore_momiq(data))


def kidscore_interaction(data: Data) -> Model:
    return _observed(linear_half_cauchy, designs.kidscore_interaction(data))


def blr(data: Data) -> Model:
    return _observed(bayesian, designs.blr(data))


def kilpisjarvi(data: Data) -> Model:
    prior = (data[n] for n in ("pmualpha", "psalpha", "pmubeta", "psbeta"))
    return trend(data["x"].astype(float), *prior).observe(y=data["y"])


def diamonds(data: Data) -> Model:
    x, y = designs.diamonds(data)
    return student(x).observe(Y=y)


def _observed(model: Any, design: designs.Design) -> Model:
    x, y = design
    return model(x).observe(y=y)  # type: ignore[no-any-return]
