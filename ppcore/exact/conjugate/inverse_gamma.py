"""InverseGamma(a, b) variances of Gaussian data, and scales of exponential and gamma data.

The posterior of v is InverseGamma(a + ΣA, b + ΣB) for data with density h · v^(−A) exp(−B/v): the
formulas are those of :mod:`ppcore.exact.conjugate.gamma` for 1/v.

Source: Diaconis & Ylvisaker, "Conjugate priors for exponential families" (1979).
"""

from __future__ import annotations

import numpy as np

from ppcore.dist import Description
from ppcore.exact.conjugate.forms import Site
from ppcore.exact.conjugate.pair import Parameters, describe, known_prior


def prior(site: Site) -> Parameters | None:
    """a = concentration, b = rate (NumPyro's name of the inverse gamma's scale)."""
    if site.family != "InverseGamma":
        return None
    a, b = known_prior(site, {"concentration": None, "rate": 1.0})
    return {"a": a, "b": b}


def describe_posterior(parameters: Parameters, site: Site) -> Description:
    """InverseGamma(a, b)."""
    a, b = (parameters[k].reshape(site.batch) for k in "ab")
    return describe("InverseGamma", concentration=a, rate=b)


def draw(rng: np.random.Generator, parameters: Parameters, n: int) -> np.ndarray:
    """float[n, size]."""
    return parameters["b"] / rng.gamma(parameters["a"], 1.0, (n, parameters["a"].size))
