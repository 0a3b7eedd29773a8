"""Gamma(a, b) rates with Poisson, exponential and gamma data; precisions of Gaussian data.

p(λ | data) = Gamma(a + ΣA, b + ΣB),  p(data) = Π h · [Γ(a + ΣA) / Γ(a)] · b^a / (b + ΣB)^(a + ΣA),
for data whose density is h · λ^A exp(−λB): with rate cλ, Poisson has A = y, B = c; the exponential
A = 1, B = cy; the gamma of known shape k A = k, B = cy.

Source: Diaconis & Ylvisaker, "Conjugate priors for exponential families" (1979).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from ppcore.dist import Description
from ppcore.exact.conjugate.forms import Site
from ppcore.exact.conjugate.pair import Evidence, Parameters, describe, known_prior


def prior(site: Site) -> Parameters | None:
    """a = concentration, b = rate; Exponential(b) is Gamma(1, b), Chi2(k) Gamma(k/2, 1/2)."""
    if site.family == "Gamma":
        a, b = known_prior(site, {"concentration": None, "rate": 1.0})
    elif site.family == "Exponential":
        (b,) = known_prior(site, {"rate": 1.0})
        a = np.ones(b.shape)
    elif site.family == "Chi2":
        (k,) = known_prior(site, {"df": None})
        a, b = k / 2, np.full(k.shape, 0.5)
    else:
        return None
    return {"a": a, "b": b}


def exponents(e: Evidence, power: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A, B and log h of each observation, its rate being c · site ** power."""
    assert e.site.value is not None
    y, c, family = e.site.value.astype(float), e.form.coef, e.site.family
    if e.argument == "rate" and e.form.power == power:
        if family == "Poisson" and power == 1.0:
            return y, c, y * np.log(c) - gammaln(y + 1)
        if family == "Exponential":
            return np.ones(()), c * y, np.log(c)
        if family == "Gamma":
            k = e.require("concentration")
            return k, c * y, k * np.log(c) + (k - 1) * np.log(y) - gammaln(k)
    raise e.refuse(
        f"{family}'s {e.argument} is {_shown(e)}, which is conjugate to no Gamma or InverseGamma "
        "prior. Conjugate are Poisson, Exponential and Gamma (known shape) with a Gamma site in "
        "the rate, and Normal with an InverseGamma variance or a Gamma precision in the scale."
    )


def _shown(e: Evidence) -> str:
    return f"{e.form.site} to the power {e.form.power:g} times a constant"


def update_with(
    parameters: Parameters,
    evidence: list[Evidence],
    power: float,
    gaussian: tuple[np.ndarray, np.ndarray, float],
) -> tuple[Parameters, float]:
    """Add exponents; ``gaussian`` holds A, B and Σ log h of Gaussian data."""
    a, b = parameters["a"], parameters["b"]
    log = (a * np.log(b) - gammaln(a)).sum() + gaussian[2]
    a, b = a + gaussian[0], b + gaussian[1]
    for e in evidence:
        rise, fall, h = exponents(e, power)
        a, b = a + e.total(rise, a.size), b + e.total(fall, b.size)
        log += e.sum(h)
    return {"a": a, "b": b}, float(log + (gammaln(a) - a * np.log(b)).sum())


def describe_posterior(parameters: Parameters, site: Site) -> Description:
    """Gamma(a, b)."""
    a, b = (parameters[k].reshape(site.batch) for k in "ab")
    return describe("Gamma", concentration=a, rate=b)


def draw(rng: np.random.Generator, parameters: Parameters, n: int) -> np.ndarray:
    """float[n, size]."""
    return rng.gamma(parameters["a"], 1 / parameters["b"], (n, parameters["a"].size))
