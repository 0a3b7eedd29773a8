"""The guided filter: particles are proposed where transition and evidence meet.

In the step's unconstrained coordinates u, with h(u) = log p(z(u) | s_{t−1}) |∂z/∂u| G_t,

    q(u | s_{t−1}, y_t) = (1 − ε) N(u; m, C) + ε p(u | s_{t−1}),

m and C from Newton steps on h from the centre of the transition (one step is exact where h is
quadratic: then q is the optimal proposal), w_t = p G_t / q. The share ε of the transition keeps
the weights below G_t / ε.

Source: Doucet, Godsill & Andrieu (2000), doi:10.1023/A:1008935410038; Hesterberg (1995) for ε.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.errors import UnsupportedError
from ppcore.state_space import Moved
from ppcore.state_space.coordinates import centre, coordinates, size, split
from ppcore_smc.ground import Ground

FLAT = 1e-6


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["newton_steps", "defence"])
@dataclass(frozen=True)
class Guided:
    """Propose from a Gaussian at the mode of transition × evidence, for continuous sites.

    Parameters
    ----------
    newton_steps : int
        Each costs a gradient and a Hessian of one step per particle.
    defence : float
        ε, in (0, 1].
    """

    newton_steps: int = 1
    defence: float = 0.1

    def draw(
        self, key: Any, ground: Ground, carry: Any, root: Any, element: Any
    ) -> tuple[Moved, Any]:
        """z_t ~ q, and log p G / q."""
        k_prior, k_normal, k_which = random.split(key, 3)
        mean, factor, precision = self.fit(ground, carry, root, element)
        from_prior = ground.step(k_prior, carry, root, element, {})
        u = self._coordinates(ground, carry, root, element, from_prior.values)
        z = random.normal(k_normal, mean.shape, mean.dtype)
        u = jnp.where(random.bernoulli(k_which, self.defence), u, mean + factor @ z)
        return self._weighed(ground, carry, root, element, u, mean, precision)

    def weigh(
        self, ground: Ground, carry: Any, root: Any, element: Any, values: Any
    ) -> tuple[Moved, Any]:
        """The step at given z_t, and log p G / q."""
        mean, _, precision = self.fit(ground, carry, root, element)
        u = self._coordinates(ground, carry, root, element, values)
        return self._weighed(ground, carry, root, element, u, mean, precision)

    def look(self, ground: Ground, carry: Any, root: Any, element: Any) -> Any:
        """No first stage."""
        return jnp.zeros(())

    def fit(self, ground: Ground, carry: Any, root: Any, element: Any) -> tuple[Any, Any, Any]:
        """``(m, F, R)`` with C = F Fᵀ and whitening map R = F⁻¹."""

        def h(u: Any) -> Any:
            moved = ground.step(None, carry, root, element, split(ground.space, u))
            return moved.log_p + moved.log_g

        inputs = ground.own(root)
        mean = centre(ground.space, inputs, carry, ground.mine(element, root))
        for _ in range(self.newton_steps):
            gradient, hessian = jax.grad(h)(mean), jax.hessian(h)(mean)
            usable = jnp.isfinite(gradient).all() & jnp.isfinite(hessian).all()
            curvature = jnp.where(usable, -hessian, jnp.eye(len(mean)))
            values, vectors = jnp.linalg.eigh(curvature)
            # Where h bends upwards, its size still tells how far to go.
            scale = 1.0 / jnp.sqrt(jnp.maximum(jnp.abs(values), FLAT))
            factor = vectors * scale
            step = factor @ (factor.T @ jnp.where(usable, gradient, 0.0))
            mean = mean + step
        return mean, factor, (vectors / scale).T

    def _coordinates(self, ground: Ground, carry: Any, root: Any, element: Any, values: Any) -> Any:
        mine = ground.mine(element, root)
        return coordinates(ground.space, ground.own(root), carry, mine, values)

    def _weighed(
        self, ground: Ground, carry: Any, root: Any, element: Any, u: Any, mean: Any, precision: Any
    ) -> tuple[Moved, Any]:
        moved = ground.step(None, carry, root, element, split(ground.space, u))
        z = precision @ (u - mean)
        log_det = jnp.linalg.slogdet(precision)[1]
        log_normal = log_det - 0.5 * (z @ z + len(z) * jnp.log(2 * jnp.pi))
        log_q = jnp.logaddexp(
            jnp.log(self.defence) + moved.log_p, jnp.log1p(-self.defence) + log_normal
        )
        return moved, moved.log_p + moved.log_g - log_q


def check_guidable(space: Any) -> None:
    """Raise :class:`ppcore.errors.UnsupportedError` unless steps have continuous sites only."""
    if size(space) == 0:
        raise UnsupportedError(
            "No step of the scan draws anything, so there is nothing to guide. Use "
            "proposal='bootstrap'."
        )
