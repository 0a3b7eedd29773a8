"""Kernels there and back."""

from __future__ import annotations

from ppcore import contract as rules
from ppcore.compose.cycle import Cycle
from ppcore.contract import Contract


class Palindrome(Cycle):
    """K₁ … Kₙ … K₁: as :class:`Cycle`, and reversible if every part is.

    Parameters
    ----------
    *kernels : Kernel
        K₁, …, Kₙ; the last moves once, the others twice.

    Raises
    ------
    ppcore.errors.CompositionError
        If something is not a kernel, or the parts leave different things invariant.

    Source: Tierney 1994, doi:10.1214/aos/1176325750.

    >>> from ppcore.testing.reference.metropolis import MALA, RandomWalk
    >>> Palindrome(RandomWalk(), MALA()).contract
    Invariant(reversible=True, irreducible=False)
    """

    @staticmethod
    def derive(*parts: Contract) -> Contract:
        return rules.palindrome(*parts)

    @property
    def order(self) -> tuple[int, ...]:
        there = tuple(range(len(self.parts)))
        return there + there[-2::-1]
