"""Judging a cell: effective sizes, errors in standard errors, and time to a target size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.posteriordb.score import Score, Values, score

TARGET = 400
"""The effective sample size that times refer to."""

RHAT_GATE = 1.01
Z_GATE = 3.0


@dataclass(frozen=True)
class Verdict:
    """What a cell of the comparison is worth.

    Attributes
    ----------
    ess, rhat : float
        Smallest bulk ESS and largest R-hat over parameters and their squares.
    gap : float or None
        Largest |mean − reference mean| / reference sd, squares included.
    z : float or None
        The same in Monte Carlo standard errors of both.
    compared : int
        How many means ``z`` is the largest of.
    """

    ess: float
    rhat: float
    gap: float | None
    z: float | None
    compared: int

    @property
    def passes(self) -> bool:
        """R-hat below 1.01 and |z| within the gate."""
        return self.rhat < RHAT_GATE and (self.z is None or self.z <= z_gate(self.compared))


def z_gate(compared: int) -> float:
    """The bound on the largest of ``compared`` |z|: 3 for one, the same error rate for many.

    A correct sampler exceeds 3 standard errors somewhere in one of five posteriors with 80 means;
    Šidák's bound keeps the rate of a single comparison, 0.27 %, for each posterior.

    >>> round(z_gate(1), 2), round(z_gate(20), 2)
    (3.0, 3.82)
    """
    from statistics import NormalDist

    one = 2 * (1 - NormalDist().cdf(Z_GATE))
    each = 1 - (1 - one) ** (1 / max(compared, 1))
    return NormalDist().inv_cdf(1 - each / 2)


def judge(draws: Values, reference: Values | None) -> Verdict:
    """Judge draws by element, float[chains, draws], against the reference's elements."""
    found: Score = score(draws, reference)
    gaps = [g[0] for g in (found.mean, found.square) if g is not None]
    z = None if reference is None else _largest_z(draws, reference)
    count = 0 if reference is None else 2 * len(reference)
    return Verdict(found.ess[0], found.rhat[0], max(gaps) if gaps else None, z, count)


def _largest_z(draws: Values, reference: Values) -> float:
    from arviz_stats.base import array_stats

    axes: dict[str, Any] = {"chain_axis": 0, "draw_axis": 1, "method": "mean"}
    worst = 0.0
    for name, known in reference.items():
        for power in (1, 2):
            ours, theirs = draws[name] ** power, known**power
            errors = [float(array_stats.mcse(v, **axes)) for v in (ours, theirs)]
            z = abs(float(ours.mean() - theirs.mean())) / math.hypot(*errors)
            worst = math.inf if math.isnan(z) else max(worst, z)
    return worst


def seconds_to(target: float, outcome: dict[str, Any], ess: float) -> float:
    """Seconds from the start of a fresh process until ``ess`` would have reached ``target``.

    All but the drawing is paid once; the drawing, as measured in whichever of two runs it took
    less, is scaled from the effective size that it gave.
    """
    drawing = float(outcome["share"]) * float(outcome["second_seconds"])
    drawing = min(drawing, float(outcome.get("drawing_seconds", drawing)))
    return float(outcome["fresh_seconds"]) + drawing * (target / max(ess, 1.0) - 1)


def geometric_mean(values: list[float]) -> float:
    """exp of the mean logarithm; NaN of nothing.

    >>> geometric_mean([1.0, 100.0])
    10.0
    """
    return float(np.exp(np.mean(np.log(values)))) if values else math.nan
