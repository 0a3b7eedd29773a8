"""One kernel several times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import contract as rules
from ppcore import random
from ppcore.compose.base import Composed, acceptances, check_parts
from ppcore.contract import Contract
from ppcore.errors import CompositionError


@dataclass(frozen=True)
class Repeat(Composed):
    """Kⁿ as one transition: invariant and reversible as K is; not irreducible by the rule.

    Parameters
    ----------
    kernel : Kernel
    times : int
        n.

    Raises
    ------
    ppcore.errors.CompositionError
        If ``kernel`` is not one, or ``times`` is not a positive integer.

    >>> from ppcore.testing.reference.metropolis import RandomWalk
    >>> Repeat(RandomWalk(), 3).contract
    Invariant(reversible=True, irreducible=False)
    """

    kernel: Any
    times: int

    def __post_init__(self) -> None:
        check_parts("Repeat", (self.kernel,))
        if isinstance(self.times, bool) or not isinstance(self.times, int) or self.times < 1:
            raise CompositionError(f"Repeat({self.times!r} times) needs a positive integer.")

    @property
    def contract(self) -> Contract:
        """Derived from that of the kernel."""
        return rules.repeat(self.kernel.contract, self.times)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.kernel,)

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """The kernel's own, whose state this one shares."""
        return tuple(getattr(self.kernel, "auxiliary", ()))

    def init(self, key: Any, target: Any, x: Any, params: tuple[Any, ...]) -> Any:
        return self.kernel.init(key, target, x, _own(params))

    def refresh(self, target: Any, state: Any) -> Any:
        return self.kernel.refresh(target, state)

    def step(
        self, key: Any, target: Any, state: Any, params: tuple[Any, ...]
    ) -> tuple[Any, dict[str, Any]]:
        dtype, inner = state.x.dtype, _own(params)

        def once(k: Any, state: Any, _: Any) -> tuple[Any, Any]:
            new, info = self.kernel.step(k, target, state, inner)
            info = info | {"acceptance_rates": acceptances(self.kernel, info, dtype)}
            return jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), new, state), info

        state, infos = random.scan(once, key, state, (), self.times)
        gather: dict[str, Callable[..., Any]] = {
            "acceptance_rate": jnp.nanmean,
            "diverging": jnp.any,
            "n_gradients": jnp.sum,
            "acceptance_rates": lambda v: jnp.nanmean(v, axis=0),
        }
        return state, {n: gather.get(n, lambda v: v[-1])(v) for n, v in infos.items()}


def _own(params: tuple[Any, ...]) -> Any:
    return params[0] if params else ()
