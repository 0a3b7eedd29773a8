"""The two models of ``ppcore demo``; the demo prints this file's functions as they stand."""

import numpy as np

import ppcore as pp
from ppcore import dist

EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


@pp.model
def eight_schools(error):
    mu = pp.sample("mu", dist.Normal(0, 5))
    tau = pp.sample("tau", dist.HalfCauchy(5))
    with pp.plate("school", len(error)):
        z = pp.sample("z", dist.Normal(0, 1))
        theta = pp.deterministic("theta", mu + tau * z)
        pp.sample("effect", dist.Normal(theta, error))


@pp.model
def investment(firm, firms, log_value, log_capital):
    with pp.plate("term", 2):
        mean = pp.sample("mean", dist.Normal(0, 5))
        spread = pp.sample("spread", dist.HalfNormal(1))
    value = pp.sample("value", dist.Normal(0, 1))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    with pp.plate("firm", firms):
        base = pp.sample("base", dist.Normal(mean[0], spread[0]))
        capital = pp.sample("capital", dist.Normal(mean[1], spread[1]))
    with pp.plate("firm_year", len(firm)):
        expected = base[firm] + capital[firm] * log_capital + value * log_value
        pp.sample("log_invest", dist.Normal(expected, sigma))
