"""A regression line and short fits of it, for tests of what surrounds a fit."""

from __future__ import annotations

import warnings
from functools import cache
from typing import Any

import numpy as np
from walker import Walk

import ppcore as pp
from ppcore import dist
from ppcore.fit import Fit, infer
from ppcore.report import SamplingWarning

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
