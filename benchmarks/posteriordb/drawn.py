"""What a contender hands back, whatever library it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CHAINS, WARMUP, DRAWS = 4, 1000, 1000
"""The peers' run: their customary one, and what their figures are quoted for."""


@dataclass(frozen=True)
class Drawn:
    """The draws of one run, on the host.

    Attributes
    ----------
    sites : dict of str to array[chains, draws, ...]
        In the model's own coordinates, named as the reference names its parameters.
    share : float
        The part of the run's compiled time that grows with the number of draws.
    gradients : int or None
        Evaluations while drawing, all chains together; None where the library does not say.
    note : str
        What was chosen: settings, or the planner's plan.
    """

    sites: dict[str, np.ndarray]
    share: float
    gradients: int | None
    note: str


@dataclass(frozen=True)
class Prepared:
    """A contender ready to run.

    Attributes
    ----------
    fit : callable
        Seed -> :class:`Drawn`; the first call compiles.
    excused : float
        Seconds that the preparation spent on what a user of this library would not need, such as
        importing ppcore to hand a peer its log density.
    """

    fit: Callable[[int], Drawn]
    excused: float = 0.0


Prepare = Callable[[str, dict[str, Any]], Prepared]
"""From a posterior's name and data to a contender, in a process of its own."""

CORRELATED = (
    "arK-arK",
    "diamonds-diamonds",
    "earnings-earn_height",
    "earnings-log10earn_height",
    "earnings-logearn_interaction",
    "hmm_example-hmm_example",
    "kidiq-kidscore_interaction",
    "kidiq-kidscore_momiq",
    "kidiq_with_mom_work-kidscore_mom_work",
    "kilpisjarvi_mod-kilpisjarvi",
    "mesquite-logmesquite_logvas",
    "mesquite-mesquite",
    "nes1976-nes",
    "nes2000-nes",
    "one_comp_mm_elim_abs-one_comp_mm_elim_abs",
)
"""Where a dense (or low-rank) metric serves the peers better than a diagonal one."""
