"""Rao–Blackwell: the mean of a site's conditional mean, in place of the mean of its draws.

E[s] = E[E[s | the other sites, y]], and the conditional mean varies less. Whether the diagram gives
the conditional is asked of the exact solvers, with the other sites observed at one draw; they name
its family. Its parameters at all draws then follow from derivatives of the log joint density ℓ in
s, which within a family determine them:

    Gaussian:       E = s − (∇²ℓ)⁻¹ ∇ℓ
    Gamma(a, b):    ℓ' = (a − 1)/s − b
    InverseGamma:   ℓ' = −(a + 1)/s + b/s²
    Beta(a, b):     ℓ' = (a − 1)/s − (b − 1)/(1 − s)
    Dirichlet(α):   s ℓ' = α − 1 − C s

Two points give two parameters, and a third one tests that the family holds.

Source: Gelfand & Smith (1990), doi:10.1080/01621459.1990.10476213; Robert & Roberts (2021),
arXiv:2101.01011.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import precision
from ppcore.diagram import Box, Diagram
from ppcore.diagram.condition import condition
from ppcore.errors import UnsupportedError
from ppcore.estimators.estimate import Estimate, ratio_of, standard_error
from ppcore.exact.protocol import GaussianMarginal, NamedMarginal, NotExact
from ppcore.semantics.interpret import Handler, interpret
from ppcore.semantics.log_density import supported_log_prob

LARGEST = 256
TOLERANCE = 1e-6
BATCH = 512
POSITIVE = {"Gamma", "InverseGamma", "Exponential", "Chi2"}


def rao_blackwell(model: Any, site: str, draws: Mapping[str, np.ndarray]) -> Estimate:
    """E[site] with its draws replaced by conditional means; float[*shape].

    Parameters
    ----------
    model : Model
        With its evidence.
    site : str
        A latent site whose conditional given all others is Gaussian, gamma, inverse gamma, beta or
        Dirichlet.
    draws : {latent site: array[chains, draws, *shape]}

    Raises
    ------
    UnsupportedError
        If the diagram does not give the conditional; the message says which box is in the way.
    """
    names = [n for n in model.diagram.named("sample") if n not in model.evidence]
    missing = [n for n in names if n not in draws]
    if missing:
        raise UnsupportedError(
            f"The draws lack site {missing[0]!r}, so nothing can be conditioned on it. Use "
            "method='control_variates'."
        )
    family = _family(model, site, {n: draws[n][0, 0] for n in names if n != site})
    values = np.asarray(draws[site], float)
    chains, n = values.shape[:2]
    flat = {s: np.asarray(draws[s]).reshape(-1, *draws[s].shape[2:]) for s in names}
    evidence = {s: jnp.asarray(v) for s, v in model.evidence.items()}
    with precision.scope("float64"):
        means, off = _means(model.diagram, site, family, tuple(model.data), evidence, flat)
        means, worst = np.asarray(means), float(np.max(np.asarray(off)))
    if not np.isfinite(means).all() or worst > TOLERANCE:
        raise UnsupportedError(
            f"The conditional of site {site!r} is not {family} at all draws (off by {worst:.1g}). "
            "Use method='control_variates'."
        )
    series = means.reshape(chains, n, -1)
    plain, better = standard_error(values.reshape(chains, n, -1)), standard_error(series)
    shape = values.shape[2:]
    return Estimate(
        means.mean(axis=0).reshape(shape),
        better.reshape(shape),
        "rao_blackwell",
        ratio_of(plain, better).reshape(shape),
        {"family": family},
    )


def _family(model: Any, site: str, others: dict[str, np.ndarray]) -> str:
    """The family of p(site | others, evidence), by an exact solver at one draw."""
    if site not in model.latents:
        raise UnsupportedError(
            f"{site!r} is no latent site of the model, so it has no conditional."
        )
    try:
        found = model.observe(others).solve().marginal(site)
    except NotExact as error:
        raise UnsupportedError(
            f"The diagram does not give the conditional of site {site!r}: {error} Use "
            "method='control_variates'."
        ) from None
    size = int(np.prod(model.spaces[site].shape, dtype=int))
    if isinstance(found, GaussianMarginal) and size <= LARGEST:
        return "Gaussian"
    name = _named(found.distribution) if isinstance(found, NamedMarginal) else type(found).__name__
    if name in ("Normal", "MultivariateNormal") and size <= LARGEST:
        return "Gaussian"
    if name in ("Gamma", "InverseGamma", "Beta", "Dirichlet"):
        return str(name)
    raise UnsupportedError(
        f"The conditional of site {site!r} is {name} of size {size}; conditional means are known "
        f"for Gaussians up to {LARGEST} elements, Gamma, InverseGamma, Beta and Dirichlet. Use "
        "method='control_variates'."
    )


def _named(description: Any) -> str:
    """The name of a family, without expand and to_event."""
    while description.kind == "method":
        description = dict(description.arguments)["self"]
    return str(description.name)


class _Joint(Handler):
    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        return {"log_prob": supported_log_prob(box, distribution, value).sum()}

    def factor(self, box: Box, log_weight: Any) -> Any:
        return {"log_prob": log_weight.sum()}


def log_joint(diagram: Diagram, data: tuple[Any, ...], values: Mapping[str, Any]) -> Any:
    """log p of all sites at their values, in their own coordinates; float[]."""
    names = tuple(diagram.named("sample"))
    inputs = (*data, *(values[n] for n in names))
    records = interpret(condition(diagram, names), inputs, _Joint(), {})[1]
    return sum((r["log_prob"].sum() for r in records.values() if "log_prob" in r), jnp.zeros(()))


@partial(jax.jit, static_argnums=(0, 1, 2))
def _means(
    diagram: Diagram, site: str, family: str, data: Any, evidence: Any, draws: Any
) -> tuple[Any, Any]:
    """E[site | others] at every draw, and how far the family is from holding there."""

    def one(values: Any) -> tuple[Any, Any]:
        s = values[site]

        def log_density(v: Any) -> Any:
            return log_joint(diagram, data, {**evidence, **values, site: v})

        slope = jax.grad(log_density)
        if family == "Gaussian":
            return _gaussian(slope, s)
        return _by_points(family, slope, s)

    return jax.lax.map(one, draws, batch_size=BATCH)


def _gaussian(slope: Any, s: Any) -> tuple[Any, Any]:
    flat = jnp.ravel(s)

    def gradient(v: Any) -> Any:
        return jnp.ravel(slope(v.reshape(s.shape)))

    hessian = jax.jacfwd(gradient)(flat)
    mean = flat - jnp.linalg.solve(hessian, gradient(flat))
    # The gradient of a Gaussian vanishes at its mean; in units of its own spread.
    scale = jnp.sqrt(jnp.maximum(-jnp.diagonal(hessian), 1e-300))
    return mean.reshape(s.shape), jnp.max(jnp.abs(gradient(mean)) / scale)


def _by_points(family: str, slope: Any, s: Any) -> tuple[Any, Any]:
    """Both parameters from the slopes at two points, tested at a third."""
    points = _points(family, s)
    slopes = [slope(p) for p in points]
    basis = [_basis(family, p) for p in points]
    (a1, b1), (a2, b2) = basis[0], basis[1]
    det = a1 * b2 - a2 * b1
    first = (slopes[0] * b2 - slopes[1] * b1) / det
    second = (a1 * slopes[1] - a2 * slopes[0]) / det
    said = first * basis[2][0] + second * basis[2][1]
    off = jnp.max(jnp.abs(said - slopes[2]) / (1.0 + jnp.abs(slopes[2])))
    return _mean(family, first, second), off


def _points(family: str, s: Any) -> tuple[Any, Any, Any]:
    if family in POSITIVE:
        return s, 1.5 * s, 0.7 * s
    middle = 1.0 / s.shape[-1] if family == "Dirichlet" else 0.5
    return s, 0.6 * s + 0.4 * middle, 0.8 * s + 0.2 * middle


def _basis(family: str, s: Any) -> tuple[Any, Any]:
    """Derivatives of the two statistics."""
    if family == "InverseGamma":
        return 1.0 / s, 1.0 / s**2
    if family == "Beta":
        return 1.0 / s, 1.0 / (1.0 - s)
    return 1.0 / s, jnp.ones_like(s)


def _mean(family: str, first: Any, second: Any) -> Any:
    if family == "Gamma":
        return -(first + 1.0) / second
    if family == "InverseGamma":
        return -second / (first + 2.0)
    if family == "Beta":
        a, b = first + 1.0, 1.0 - second
        return a / (a + b)
    alpha = first + 1.0
    return alpha / alpha.sum(axis=-1, keepdims=True)
