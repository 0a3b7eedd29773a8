"""Transitions with velocities: a learned refreshment, then a leapfrog step, which costs no weight.

From (x, v): v′ ~ N(η v + √(1 − η²) n_F, 1 − η²), then the leapfrog step (x, v′) → (y, w) for γ_b.
Backwards: undo the leapfrog step, which keeps volume, and draw v ~ N(η v′ + √(1 − η²) n_B, 1 − η²).
So log B − log F is that of the refreshments alone, between γ_a(x) N(v; 0, I) and γ_b(y) N(w; 0, I).
Without controls the refreshment is reversible for N(0, I) and what is weighed is the energy error
of the leapfrog steps and the change of γ: unadjusted Hamiltonian annealing.

Source: Geffner & Domke 2023, arXiv:2208.07743 (learned backward); Thin et al. 2021,
arXiv:2106.15921, and Zhang et al. 2021, arXiv:2107.10150 (no control); Blessing, Berner, Richter &
Neumann 2025, arXiv:2503.01006 (both learned).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore_diffusion.frame import Point, log_normal
from ppcore_diffusion.transitions import Step


@dataclass(frozen=True)
class Underdamped:
    """A sampler of places and velocities.

    Attributes
    ----------
    ahead, back : (str, float) or None
        Which control n_F and n_B are, and its sign; None is 0.
    """

    ahead: tuple[str, float] | None
    back: tuple[str, float] | None
    noising = False
    moving = True
    # Leapfrog steps are deterministic: a stored path says nothing about other laws or step sizes.
    walk_learned = False

    @property
    def controls(self) -> tuple[str, ...]:
        """The networks that it asks for."""
        return tuple(dict.fromkeys(part[0] for part in (self.ahead, self.back) if part))

    def go(self, z: Any, step: Step, x: Point) -> Point:
        """(y, w) by refreshment, with z ~ N(0, I), and leapfrog step."""
        mean, sd = self._refreshment(step, self.ahead, x, x.v)
        kick = mean + sd * z
        time = step.tau * step.scale
        half = kick + 0.5 * step.tau * step.force(x)
        u = x.u + time * half
        y = step.path.visit(u, x.root, half, kick)
        return y._replace(v=half + 0.5 * step.tau * step.force(y))

    def ratio(self, step: Step, x: Point, y: Point) -> Any:
        """log B(v | v′, x) − log F(v′ | v, x), v′ = y.kick; float[]."""
        ahead = self._refreshment(step, self.ahead, x, x.v)
        back = self._refreshment(step, self.back, x, y.kick)
        return log_normal(x.v, *back) - log_normal(y.kick, *ahead)

    def _refreshment(
        self, step: Step, which: tuple[str, float] | None, x: Point, v: Any
    ) -> tuple[Any, Any]:
        keep = jax.nn.sigmoid(step.weights["tables"]["keep"][step.k])
        sd = jnp.sqrt(1.0 - keep**2)
        mean = keep * v
        if which is not None:
            name, sign = which
            mean = mean + sign * sd * step.control(name, x)
        return mean, sd


UD_MCD = Underdamped(None, ("control", -1.0))
UD_CMCD = Underdamped(("control", 1.0), ("control", -1.0))
UD_DBS = Underdamped(("ahead", 1.0), ("back", 1.0))
