"""Linear maps F with F Fᵀ = Σ that turn N(0, I) velocities into the scale of the target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """F = ``factor``, any square root of Σ; d² work per vector.

    Attributes
    ----------
    factor : float[d, d]
        F with F Fᵀ = Σ, the inverse mass matrix.
    """

    factor: Any

    def push(self, z: Any) -> Any:
        """F z for each row of ``z``: float[..., d]; whitened momentum to velocity."""
        return z @ self.factor.T

    def pull(self, g: Any) -> Any:
        """Fᵀ g for each row of ``g``: float[..., d]; gradient to whitened force."""
        return g @ self.factor


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LowRank:
    """F = diag(scale) (I + U diag(stretch − 1) Uᵀ); d·r work per vector, r = 0 is diagonal.

    Attributes
    ----------
    scale : float[d]
        Standard deviations.
    basis : float[d, r]
        U with orthonormal (or zero, where unused) columns.
    stretch : float[r]
        Standard deviations along U after scaling.
    """

    scale: Any
    basis: Any
    stretch: Any

    def push(self, z: Any) -> Any:
        """F z for each row of ``z``: float[..., d]; whitened momentum to velocity."""
        if self.basis.shape[-1] == 0:
            return z * self.scale
        return self.scale * (z + ((z @ self.basis) * (self.stretch - 1)) @ self.basis.T)

    def pull(self, g: Any) -> Any:
        """Fᵀ g for each row of ``g``: float[..., d]; gradient to whitened force."""
        scaled = g * self.scale
        if self.basis.shape[-1] == 0:
            return scaled
        return scaled + ((scaled @ self.basis) * (self.stretch - 1)) @ self.basis.T


Preconditioner = Dense | LowRank


def identity(kind: str, dim: int, rank: int, dtype: Any) -> Preconditioner:
    """The preconditioner F = I of the shape that ``kind`` ("dense", "low_rank", "diagonal") has.

    >>> import numpy as np
    >>> float(identity("low_rank", 3, 2, np.float64).push(np.ones(3)).sum())
    3.0
    """
    if kind == "dense":
        return Dense(np.eye(dim, dtype=dtype))
    r = min(rank, dim) if kind == "low_rank" else 0
    return LowRank(np.ones(dim, dtype), np.zeros((dim, r), dtype), np.ones(r, dtype))
