"""Invertible maps and normalised densities, as protocols."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from ppcore.contract import Contract


@runtime_checkable
class Map(Protocol):
    """A bijection T of R^d; a pytree of parameters with the contract ``Transport()``."""

    contract: Contract

    def forward(self, x: Any) -> tuple[Any, Any]:
        """``(T(x), log|det ∂T/∂x|)``; x: float[d] -> (float[d], float[])."""
        ...

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹/∂y|)``; y: float[d] -> (float[d], float[])."""
        ...


@runtime_checkable
class Normalised(Protocol):
    """A distribution q on R^d that one can draw from and evaluate; contract ``Density()``."""

    contract: Contract
    dim: int

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        ...

    def log_prob(self, x: Any) -> Any:
        """log q(x), normalised; float[d] -> float[]."""
        ...
