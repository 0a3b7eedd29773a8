"""The bootstrap filter: particles move by the model itself and are weighed by the evidence.

q(z_t | s_{t−1}) = p(z_t | s_{t−1}), so w_t = G_t.

Source: Gordon, Salmond & Smith (1993), doi:10.1049/ip-f-2.1993.0015.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ppcore.state_space import Moved
from ppcore_smc.ground import Ground


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class Bootstrap:
    """Propose from the model's transition. Works for every model that can be simulated."""

    def draw(
        self, key: Any, ground: Ground, carry: Any, root: Any, element: Any
    ) -> tuple[Moved, Any]:
        """z_t ~ p(· | s_{t−1}), and log G_t."""
        moved = ground.step(key, carry, root, element, {})
        return moved, moved.log_g

    def weigh(
        self, ground: Ground, carry: Any, root: Any, element: Any, values: Any
    ) -> tuple[Moved, Any]:
        """The step at given z_t, and log G_t."""
        moved = ground.step(None, carry, root, element, values)
        return moved, moved.log_g

    def look(self, ground: Ground, carry: Any, root: Any, element: Any) -> Any:
        """No first stage."""
        return jnp.zeros(())
