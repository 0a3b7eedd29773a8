"""A kernel on the target to a power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ppcore import contract as rules
from ppcore.compose.base import Composed, check_parts
from ppcore.contract import Contract, Invariant
from ppcore.errors import CompositionError


@dataclass(frozen=True)
class Temper(Composed):
    """``kernel`` at the inverse temperature ``beta`` times the target's own.

    Leaves γ_{bβ} = prior × likelihood^{bβ} invariant in place of γ_β, so it meets only kernels of
    the same power. As a proposal of :class:`Metropolise` it moves far and is then corrected: with
    a reversible kernel, γ_β(y) q(y, x) / γ_β(x) q(x, y) = (L(y)/L(x))^{β(1−b)}.

    Parameters
    ----------
    kernel : Kernel
    beta : float
        b, at least 0. A parameter of the compiled program: changing it retraces nothing.

    Raises
    ------
    ppcore.errors.CompositionError
        If ``kernel`` is not one, or ``beta`` is negative or not a number; if it is Metropolised
        and not reversible.

    Source: Neal 1996, doi:10.1007/BF00143556 (tempered moves).

    >>> from ppcore.testing.reference.metropolis import RandomWalk
    >>> Temper(RandomWalk(), 0.25).power
    0.25
    """

    kernel: Any
    beta: float

    def __post_init__(self) -> None:
        check_parts("Temper", (self.kernel,))
        known = isinstance(self.beta, (int, float)) and not isinstance(self.beta, bool)
        if not known or not 0 <= self.beta < float("inf"):
            raise CompositionError(f"Temper: beta={self.beta!r} must be a number of at least 0.")

    @property
    def contract(self) -> Contract:
        """That of the kernel, of the target to the power :attr:`power`."""
        return rules.cycle(self.kernel.contract)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.kernel,)

    @property
    def power(self) -> float:
        return float(self.beta) * float(getattr(self.kernel, "power", 1.0))

    @property
    def auxiliary(self) -> tuple[str, ...]:
        return tuple(getattr(self.kernel, "auxiliary", ()))

    def init(self, key: Any, target: Any, x: Any, params: tuple[Any, ...]) -> Any:
        return self.kernel.init(key, self._hot(target), x, params[0] if params else ())

    def refresh(self, target: Any, state: Any) -> Any:
        return self.kernel.refresh(self._hot(target), state)

    def step(
        self, key: Any, target: Any, state: Any, params: tuple[Any, ...]
    ) -> tuple[Any, dict[str, Any]]:
        own = params[0] if params else ()
        return self.kernel.step(key, self._hot(target), state, own)  # type: ignore[no-any-return]

    def propose(
        self, key: Any, target: Any, state: Any, params: tuple[Any, ...]
    ) -> tuple[Any, Any]:
        """Where the tempered kernel goes, and log (L(y)/L(x))^{β(1−b)}."""
        if not (isinstance(self.contract, Invariant) and self.contract.reversible):
            raise CompositionError(
                f"Temper({type(self.kernel).__name__}) is not reversible, so its ratio is not "
                "known and Metropolise cannot correct it. Use a reversible kernel."
            )
        hot = self._hot(target)
        new, _ = self.step(key, target, state, params)
        left = target.beta - hot.beta
        gain = target.log_likelihood(new.x) - target.log_likelihood(state.x)
        return new, left * gain

    def _hot(self, target: Any) -> Any:
        return target.tempered(jnp.asarray(self.beta) * target.beta)
