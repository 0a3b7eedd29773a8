"""Inference kernels: pure functions on states, with a contract."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ppcore.contract import Contract


@runtime_checkable
class Kernel(Protocol):
    """A Markov kernel on the state space of a target.

    Parameters are data (``params``, a pytree), so that a kernel adapts nothing by itself.
    A state is a pytree with a field ``x`` (float[d]); other fields are caches.
    """

    contract: Contract

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Any:
        """The state at position ``x`` (float[d])."""
        ...

    def step(self, key: Any, target: Any, state: Any, params: Any) -> tuple[Any, Any]:
        """One transition: ``(state, info)``."""
        ...

    def refresh(self, target: Any, state: Any) -> Any:
        """The same position with caches recomputed, for a target that has moved."""
        ...
