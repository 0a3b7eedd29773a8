"""Dirichlet(α) with categorical and multinomial data.

p(π | data) = Dirichlet(α + counts),  p(data) = Π h · B(α + counts) / B(α), with
log B(α) = Σ log Γ(α_k) − log Γ(Σ α_k).

Source: Diaconis & Ylvisaker, "Conjugate priors for exponential families" (1979).
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from ppcore.dist import Description
from ppcore.exact.conjugate.forms import SOLVER, Site
from ppcore.exact.conjugate.pair import Evidence, Parameters, describe
from ppcore.exact.protocol import NotExact


def prior(site: Site) -> Parameters | None:
    """α: float[rows, K]."""
    if site.family != "Dirichlet":
        return None
    alpha = site.known("concentration")
    if alpha is None:
        raise NotExact(SOLVER, site.name, "its concentration depends on other random values.")
    k = site.space.shape[-1]
    return {"alpha": np.broadcast_to(alpha.astype(float), site.space.shape).reshape(-1, k)}


def update(parameters: Parameters, evidence: list[Evidence]) -> tuple[Parameters, float]:
    """Add counts."""
    alpha = parameters["alpha"]
    log = -_log_b(alpha)
    for e in evidence:
        rows, counts, h = _counts(e, alpha.shape[1])
        new = np.zeros(alpha.shape)
        np.add.at(new, rows.ravel(), counts.reshape(-1, alpha.shape[1]))
        alpha, log = alpha + new, log + h
    return {"alpha": alpha}, float(log + _log_b(alpha))


def _counts(e: Evidence, k: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Which row each observation reads, its counts [*batch, K], and Σ log h."""
    family, index = e.site.family, e.form.index
    whole = index.ndim > 0 and index.shape[-1] == k
    whole = whole and bool((index == index[..., :1] + np.arange(k)).all())
    whole = whole and bool((index[..., 0] % k == 0).all())
    if e.argument != "probs" or not e.form.direct or not whole:
        raise e.refuse(f"{family}'s {e.argument} is not a whole Dirichlet site, or an index of it.")
    assert e.site.value is not None
    y, weights = e.site.value, e.site.weights
    rows = np.broadcast_to(index[..., 0] // k, e.site.batch)
    if family in ("Categorical", "CategoricalProbs"):
        return rows, np.eye(k)[y] * weights[..., None], 0.0
    if family in ("Multinomial", "MultinomialProbs"):
        h = gammaln(y.sum(-1) + 1) - gammaln(y + 1.0).sum(-1)
        return rows, y * weights[..., None], e.sum(h)
    raise e.refuse(f"{family} is not conjugate to Dirichlet; Categorical and Multinomial are.")


def _log_b(alpha: np.ndarray) -> float:
    return float((gammaln(alpha).sum(-1) - gammaln(alpha.sum(-1))).sum())


def describe_posterior(parameters: Parameters, site: Site) -> Description:
    """Dirichlet(α)."""
    return describe("Dirichlet", concentration=parameters["alpha"].reshape(site.space.shape))


def draw(rng: np.random.Generator, parameters: Parameters, n: int) -> np.ndarray:
    """float[n, size]: normalised gammas, in logs so that small α does not underflow."""
    alpha = parameters["alpha"]
    u = rng.random((n, *alpha.shape))
    log = np.log(rng.gamma(alpha + 1, 1.0, (n, *alpha.shape))) + np.log1p(-u) / alpha
    share = np.exp(log - log.max(-1, keepdims=True))
    return (share / share.sum(-1, keepdims=True)).reshape(n, -1)
