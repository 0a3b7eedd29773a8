"""What the particles of a filter share: the model, the scan's inputs, its elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.state_space import Moved, StateSpace, Values


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Ground:
    """A state-space model whose start has been drawn for N particles.

    Attributes
    ----------
    space : StateSpace
    inputs : tuple of arrays
        The scan's stacked and captured inputs; with a leading axis N where not ``shared``.
    shared : tuple of bool
        Static: whether all particles have the same. Where they do not, each particle finds its own
        through its ``root``, so that resampling copies no inputs.
    """

    space: StateSpace
    inputs: tuple[Any, ...]
    shared: tuple[bool, ...]

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[bool, ...]]:
        return (self.space, self.inputs), self.shared

    @classmethod
    def tree_unflatten(cls, shared: tuple[bool, ...], leaves: tuple[Any, ...]) -> Ground:
        return cls(leaves[0], leaves[1], shared)

    @property
    def elements(self) -> Any:
        """Stacked xs and evidence in the order of the walk: leading axis T."""
        at = self.space.plan.chain.box.spec.xs
        first = [
            v if s else jnp.moveaxis(v, 0, 1)
            for v, s in zip(self.inputs[:at], self.shared[:at], strict=True)
        ]
        return self.space.elements((*first, *self.inputs[at:]))

    def own(self, root: Any) -> tuple[Any, ...]:
        """The inputs of a particle descended from ``root``: int[]."""
        pairs = zip(self.inputs, self.shared, strict=True)
        return tuple(v if s else v[root] for v, s in pairs)

    def step(self, key: Any, carry: Any, root: Any, element: Any, given: Any) -> Moved:
        """One step of one particle; see :meth:`ppcore.state_space.StateSpace.step`."""
        return self.space.step(key, self.own(root), carry, self.mine(element, root), given)

    def mine(self, element: Any, root: Any) -> Any:
        """An element of :attr:`elements` as a particle descended from ``root`` sees it."""
        xs, evidence = element
        return [v if s else v[root] for v, s in zip(xs, self.shared, strict=False)], evidence


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Beginning:
    """N particles before the first step.

    Attributes
    ----------
    ground : Ground
    carry, values : pytrees
        s₀ and the latent sites before the scan; leading axis N.
    log_weight : float[N]
        log W₀, normalised.
    log_z : float[]
        Of the evidence before the scan.
    """

    ground: Ground
    carry: Any
    values: Values
    log_weight: Any
    log_z: Any


def begin(key: Any, space: StateSpace, given: Mapping[str, Any], n: int) -> Beginning:
    """Draw what comes before the scan ``n`` times, holding the sites ``given``.

    The density of what is given multiplies nothing: weights are for γ(· | given) times G₀.
    """
    made = random.each(lambda k, _: space.start(k, given), key, jnp.arange(n))
    shared = space.shared(tuple(given))
    inputs = tuple(v[0] if s else v for v, s in zip(made.inputs, shared, strict=True))
    log_weight, log_z = normalised(made.log_g - jnp.log(n))
    return Beginning(Ground(space, inputs, shared), made.carry, made.values, log_weight, log_z)


def normalised(log_w: Any) -> tuple[Any, Any]:
    """``(log W, log Σ w)``; equal weights where all vanish, so that no NaN goes on."""
    total = jax.nn.logsumexp(log_w)
    dead = jnp.isneginf(total)
    even = jnp.full_like(log_w, -jnp.log(log_w.shape[0]))
    return jnp.where(dead, even, log_w - jnp.where(dead, 0.0, total)), total
