"""Any kernel as an engine: chains by vmap, draws by scan, no adaptation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract
from ppcore.engine import Report, Warm


@dataclass(frozen=True)
class KernelEngine:
    """Runs ``kernel`` with fixed ``params``; promises what the kernel promises.

    Attributes
    ----------
    kernel : Kernel
    params : pytree
        The tuned parameters, given rather than found.
    auxiliary : tuple of str
        Fields of the state that are random variables of their own.
    """

    kernel: Any
    params: Any
    auxiliary: tuple[str, ...] = ()
    default_chains: int = 4
    default_draws: int = 1000

    @property
    def contract(self) -> Contract:
        return self.kernel.contract

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        params = jax.tree.map(jnp.asarray, self.params)
        return Warm(params, target.sample_reference(key, chains))

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        keys = random.split(key, x.shape[0])
        return jax.vmap(lambda k, v: self.kernel.init(k, target, v, tuned))(keys, x)

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Any, n: int
    ) -> tuple[Any, Any, dict[str, Any]]:
        chains = carry.x.shape[0]
        keys = random.split(key, n * chains).reshape(n, chains)

        def move(state: Any, ks: Any) -> tuple[Any, Any]:
            state, info = jax.vmap(lambda k, s: self.kernel.step(k, target, s, tuned))(ks, state)
            return state, (state.x, info)

        carry, (draws, info) = jax.lax.scan(move, carry, keys)
        stats = jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), info)
        return carry, jnp.swapaxes(draws, 0, 1), stats
