"""The auxiliary filter: particles are chosen by how well they will explain the next evidence.

With η_t(s_{t−1}) = G_t at the centre of the transition, to the power ``strength``, ancestors are
drawn from V ∝ W_{t−1} η_t and weighed by (W/V) p G / q: the same law, other choices.

Source: Pitt & Shephard (1999), doi:10.1080/01621459.1999.10474153; Johansen & Doucet (2008),
doi:10.1016/j.spl.2008.01.032 (as a filter for another target, corrected).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppcore.state_space import Moved, StateSpace
from ppcore.state_space.coordinates import centre, split
from ppcore_smc.bootstrap_filter import Bootstrap
from ppcore_smc.filtering import Proposal
from ppcore_smc.ground import Ground


@partial(jax.tree_util.register_dataclass, data_fields=["proposal"], meta_fields=["strength"])
@dataclass(frozen=True)
class Auxiliary:
    """A first stage in front of any proposal.

    Parameters
    ----------
    proposal : Proposal
        q of the second stage.
    strength : float
        In (0, 1]: below one the first stage leans less on its guess.
    """

    proposal: Proposal = Bootstrap()
    strength: float = 1.0

    def draw(
        self, key: Any, ground: Ground, carry: Any, root: Any, element: Any
    ) -> tuple[Moved, Any]:
        """As the second stage."""
        return self.proposal.draw(key, ground, carry, root, element)

    def weigh(
        self, ground: Ground, carry: Any, root: Any, element: Any, values: Any
    ) -> tuple[Moved, Any]:
        """As the second stage."""
        return self.proposal.weigh(ground, carry, root, element, values)

    def look(self, ground: Ground, carry: Any, root: Any, element: Any) -> Any:
        """strength · log G_t at the centre of p(z_t | s_{t−1})."""
        space = ground.space
        u = centre(space, ground.own(root), carry, ground.mine(element, root))
        log_g = ground.step(None, carry, root, element, split(space, u)).log_g
        return self.strength * jnp.where(jnp.isfinite(log_g), log_g, -jnp.inf)

    def learn(self, key: Any, space: StateSpace) -> Auxiliary:
        """The same first stage in front of what the second stage learns, if it does."""
        if not hasattr(self.proposal, "learn"):
            return self
        return replace(self, proposal=self.proposal.learn(key, space))
