"""Kernels one after the other."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ppcore import contract as rules
from ppcore import random
from ppcore.compose.base import (
    Composed,
    Parts,
    acceptances,
    carried,
    check_parts,
    joined,
    moved,
    scored,
)
from ppcore.contract import Contract


class Cycle(Composed):
    """K₁, then K₂, …, then Kₙ: π K₁ … Kₙ = π if every part leaves π invariant.

    Not reversible in general, and not irreducible by the rule (two flips cancel). Each part's
    caches are refreshed when another has moved; log density and gradient are handed on where the
    next part keeps nothing else.

    Parameters
    ----------
    *kernels : Kernel
        In the order in which they move.

    Raises
    ------
    ppcore.errors.CompositionError
        If something is not a kernel, or the parts leave different things invariant.

    Source: Tierney 1994, doi:10.1214/aos/1176325750.

    >>> from ppcore.testing.reference.metropolis import MALA, RandomWalk
    >>> Cycle(RandomWalk(), MALA()).contract
    Invariant(reversible=False, irreducible=False)
    """

    def __init__(self, *kernels: Any) -> None:
        check_parts(type(self).__name__, kernels)
        self._kernels = kernels
        self._contract = self.derive(*(kernel.contract for kernel in kernels))

    @staticmethod
    def derive(*parts: Contract) -> Contract:
        """The contract of the whole."""
        return rules.cycle(*parts)

    @property
    def contract(self) -> Contract:
        """Derived from those of the parts."""
        return self._contract

    @property
    def parts(self) -> tuple[Any, ...]:
        return self._kernels

    @property
    def order(self) -> tuple[int, ...]:
        """The parts in the order in which they move."""
        return tuple(range(len(self._kernels)))

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._kernels == other.parts  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((type(self), self._kernels))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self._kernels))})"

    def init(self, key: Any, target: Any, x: Any, params: tuple[Any, ...]) -> Parts:
        keys = random.split(key, len(self.parts))
        states = zip(self.parts, keys, params or [()] * len(self.parts), strict=True)
        return Parts(x, tuple(part.init(k, target, x, p) for part, k, p in states))

    def refresh(self, target: Any, state: Parts) -> Parts:
        """Parts refresh themselves when their turn comes; the last, which hands on, does so now."""
        last = self.order[-1]
        parts = [moved(part, state.x) for part in state.parts]
        parts[last] = self.parts[last].refresh(target, parts[last])
        return Parts(state.x, tuple(parts))

    def step(
        self, key: Any, target: Any, state: Parts, params: tuple[Any, ...]
    ) -> tuple[Parts, dict[str, Any]]:
        params = params or ((),) * len(self.parts)
        states, latest = list(state.parts), state.parts[self.order[-1]]
        dtype, infos = state.x.dtype, []
        rates: dict[int, list[Any]] = {i: [] for i in range(len(self.parts))}
        for i, k in zip(self.order, random.split(key, len(self.order)), strict=True):
            part = self.parts[i]
            own = carried(part, target, states[i], latest)
            states[i], info = part.step(k, target, own, params[i])
            latest = states[i]
            infos.append(scored(info, latest))
            rates[i].append(acceptances(part, info, dtype))
        states = [s if s is latest else moved(s, latest.x) for s in states]
        out = joined(infos, dtype)
        out["acceptance_rates"] = jnp.concatenate(
            [jnp.stack(rates[i]).mean(0) for i in range(len(self.parts))]
        )
        return Parts(latest.x, tuple(states)), out
