"""Beta(a, b) with Bernoulli, binomial, geometric and negative binomial data.

p(θ | data) = Beta(a + Σs, b + Σf),  p(data) = Π h · B(a + Σs, b + Σf) / B(a, b), with s successes
and f failures an observation. NumPyro's geometric counts failures before a success (s = 1, f = y);
its negative binomial counts y successes before r failures (s = y, f = r).

Source: Diaconis & Ylvisaker, "Conjugate priors for exponential families" (1979).
"""

from __future__ import annotations

import numpy as np
from scipy.special import betaln, gammaln

from ppcore.dist import Description
from ppcore.exact.conjugate.forms import Site
from ppcore.exact.conjugate.pair import Evidence, Parameters, describe, known_prior


def prior(site: Site) -> Parameters | None:
    """a = concentration1, b = concentration0; Uniform(0, 1) is Beta(1, 1)."""
    if site.family == "Uniform":
        low, high = known_prior(site, {"low": 0.0, "high": 1.0})
        if (low != 0).any() or (high != 1).any():
            return None
        return {"a": np.ones(low.shape), "b": np.ones(low.shape)}
    if site.family != "Beta":
        return None
    a, b = known_prior(site, {"concentration1": None, "concentration0": None})
    return {"a": a, "b": b}


def counts(e: Evidence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Successes, failures and log h of each observation."""
    assert e.site.value is not None
    y = e.site.value.astype(float)
    family, zero = e.site.family, np.zeros(())
    if e.argument == "probs" and e.form.direct:
        if family in ("Bernoulli", "BernoulliProbs"):
            return y, 1 - y, zero
        if family in ("Binomial", "BinomialProbs"):
            n = e.require("total_count", 1.0)
            return y, n - y, gammaln(n + 1) - gammaln(y + 1) - gammaln(n - y + 1)
        if family in ("Geometric", "GeometricProbs"):
            return np.ones(()), y, zero
        if family in ("NegativeBinomial", "NegativeBinomialProbs"):
            r = e.require("total_count")
            return y, r, gammaln(y + r) - gammaln(r) - gammaln(y + 1)
    raise e.refuse(
        f"{family}'s {e.argument} is not itself a Beta site. Conjugate to Beta are Bernoulli, "
        "Binomial, Geometric and NegativeBinomial with the site as probs."
    )


def update(parameters: Parameters, evidence: list[Evidence]) -> tuple[Parameters, float]:
    """Add successes and failures."""
    a, b = parameters["a"], parameters["b"]
    log = -betaln(a, b).sum()
    for e in evidence:
        s, f, h = counts(e)
        a, b = a + e.total(s, a.size), b + e.total(f, b.size)
        log += e.sum(h)
    return {"a": a, "b": b}, float(log + betaln(a, b).sum())


def describe_posterior(parameters: Parameters, site: Site) -> Description:
    """Beta(a, b)."""
    a, b = (parameters[k].reshape(site.batch) for k in "ab")
    return describe("Beta", concentration1=a, concentration0=b)


def draw(rng: np.random.Generator, parameters: Parameters, n: int) -> np.ndarray:
    """float[n, size]."""
    return rng.beta(parameters["a"], parameters["b"], (n, parameters["a"].size))
