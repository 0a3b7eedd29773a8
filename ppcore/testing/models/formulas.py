"""Fourteen small models on R³ with data y: float[3, 3], in unconstrained coordinates.

Each is a pair: ``draw(z, u) -> (x, y)`` turns standard noise (z: float[40] normal, u: float[80]
uniform) into a draw from the joint, and ``parts(x, y) -> (log_prior, terms)`` gives the log prior
(Jacobian included) and one log-likelihood term per datum, float[9]. One-parameter models come as
three independent copies, each with three data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy import stats
from jax.scipy.special import gammaln, logsumexp

Formula = tuple[Callable[[Any, Any], tuple[Any, Any]], Callable[[Any, Any], tuple[Any, Any]]]

# A nearly collinear design: the posterior's correlations reach -0.95.
_T = np.linspace(-1.0, 1.0, 9)
DESIGN = np.stack([np.ones(9), 1.0 + 0.5 * _T, 0.8 * _T + 0.3 * np.cos(5.0 * _T)], axis=1)
CONTRASTS = np.stack([np.ones(9), np.sin(3.0 * _T), np.cos(7.0 * _T)], axis=1)
REGRESSION_SD = 0.7
CENTRES, MODE_SD, BIMODAL_SD = np.array([-1.2, 1.2]), 0.5, 1.5
PHI, STATE_SD, OBS_SD = 0.8, 0.6, 0.8


def _norm(x: Any, loc: Any = 0.0, scale: Any = 1.0) -> Any:
    return stats.norm.logpdf(x, loc, scale)


def _gamma2(u: Any, n: int, start: int = 0) -> Any:
    """n draws of Gamma(2, 1) from 2n uniforms."""
    e = -jnp.log1p(-u[start : start + 2 * n])
    return e[:n] + e[n:]


def _normal_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = z[:3]
    return x, x[:, None] + z[3:12].reshape(3, 3)


def _normal(x: Any, y: Any) -> tuple[Any, Any]:
    return _norm(x).sum(), _norm(y, x[:, None]).ravel()


def _gamma_scale_draw(z: Any, u: Any) -> tuple[Any, Any]:
    rate = _gamma2(u, 3)
    return jnp.log(rate), _gamma2(u, 9, 6).reshape(3, 3) / rate[:, None]


def _gamma_scale(x: Any, y: Any) -> tuple[Any, Any]:
    """λ = exp(x) ~ Gamma(2, 1), y ~ Gamma(2, rate λ)."""
    rate = jnp.exp(x)[:, None]
    return (2.0 * x - jnp.exp(x)).sum(), (2.0 * x[:, None] + jnp.log(y) - rate * y).ravel()


def _beta_binomial_draw(z: Any, u: Any) -> tuple[Any, Any]:
    g = _gamma2(u, 6)
    x = jnp.log(g[:3]) - jnp.log(g[3:])
    hits = u[12:57].reshape(3, 3, 5) < jax.nn.sigmoid(x)[:, None, None]
    return x, hits.sum(-1).astype(x.dtype)


def _beta_binomial(x: Any, y: Any) -> tuple[Any, Any]:
    """p = sigmoid(x) ~ Beta(2, 2), y ~ Binomial(5, p)."""
    on, off = jax.nn.log_sigmoid(x), jax.nn.log_sigmoid(-x)
    choose = gammaln(6.0) - gammaln(y + 1.0) - gammaln(6.0 - y)
    terms = choose + y * on[:, None] + (5.0 - y) * off[:, None]
    return (jnp.log(6.0) + 2.0 * on + 2.0 * off).sum(), terms.ravel()


def _regression_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = z[:3]
    return x, (DESIGN @ x + REGRESSION_SD * z[3:12]).reshape(3, 3)


def _regression(x: Any, y: Any) -> tuple[Any, Any]:
    return _norm(x).sum(), _norm(y.ravel(), DESIGN @ x, REGRESSION_SD)


def _simplex_draw(z: Any, u: Any) -> tuple[Any, Any]:
    g = _gamma2(u, 4)
    edges = jnp.cumsum(g / g.sum())[:3]
    y = (u[8:17, None] > edges).sum(-1).reshape(3, 3)
    return jnp.log(g[:3]) - jnp.log(g[3]), y.astype(z.dtype)


def simplex_log_p(x: Any) -> Any:
    """log p from the three log ratios to the last category; float[4]."""
    return jax.nn.log_softmax(jnp.concatenate([x, jnp.zeros(1, x.dtype)]))


def _simplex(x: Any, y: Any) -> tuple[Any, Any]:
    """p ~ Dirichlet(2, 2, 2, 2) in log ratios, y ~ Categorical(p)."""
    log_p = simplex_log_p(x)
    return gammaln(8.0) + 2.0 * log_p.sum(), log_p[y.ravel().astype(int)]


def _bounded_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = jnp.log(u[:3] + 1e-300) - jnp.log1p(-u[:3])
    return x, 4.0 * u[:3, None] - 2.0 + z[:9].reshape(3, 3)


def _bounded(x: Any, y: Any) -> tuple[Any, Any]:
    """θ = sigmoid(x) ~ Uniform(0, 1), y ~ N(4θ - 2, 1)."""
    prior = (jax.nn.log_sigmoid(x) + jax.nn.log_sigmoid(-x)).sum()
    return prior, _norm(y, 4.0 * jax.nn.sigmoid(x)[:, None] - 2.0).ravel()


def _bimodal_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = jnp.where(u[:3] < 0.5, CENTRES[0], CENTRES[1]) + MODE_SD * z[:3]
    return x, x[:, None] + BIMODAL_SD * z[3:12].reshape(3, 3)


def _bimodal(x: Any, y: Any) -> tuple[Any, Any]:
    each = logsumexp(_norm(x[:, None], CENTRES, MODE_SD) + jnp.log(0.5), axis=-1)
    return each.sum(), _norm(y, x[:, None], BIMODAL_SD).ravel()


def _funnel_means(x: Any) -> Any:
    return jnp.stack([x[1] + x[2], x[1], x[2]])[:, None]


def _funnel_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = jnp.concatenate([z[:1], jnp.exp(0.5 * z[0]) * z[1:3]])
    return x, _funnel_means(x) + z[3:12].reshape(3, 3)


def _funnel(x: Any, y: Any) -> tuple[Any, Any]:
    prior = _norm(x[0]) + _norm(x[1:], 0.0, jnp.exp(0.5 * x[0])).sum()
    return prior, _norm(y, _funnel_means(x)).ravel()


def _chain_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = jnp.stack([1.5 * z[0], -1.0 + 0.7 * z[1], 1.0 + 0.7 * z[2]])
    flips = u[3:9].reshape(3, 2) > jax.nn.sigmoid(x[0])
    start = (u[:3] < 0.5).astype(int)[:, None]
    states = jnp.concatenate([start, (start + jnp.cumsum(flips, axis=1)) % 2], axis=1)
    return x, x[1:][states] + z[3:12].reshape(3, 3)


def _chain(x: Any, y: Any) -> tuple[Any, Any]:
    """Three hidden two-state chains of length three, states summed out; x = (logit stay, means)."""
    prior = _norm(x[0], 0.0, 1.5) + _norm(x[1], -1.0, 0.7) + _norm(x[2], 1.0, 0.7)
    stay, move = jax.nn.log_sigmoid(x[0]), jax.nn.log_sigmoid(-x[0])
    moves = jnp.stack([jnp.stack([stay, move]), jnp.stack([move, stay])])
    emit = _norm(y[:, :, None], x[1:])
    log_p, terms = jnp.full((3, 2), jnp.log(0.5)), []
    for t in range(3):
        joint = log_p + emit[:, t]
        terms.append(logsumexp(joint, axis=-1))
        log_p = logsumexp((joint - terms[-1][:, None])[:, :, None] + moves, axis=1)
    return prior, jnp.stack(terms, axis=1).ravel()


def _state_space_draw(z: Any, u: Any) -> tuple[Any, Any]:
    a = z[0]
    b = PHI * a + STATE_SD * z[1]
    x = jnp.stack([a, b, PHI * b + STATE_SD * z[2]])
    return x, x[:, None] + OBS_SD * z[3:12].reshape(3, 3)


def _state_space(x: Any, y: Any) -> tuple[Any, Any]:
    prior = _norm(x[0]) + _norm(x[1:], PHI * x[:-1], STATE_SD).sum()
    return prior, _norm(y, x[:, None], OBS_SD).ravel()


def _student_t_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = z[:3] / jnp.sqrt(jnp.mean(z[3:12].reshape(3, 3) ** 2, axis=1))
    return x, x[:, None] + z[12:21].reshape(3, 3)


def _student_t(x: Any, y: Any) -> tuple[Any, Any]:
    return stats.t.logpdf(x, 3.0).sum(), _norm(y, x[:, None]).ravel()


def _hierarchical_draw(z: Any, u: Any) -> tuple[Any, Any]:
    mu, log_tau = z[0], -0.5 + 0.7 * z[1]
    theta = mu + jnp.exp(log_tau) * z[2]
    near = theta + z[3:6]
    far = mu + jnp.sqrt(1.0 + jnp.exp(2.0 * log_tau)) * z[6:12].reshape(2, 3)
    return jnp.stack([mu, log_tau, theta]), jnp.concatenate([near[None], far])


def _hierarchical(x: Any, y: Any) -> tuple[Any, Any]:
    """(μ, log τ, θ): θ ~ N(μ, τ) with three data; six data have their own means summed out."""
    prior = _norm(x[0]) + _norm(x[1], -0.5, 0.7) + _norm(x[2], x[0], jnp.exp(x[1]))
    near = _norm(y[0], x[2])
    far = _norm(y[1:], x[0], jnp.sqrt(1.0 + jnp.exp(2.0 * x[1]))).ravel()
    return prior, jnp.concatenate([near, far])


def _logistic_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = z[:3]
    y = u[:9] < jax.nn.sigmoid(2.0 * CONTRASTS @ x)
    return x, y.reshape(3, 3).astype(x.dtype)


def _logistic(x: Any, y: Any) -> tuple[Any, Any]:
    sign = 2.0 * y.ravel() - 1.0
    return _norm(x).sum(), jax.nn.log_sigmoid(sign * (2.0 * CONTRASTS @ x))


def _robust_draw(z: Any, u: Any) -> tuple[Any, Any]:
    x = jnp.stack([z[0], 0.5 * z[1], z[2]])
    noise = z[3:12] / jnp.sqrt(jnp.mean(z[12:39].reshape(9, 3) ** 2, axis=1))
    return x, (x[0] + x[2] * _T + jnp.exp(x[1]) * noise).reshape(3, 3)


def _robust(x: Any, y: Any) -> tuple[Any, Any]:
    """(intercept, log scale, slope) with Student-t₃ noise."""
    prior = _norm(x[0]) + _norm(x[1], 0.0, 0.5) + _norm(x[2])
    return prior, stats.t.logpdf(y.ravel(), 3.0, x[0] + x[2] * _T, jnp.exp(x[1]))


FORMULAS: dict[str, Formula] = {
    "normal": (_normal_draw, _normal),
    "gamma_scale": (_gamma_scale_draw, _gamma_scale),
    "beta_binomial": (_beta_binomial_draw, _beta_binomial),
    "regression": (_regression_draw, _regression),
    "simplex": (_simplex_draw, _simplex),
    "bounded": (_bounded_draw, _bounded),
    "bimodal": (_bimodal_draw, _bimodal),
    "funnel": (_funnel_draw, _funnel),
    "hidden_chain": (_chain_draw, _chain),
    "state_space": (_state_space_draw, _state_space),
    "student_t": (_student_t_draw, _student_t),
    "hierarchical": (_hierarchical_draw, _hierarchical),
    "logistic": (_logistic_draw, _logistic),
    "robust": (_robust_draw, _robust),
}
