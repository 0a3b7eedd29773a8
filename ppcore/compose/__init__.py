"""Kernels made of kernels; contracts, needs and tuning are derived from the parts.

>>> from ppcore.compose import Cycle, Mix
>>> from ppcore.testing.reference.metropolis import MALA, RandomWalk
>>> Mix(Cycle(RandomWalk(), MALA()), RandomWalk()).contract
Invariant(reversible=False, irreducible=True)
"""

from ppcore.compose.blocks import CONTINUOUS, FINITE, Blocks, On
from ppcore.compose.cycle import Cycle
from ppcore.compose.metropolise import Metropolise
from ppcore.compose.mix import Mix
from ppcore.compose.palindrome import Palindrome
from ppcore.compose.precondition import Affine, Precondition
from ppcore.compose.repeat import Repeat
from ppcore.compose.restricted import Restricted, restrict
from ppcore.compose.temper import Temper

__all__ = [
    "CONTINUOUS",
    "FINITE",
    "Affine",
    "Blocks",
    "Cycle",
    "Metropolise",
    "Mix",
    "On",
    "Palindrome",
    "Precondition",
    "Repeat",
    "Restricted",
    "Temper",
    "restrict",
]
