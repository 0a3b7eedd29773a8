"""One leapfrog step of many chains, in coordinates where momenta are N(0, I)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from ppcore.target import value_and_gradient
from ppcore.tuning.preconditioner import Preconditioner


class Phase(NamedTuple):
    """Points of phase space, one row a chain.

    ``x``: positions; ``z``: whitened momenta (N(0, I) at equilibrium); ``log_density``: log γ(x);
    ``gradient``: ∇ log γ(x); ``force``: Fᵀ ∇ log γ(x).
    """

    x: Any
    z: Any
    log_density: Any
    gradient: Any
    force: Any


class Carry(NamedTuple):
    """Positions with their cached log density and gradient, one row a chain."""

    x: Any
    log_density: Any
    gradient: Any


def leapfrog(target: Any, precondition: Preconditioner, at: Phase, step: Any) -> Phase:
    """One step of size ``step`` (float[chains, 1]) of the Hamiltonian −log γ(x) + ½ zᵀz.

    z ← z + ½ε Fᵀ∇log γ(x);  x ← x + ε F z;  z ← z + ½ε Fᵀ∇log γ(x).
    Volume preserving and reversible under (x, z, ε) → (x, z, −ε) for any F; a step of size 0
    stays and evaluates log γ and its gradient.

    Source: Duane, Kennedy, Pendleton & Roweth 1987, doi:10.1016/0370-2693(87)91197-X.
    """
    z = at.z + 0.5 * step * at.force
    x = at.x + step * precondition.push(z)
    log_density, gradient = value_and_gradient(target, x)
    force = precondition.pull(gradient)
    return Phase(x, z + 0.5 * step * force, log_density, gradient, force)


def log_joint(at: Phase) -> Any:
    """log γ(x) − ½ zᵀz, with NaN as −inf so that it is always rejected; float[chains]."""
    value = at.log_density - 0.5 * jnp.sum(at.z**2, axis=-1)
    return jnp.where(jnp.isnan(value), -jnp.inf, value)
