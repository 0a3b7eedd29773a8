"""What an engine, kernel or stage promises about distributions, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Contract:
    """Base of all contracts."""


@dataclass(frozen=True)
class Invariant(Contract):
    """The kernel K leaves the target π invariant: πK = π.

    ``reversible``: π(dx) K(x, dy) is symmetric. ``irreducible``: the chain reaches every set
    of positive target mass from everywhere.
    """

    reversible: bool = False
    irreducible: bool = True


@dataclass(frozen=True)
class ProperlyWeighted(Contract):
    """E[Ẑ Σ W f] = Z π(f) for all bounded f; ``unbiased_evidence``: E[Ẑ] = Z."""

    unbiased_evidence: bool = True


@dataclass(frozen=True)
class Transport(Contract):
    """An invertible map T with T⁻¹ T = id and the right log-determinant."""


@dataclass(frozen=True)
class Density(Contract):
    """Samples follow the stated, normalised log density."""


@dataclass(frozen=True)
class Biased(Contract):
    """The stationary law differs from the target by O(h^order), h the setting ``in_``."""

    order: int
    in_: str = "step_size"


@dataclass(frozen=True)
class Amortised(Contract):
    """Posteriors are calibrated on average over the joint of parameters and data."""
