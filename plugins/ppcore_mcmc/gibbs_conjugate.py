"""Gibbs for conjugate sites: exact draws from a named conditional, read off two gradients."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.compose import Restricted
from ppcore.contract import Contract, Invariant
from ppcore.errors import CompositionError
from ppcore.exact.conjugate.forms import stripped
from ppcore.tuning.noise import is_traced
from ppcore_mcmc.gibbs_finite import Position, located

FAMILIES = {
    "Normal": "gaussian",
    "MultivariateNormal": "gaussian",
    "Gamma": "gamma",
    "Exponential": "gamma",
    "Chi2": "gamma",
    "InverseGamma": "inverse_gamma",
    "Beta": "beta",
    "Dirichlet": "dirichlet",
}
TOLERANCE = 1e-5
_CONJUGATE: set[Any] = set()  # structures of targets, with sites, that have been checked


@dataclass(frozen=True)
class GibbsConjugate:
    """Each site in turn, drawn from its conditional given all else, where that keeps its family.

    With sufficient statistics T of the family, log γ(z_s, rest) = η · T(z_s) + const in
    unconstrained coordinates, Jacobian included; η follows exactly from gradients in z_s at two
    points: (Normal) mean z + H⁻¹∇, precision H; (Gamma, z = log x) a − b eᶻ = ∇; (InverseGamma) the
    same in −z; (Beta, z = logit x) a − (a + b) σ(z) = ∇; (Dirichlet) Jᵀα = ∇, J = ∂ log x/∂z. The
    draw is exact up to rounding, of tempered targets too.

    Raises
    ------
    ppcore.errors.CompositionError
        If a site's prior is of no such family, or, at a draw of the prior, its conditional is not
        of the family: the likelihood is not conjugate to it.

    Source: Geman & Geman 1984, doi:10.1109/TPAMI.1984.4767596; Diaconis & Ylvisaker 1979,
    doi:10.1214/aos/1176344611 (conjugate families).

    >>> GibbsConjugate().needs
    ('gradient',)
    """

    contract: ClassVar[Contract] = Invariant(reversible=False, irreducible=False)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)

    def check_target(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.CompositionError` unless every site is conjugate."""
        whole, _, names = _sites(target, None)
        families = tuple(family_of(whole, name) for name in names)
        if is_traced(whole) or not whole.has_reference:
            return
        structure = jax.tree.structure(whole), names
        if structure in _CONJUGATE:
            return
        for name, gap in zip(names, _gaps(whole, names, families), strict=True):
            if not float(gap) < TOLERANCE:
                raise CompositionError(
                    f"Site {name!r} given all else is not of its prior's family: its likelihood "
                    "is not conjugate to it. Give it to NoUTurn or another kernel."
                )
        _CONJUGATE.add(structure)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Position:
        return Position(x)

    def refresh(self, target: Any, state: Position) -> Position:
        return state

    def step(
        self, key: Any, target: Any, state: Position, params: Any
    ) -> tuple[Position, dict[str, Any]]:
        whole, x, names = _sites(target, state.x)
        for name, k in zip(names, random.split(key, len(names)), strict=True):
            own = _alone(whole, x, name)
            z = x[np.array(own.where)]
            law = LAWS[family_of(whole, name)]
            x = own.at(law.draw(k, law.natural(own, z), z))
        return Position(x if whole is target else x[np.array(target.where)]), {}


class Gaussian:
    """N(m, H⁻¹): η = (m, H) from the gradient and the constant Hessian, all elements jointly."""

    @staticmethod
    def natural(target: Any, z: Any) -> Any:
        precision = -jax.hessian(target.log_density)(z)
        mean = z + jnp.linalg.solve(precision, jax.grad(target.log_density)(z))
        return mean, precision

    @staticmethod
    def gradient(eta: Any, z: Any) -> Any:
        return eta[1] @ (eta[0] - z)

    @staticmethod
    def draw(key: Any, eta: Any, z: Any) -> Any:
        root = jnp.linalg.cholesky(eta[1])
        noise = random.normal(key, z.shape, z.dtype)
        return eta[0] + jax.scipy.linalg.solve_triangular(root.T, noise, lower=False)


class Gamma:
    """Gamma(a, rate b), z = log x: ∇ = a − b eᶻ, elementwise."""

    @staticmethod
    def natural(target: Any, z: Any) -> Any:
        here, there = (jax.grad(target.log_density)(v) for v in (z, z + 1.0))
        b = (here - there) / (jnp.exp(z + 1.0) - jnp.exp(z))
        return here + b * jnp.exp(z), b

    @staticmethod
    def gradient(eta: Any, z: Any) -> Any:
        return eta[0] - eta[1] * jnp.exp(z)

    @staticmethod
    def draw(key: Any, eta: Any, z: Any) -> Any:
        return jax.random.loggamma(key, eta[0], dtype=z.dtype) - jnp.log(eta[1])


class InverseGamma:
    """InverseGamma(a, scale b), z = log x: −∇ = a − b e⁻ᶻ, elementwise."""

    @staticmethod
    def natural(target: Any, z: Any) -> Any:
        here, there = (-jax.grad(target.log_density)(v) for v in (z, z - 1.0))
        b = (here - there) / (jnp.exp(1.0 - z) - jnp.exp(-z))
        return here + b * jnp.exp(-z), b

    @staticmethod
    def gradient(eta: Any, z: Any) -> Any:
        return eta[1] * jnp.exp(-z) - eta[0]

    @staticmethod
    def draw(key: Any, eta: Any, z: Any) -> Any:
        return -Gamma.draw(key, eta, z)


class Beta:
    """Beta(a, b), z = logit x: ∇ = a − (a + b) σ(z), elementwise."""

    @staticmethod
    def natural(target: Any, z: Any) -> Any:
        other = jnp.where(jnp.abs(z) > 0.5, -z, z + 1.0)
        here, there = (jax.grad(target.log_density)(v) for v in (z, other))
        total = (here - there) / (jax.nn.sigmoid(other) - jax.nn.sigmoid(z))
        a = here + total * jax.nn.sigmoid(z)
        return a, total - a

    @staticmethod
    def gradient(eta: Any, z: Any) -> Any:
        return eta[0] - (eta[0] + eta[1]) * jax.nn.sigmoid(z)

    @staticmethod
    def draw(key: Any, eta: Any, z: Any) -> Any:
        first, second = random.split(key)
        up = jax.random.loggamma(first, eta[0], dtype=z.dtype)
        return up - jax.random.loggamma(second, eta[1], dtype=z.dtype)


class Dirichlet:
    """Dirichlet(α) of one simplex by stick breaking: ∇ = Jᵀα, J = ∂ log x/∂z, solved at two z."""

    @staticmethod
    def natural(target: Any, z: Any) -> Any:
        points = (z, z + 1.0)
        jacobians = jnp.concatenate([jax.jacfwd(_log_simplex)(v).T for v in points])
        gradients = jnp.concatenate([jax.grad(target.log_density)(v) for v in points])
        return jnp.linalg.lstsq(jacobians, gradients)[0]

    @staticmethod
    def gradient(eta: Any, z: Any) -> Any:
        return jax.jacfwd(_log_simplex)(z).T @ eta

    @staticmethod
    def draw(key: Any, eta: Any, z: Any) -> Any:
        log_x = jax.random.loggamma(key, eta, dtype=z.dtype)
        # z_i = logit of x_i over what is left, moved to the middle of the stick.
        left = jnp.flip(jax.lax.cumlogsumexp(jnp.flip(log_x)))[1:]
        return log_x[:-1] - left + jnp.log(jnp.arange(len(z), 0, -1, dtype=z.dtype))


def _log_simplex(z: Any) -> Any:
    from numpyro.distributions.transforms import StickBreakingTransform

    return jnp.log(StickBreakingTransform()(z))


LAWS: dict[str, Any] = {
    "gaussian": Gaussian,
    "gamma": Gamma,
    "inverse_gamma": InverseGamma,
    "beta": Beta,
    "dirichlet": Dirichlet,
}


def family_of(whole: Any, site: str) -> str:
    """The conjugate family of a site's prior.

    Raises :class:`ppcore.errors.CompositionError` if it has none.
    """
    joint = getattr(whole, "joint", None) or getattr(getattr(whole, "base", None), "joint", None)
    if joint is None:
        raise CompositionError(
            f"GibbsConjugate reads families from a model's diagram; {type(whole).__name__} has "
            "none. Use a model declared with @pp.model."
        )
    box = next(b for b in joint.boxes() if b.op == "sample" and b.name == site)
    name = str(stripped(box.spec[0])[0].kind).rsplit(":", 1)[-1]
    if name not in FAMILIES or (name == "Dirichlet" and len(box.cod[0].shape) > 1):
        raise CompositionError(
            f"Site {site!r} has the prior {name}, whose conditional has no name. GibbsConjugate "
            f"draws sites with a prior of {', '.join(FAMILIES)} (one simplex a site); give this "
            "one to NoUTurn or another kernel."
        )
    return FAMILIES[name]


@partial(
    jax.jit,
    static_argnames=("names", "families"),
    compiler_options={"xla_backend_optimization_level": 0},
)
def _gaps(whole: Any, names: tuple[str, ...], families: tuple[str, ...]) -> list[Any]:
    """How far each site's gradient at a third point is from what two others say."""
    x = whole.sample_reference(jax.random.key(0), 1)[0]
    found = []
    for name, family in zip(names, families, strict=True):
        own, law = _alone(whole, x, name), LAWS[family]
        z = x[np.array(own.where)]
        third = z + 0.3 + 0.1 * jnp.arange(len(z))
        true = jax.grad(own.log_density)(third)
        said = law.gradient(law.natural(own, z), third)
        found.append(jnp.max(jnp.abs(true - said) / (1.0 + jnp.abs(true))))
    return found


def _sites(target: Any, x: Any) -> tuple[Any, Any, tuple[str, ...]]:
    whole, x, names = located(target, x)
    return whole, x, names if whole is not target else tuple(whole.site_slices)


def _alone(whole: Any, x: Any, site: str) -> Restricted:
    at = whole.site_slices[site]
    return Restricted(whole, x, (site,), tuple(range(at.start, at.stop)))
