"""Closed-form evidences and exact posterior draws of the pool models that have them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln, log_ndtr, logsumexp, ndtr, ndtri

from ppcore import random
from ppcore.testing.models.formulas import BIMODAL_SD, CENTRES, FORMULAS, MODE_SD

LOG_2PI = 1.8378770664093453
_GAUSSIAN = ("normal", "regression", "state_space")


def gaussian(log_density: Callable[[Any], Any], dim: int) -> tuple[Any, Any, Any]:
    """``(mean, precision, log_evidence)`` of a log density that is quadratic."""
    origin = jnp.zeros(dim)
    precision = -jax.hessian(log_density)(origin)
    mean = jnp.linalg.solve(precision, jax.grad(log_density)(origin))
    log_det = jnp.linalg.slogdet(precision)[1]
    evidence = log_density(mean) + 0.5 * dim * LOG_2PI - 0.5 * log_det
    return mean, precision, evidence


def _solved(name: str, target: Any) -> tuple[Any, Any, Any]:
    def log_density(x: Any) -> Any:
        log_prior, terms = FORMULAS[name][1](x, target.y)
        return log_prior + terms.sum()

    return gaussian(log_density, 3)


def _gaussian_evidence(name: str, target: Any) -> Any:
    return _solved(name, target)[2]


def _gaussian_posterior(name: str, key: Any, target: Any, n: int) -> Any:
    mean, precision, _ = _solved(name, target)
    factor = jnp.linalg.cholesky(jnp.linalg.inv(precision))
    return mean + random.normal(key, (n, 3)) @ factor.T


def _gamma_scale_evidence(target: Any) -> Any:
    """Π_j Γ(8) Π y / (1 + Σ y)⁸."""
    y = target.y
    each = gammaln(8.0) + jnp.log(y).sum(1) - 8.0 * jnp.log1p(y.sum(1))
    return each.sum()


def _gamma_scale_posterior(key: Any, target: Any, n: int) -> Any:
    """λ | y ~ Gamma(8, 1 + Σ y), as a sum of eight exponentials."""
    total = random.exponential(key, (n, 3, 8)).sum(-1)
    return jnp.log(total) - jnp.log1p(target.y.sum(1))


def _beta_binomial_evidence(target: Any) -> Any:
    y, n = target.y, 5.0
    choose = (gammaln(n + 1.0) - gammaln(y + 1.0) - gammaln(n - y + 1.0)).sum(1)
    hits = y.sum(1)
    # jax.scipy.special.betaln is right to 1e-7 only.
    ratio = gammaln(2.0 + hits) + gammaln(2.0 + 3.0 * n - hits) - gammaln(4.0 + 3.0 * n)
    return (choose + ratio + jnp.log(6.0)).sum()


def _beta_binomial_posterior(key: Any, target: Any, n: int) -> Any:
    """p | y ~ Beta(a, 19 − a), a = 2 + hits: the a-th smallest of eighteen uniforms."""
    u = jnp.sort(random.uniform(key, (n, 3, 18)), axis=-1)
    place = jnp.broadcast_to(1 + target.y.sum(1).astype(int), (n, 3))
    p = jnp.take_along_axis(u, place[..., None], axis=-1)[..., 0]
    return jnp.log(p) - jnp.log1p(-p)


def _simplex_evidence(target: Any) -> Any:
    counts = jnp.sum(target.y.reshape(-1, 1) == jnp.arange(4), axis=0)
    return gammaln(8.0) + gammaln(2.0 + counts).sum() - gammaln(8.0 + 9.0)


def _simplex_posterior(key: Any, target: Any, n: int) -> Any:
    """p | y ~ Dirichlet(2 + counts): gaps between order statistics of sixteen uniforms."""
    counts = jnp.sum(target.y.reshape(-1, 1) == jnp.arange(4), axis=0)
    u = jnp.sort(random.uniform(key, (n, 16)), axis=-1)
    ends = jnp.concatenate([jnp.zeros((n, 1)), u, jnp.ones((n, 1))], axis=1)
    place = jnp.concatenate([jnp.zeros(1, int), jnp.cumsum(2 + counts)])
    p = jnp.diff(ends[:, place], axis=1)
    return jnp.log(p[:, :3]) - jnp.log(p[:, 3:])


def _bounded_evidence(target: Any) -> Any:
    """The mean m = 4θ − 2 is uniform on (−2, 2): a difference of two normal tails."""
    y = target.y
    mean, root = y.mean(1), jnp.sqrt(3.0)
    rest = -0.5 * ((y - mean[:, None]) ** 2).sum(1) - 1.5 * LOG_2PI + 0.5 * (LOG_2PI - jnp.log(3.0))
    side = jnp.sign(mean)
    high, low = log_ndtr(root * (2.0 - side * mean)), log_ndtr(root * (-2.0 - side * mean))
    return (rest - jnp.log(4.0) + high + jnp.log1p(-jnp.exp(low - high))).sum()


def _bounded_posterior(key: Any, target: Any, n: int) -> Any:
    """The mean m = 4θ − 2 is N(ȳ, 1/3) within (−2, 2), by inversion, mirrored to the lower tail."""
    mean, root = target.y.mean(1), jnp.sqrt(3.0)
    side = jnp.sign(mean)
    low, high = ndtr(root * (-2.0 - side * mean)), ndtr(root * (2.0 - side * mean))
    m = side * (side * mean + ndtri(low + random.uniform(key, (n, 3)) * (high - low)) / root)
    m = jnp.clip(m, -2.0 + 1e-9, 2.0 - 1e-9)
    return jnp.log(2.0 + m) - jnp.log(2.0 - m)


def _bimodal_evidence(target: Any) -> Any:
    y = target.y[:, :, None]
    s2, t2 = BIMODAL_SD**2, MODE_SD**2
    r = y - CENTRES
    quadratic = (r**2).sum(1) / s2 - t2 * r.sum(1) ** 2 / (s2 * (s2 + 3.0 * t2))
    log_det = 2.0 * jnp.log(s2) + jnp.log(s2 + 3.0 * t2)
    each = -0.5 * (quadratic + log_det + 3.0 * LOG_2PI)
    return (logsumexp(each, axis=-1) + jnp.log(0.5)).sum()


def _bimodal_posterior(key: Any, target: Any, n: int) -> Any:
    """Each x_j | y is one of two normals, chosen by how well its centre explains ȳ_j."""
    k_which, k_normal = random.split(key)
    s2, t2 = BIMODAL_SD**2, MODE_SD**2
    mean = target.y.mean(1)[:, None]
    log_odds = -0.5 * (mean - CENTRES) ** 2 / (s2 / 3.0 + t2)
    which = random.categorical(k_which, log_odds, (n,))
    variance = 1.0 / (1.0 / t2 + 3.0 / s2)
    centre = variance * (jnp.asarray(CENTRES)[which] / t2 + 3.0 * mean[:, 0] / s2)
    return centre + jnp.sqrt(variance) * random.normal(k_normal, (n, 3))


EVIDENCE: dict[str, Callable[[Any], Any]] = {
    **{name: partial(_gaussian_evidence, name) for name in _GAUSSIAN},
    "gamma_scale": _gamma_scale_evidence,
    "beta_binomial": _beta_binomial_evidence,
    "simplex": _simplex_evidence,
    "bounded": _bounded_evidence,
    "bimodal": _bimodal_evidence,
}
POSTERIOR: dict[str, Callable[[Any, Any, int], Any]] = {
    **{name: partial(_gaussian_posterior, name) for name in _GAUSSIAN},
    "gamma_scale": _gamma_scale_posterior,
    "beta_binomial": _beta_binomial_posterior,
    "simplex": _simplex_posterior,
    "bounded": _bounded_posterior,
    "bimodal": _bimodal_posterior,
}
