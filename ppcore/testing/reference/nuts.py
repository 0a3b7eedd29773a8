"""A small no-U-turn kernel: at most three doublings, multinomial over the whole final window."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract
from ppcore.testing.reference.metropolis import REVERSIBLE, Position

DOUBLINGS = 3
REACH = 2**DOUBLINGS - 1


@dataclass(frozen=True)
class SmallNUTS:
    """Double a window of leapfrog states in random directions until a subtree turns round.

    All 2·7 + 1 states that a window may reach are computed beforehand; the window [a, a + 2^j)
    around the start is doubled unless any dyadic subtree of the new half turns round, and is
    final once it turns round itself. Every state of the final window would have built it with
    the same probability, so a draw ∝ exp(−H) from it is reversible for γ. Hoffman and Gelman
    (2014), arXiv:1111.4246; Betancourt (2017), arXiv:1701.02434.
    """

    contract: Contract = REVERSIBLE

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        return Position(x)

    def refresh(self, target: Any, state: Any) -> Any:
        return state

    def trajectory(self, target: Any, x: Any, p: Any, h: Any) -> tuple[Any, Any, Any]:
        """Positions, momenta and −H at the 15 times −7h … 7h."""
        gradient = jax.grad(target.log_density)

        def leap(state: Any, step: Any) -> tuple[Any, Any]:
            q, p = state
            p = p + 0.5 * step * gradient(q)
            q = q + step * p
            p = p + 0.5 * step * gradient(q)
            return (q, p), (q, p)

        def both(step: Any) -> Any:
            return jax.lax.scan(lambda s, _: leap(s, step), (x, p), None, REACH)[1]

        (q, r) = jax.vmap(both)(jnp.stack([-h, h]))
        path_q = jnp.concatenate([q[0, ::-1], x[None], q[1]])
        path_p = jnp.concatenate([r[0, ::-1], p[None], r[1]])
        log_w = jax.vmap(target.log_density)(path_q) - 0.5 * jnp.sum(path_p**2, axis=1)
        return path_q, path_p, jnp.where(jnp.isnan(log_w), -jnp.inf, log_w)

    def subtrees(self, start: Any, doubling: int) -> Iterator[tuple[Any, Any]]:
        """First and last index of every dyadic subtree of the new half."""
        for level in range(1, doubling + 1):
            for k in range(2 ** (doubling - level)):
                first = start + k * 2**level
                yield first, first + 2**level - 1

    def window(self, a: Any, size: Any) -> Any:
        """Which of the 15 states are in [a, a + size)."""
        index = jnp.arange(2 * REACH + 1)
        return (index >= a) & (index < a + size)

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        k_momentum, k_direction, k_choose = random.split(key, 3)
        p = random.normal(k_momentum, state.x.shape, state.x.dtype)
        q, r, log_w = self.trajectory(target, state.x, p, params["step_size"])
        left = random.bernoulli(k_direction, 0.5, (DOUBLINGS,))

        def turns(first: Any, last: Any) -> Any:
            span = q[last] - q[first]
            return (span @ r[first] < 0) | (span @ r[last] < 0)

        a, size, going = jnp.asarray(REACH), jnp.asarray(1), jnp.asarray(True)
        for j in range(DOUBLINGS):
            start = jnp.where(left[j], a - 2**j, a + 2**j)
            bad = jnp.asarray(False)
            for first, last in self.subtrees(start, j):
                bad = bad | turns(first, last)
            grow = going & ~bad
            a = jnp.where(grow & left[j], a - 2**j, a)
            size = jnp.where(grow, 2 ** (j + 1), size)
            going = grow & ~turns(a, a + 2 ** (j + 1) - 1)
        chosen = random.categorical(k_choose, jnp.where(self.window(a, size), log_w, -jnp.inf))
        return Position(q[chosen]), {}
