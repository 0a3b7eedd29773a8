"""A Metropolis–Hastings test for a kernel that can say where it would go, and with what ratio."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import contract as rules
from ppcore import random
from ppcore.compose.base import Composed, check_parts
from ppcore.contract import Contract
from ppcore.errors import CompositionError

DIVERGENCE = 1000.0


@dataclass(frozen=True)
class Metropolise(Composed):
    """y ~ q(x, ·) from ``kernel.propose``, accepted with min(1, γ(y) q(y, x) / γ(x) q(x, y)).

    Reversible for γ, whatever the proposal's own law: the bias of an unadjusted kernel, or that of
    a tempered one, is gone.

    Parameters
    ----------
    kernel : Kernel with ``propose(key, target, state, params) -> state, log_ratio``
        See :class:`ppcore.kernel.Kernel`.
    target_accept : float
        What to tune a step size of the proposal for.

    Raises
    ------
    ppcore.errors.CompositionError
        If ``kernel`` has no ``propose``, or ``target_accept`` is not between 0 and 1.

    Source: Metropolis et al. 1953, doi:10.1063/1.1699114; Hastings 1970,
    doi:10.1093/biomet/57.1.97.

    >>> from ppcore.compose import Temper
    >>> from ppcore.testing.reference.metropolis import RandomWalk
    >>> Metropolise(Temper(RandomWalk(), 0.5)).contract
    Invariant(reversible=True, irreducible=True)
    """

    kernel: Any
    target_accept: float = 0.574

    def __post_init__(self) -> None:
        check_parts("Metropolise", (self.kernel,))
        if not hasattr(self.kernel, "propose"):
            raise CompositionError(
                f"Metropolise needs a kernel with `propose(key, target, state, params) -> state, "
                f"log_ratio`, and {type(self.kernel).__name__} has none: without the ratio of its "
                "own law it cannot be corrected."
            )
        if not 0 < self.target_accept < 1:
            raise CompositionError(
                f"Metropolise: target_accept={self.target_accept!r} must be between 0 and 1."
            )

    @property
    def contract(self) -> Contract:
        """Derived from that of the kernel."""
        return rules.metropolise(self.kernel.contract)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.kernel,)

    @property
    def power(self) -> float:
        """1: the test is for the target itself."""
        return 1.0

    @property
    def auxiliary(self) -> tuple[str, ...]:
        return tuple(getattr(self.kernel, "auxiliary", ()))

    @property
    def step_rules(self) -> tuple[Any, ...]:
        """Those of the kernel, tuned for ``target_accept``."""
        return tuple(replace(r, target_accept=self.target_accept) for r in super().step_rules)

    def init(self, key: Any, target: Any, x: Any, params: tuple[Any, ...]) -> Any:
        return self.kernel.init(key, target, x, params[0] if params else ())

    def refresh(self, target: Any, state: Any) -> Any:
        return self.kernel.refresh(target, state)

    def step(
        self, key: Any, target: Any, state: Any, params: tuple[Any, ...]
    ) -> tuple[Any, dict[str, Any]]:
        k_propose, k_accept = random.split(key)
        own = params[0] if params else ()
        new, log_ratio = self.kernel.propose(k_propose, target, state, own)
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        rate = jnp.exp(jnp.minimum(0.0, log_ratio))
        accept = random.bernoulli(k_accept, rate)
        state = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, state)
        rates = jnp.full(len(self.step_rules), rate)
        info = {"acceptance_rate": rate, "acceptance_rates": rates}
        return state, info | {"diverging": ~(log_ratio > -DIVERGENCE)}
