"""The isokinetic integrator: microcanonical dynamics at constant speed, of many chains at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore.target import value_and_gradient
from ppcore.tuning.preconditioner import Preconditioner


class Flight(NamedTuple):
    """Points of the dynamics, one row a chain.

    ``x``: positions, float[chains, D]; ``u``: directions in whitened coordinates, of length 1;
    ``log_density``, ``gradient``, ``force``: log γ(x), ∇ log γ(x), Fᵀ∇ log γ(x); ``kinetic``: the
    kinetic energy gained since the start, float[chains].
    """

    x: Any
    u: Any
    log_density: Any
    gradient: Any
    force: Any
    kinetic: Any


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Lifted:
    """γ(x) with independent N(0, 1) coordinates behind, up to ``LEAST`` coordinates in all.

    On a line the directions are only ±1 and no force turns them; in a plane they turn.

    >>> from ppcore.target import DensityTarget
    >>> lift(DensityTarget(lambda x, data: -x[0] ** 2, 1)).dim
    2
    """

    inner: Any
    LEAST = 2
    has_reference = False

    def tree_flatten(self) -> tuple[tuple[Any], None]:
        return (self.inner,), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any]) -> Lifted:
        return cls(*leaves)

    @property
    def dim(self) -> int:
        return max(self.LEAST, int(self.inner.dim))

    def log_density(self, x: Any) -> Any:
        d = self.inner.dim
        return self.inner.log_density(x[:d]) - 0.5 * jnp.sum(x[d:] ** 2)


def lift(target: Any) -> Any:
    """``target``, or :class:`Lifted` where it has one coordinate."""
    return target if target.dim >= Lifted.LEAST else Lifted(target)


def direction(z: Any) -> Any:
    """z / ‖z‖ along the last axis: uniform on the sphere for z ~ N(0, I)."""
    return z / jnp.maximum(jnp.linalg.norm(z, axis=-1, keepdims=True), 1e-30)


def turn(u: Any, force: Any, time: Any) -> tuple[Any, Any]:
    """Turn directions under a constant force: ``(u, kinetic energy gained)``.

    With e = force/‖force‖, δ = ``time`` √d ‖force‖/(d − 1) and ζ = e^−δ,
    u ← [2ζ u + e((1 − ζ²) + (e·u)(1 − ζ)²)] / norm and ΔK = (d − 1) log(cosh δ + (e·u) sinh δ),
    which is minus the log Jacobian of the map on the sphere.

    Parameters: ``u``, ``force``: float[chains, d]; ``time``: float[chains, 1].
    """
    d = u.shape[-1]
    size = jnp.linalg.norm(force, axis=-1, keepdims=True)
    e = force / jnp.maximum(size, 1e-30)
    delta = time * size * (d**0.5 / (d - 1))
    # For a step backwards in time the force pushes the other way.
    e, delta = jnp.where(delta < 0, -e, e), jnp.abs(delta)
    zeta = jnp.exp(-delta)
    along = jnp.clip(jnp.sum(e * u, axis=-1, keepdims=True), -1.0, 1.0)
    turned = 2 * zeta * u + e * ((1 - zeta) * (1 + zeta) + along * (1 - zeta) ** 2)
    inside = 0.5 * ((1 + along) + (1 - along) * zeta**2)
    gained = (d - 1) * (delta + jnp.log(jnp.maximum(inside, 1e-300)))
    return direction(turned), gained[..., 0]


def isokinetic(target: Any, precondition: Preconditioner, at: Flight, step: Any) -> Flight:
    """One leapfrog step of size ε = ``step`` (float[chains, 1]) at the constant speed √d.

    Turn for ε/2, x ← x + ε √d F u, turn for ε/2. Time is that of Hamiltonian dynamics with
    momenta N(0, I), whose mean square speed is d. Reversible under (x, u) → (x, −u), and
    log γ(x) − ``kinetic`` differs between the ends by the log ratio of a Metropolis test, the
    Jacobian included. A step of size 0 stays and evaluates log γ and its gradient.

    Source: Robnik, De Luca, Silverstein & Seljak 2023, arXiv:2212.08549; Ver Steeg & Galstyan
    2021, arXiv:2111.02434 (the update on the sphere).
    """
    u, first = turn(at.u, at.force, 0.5 * step)
    x = at.x + step * (u.shape[-1] ** 0.5) * precondition.push(u)
    log_density, gradient = value_and_gradient(target, x)
    force = precondition.pull(gradient)
    u, second = turn(u, force, 0.5 * step)
    return Flight(x, u, log_density, gradient, force, at.kinetic + first + second)


def energy_gain(start: Flight, end: Flight) -> Any:
    """log γ(x') − log γ(x) − (K' − K), −inf where the end is not finite: float[chains]."""
    gain = end.log_density - start.log_density - (end.kinetic - start.kinetic)
    usable = jnp.isfinite(end.log_density) & jnp.all(jnp.isfinite(end.gradient), axis=-1)
    return jnp.where(usable & ~jnp.isnan(gain), gain, -jnp.inf)
