"""How close draws are to the reference, and how well their chains agree."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MEAN_BOUND, RHAT_BOUND = 0.15, 1.02

Values = dict[str, np.ndarray]
Worst = tuple[float, str]


@dataclass(frozen=True)
class Score:
    """The worst of all elements, each with the element's name.

    Attributes
    ----------
    mean, square : (float, str) or None
        max_i |mean(x_i) − ref mean(x_i)| / ref sd(x_i), and the same of x_i²; None without a
        reference.
    rhat : (float, str)
        Largest rank-normalised split R̂ of x_i and x_i².
    ess : (float, str)
        Smallest bulk effective sample size of x_i and x_i².
    """

    mean: Worst | None
    square: Worst | None
    rhat: Worst
    ess: Worst

    def shortfalls(self) -> list[str]:
        """What is out of bounds, in words; nothing if all is within."""
        said = []
        for found in (self.mean, self.square):
            if found is not None and not found[0] < MEAN_BOUND:
                said.append(f"mean of {found[1]} off by {found[0]:.2f} sd")
        if not self.rhat[0] < RHAT_BOUND:
            said.append(f"R-hat {self.rhat[0]:.3f} ({self.rhat[1]})")
        return said


def score(draws: Values, reference: Values | None) -> Score:
    """Judge draws by element, float[chains, draws], against the reference's elements."""
    mean = square = None
    if reference is not None:
        mean = _furthest(draws, reference)
        square = _furthest(_squared(draws), _squared(reference))
    rhat, ess = _diagnostics({**draws, **_squared(draws)})
    return Score(mean, square, rhat, ess)


def _squared(values: Values) -> Values:
    return {f"{name}²": value**2 for name, value in values.items()}


def _furthest(draws: Values, reference: Values) -> Worst:
    gaps = [
        (abs(float(draws[name].mean() - known.mean())) / float(known.std()), name)
        for name, known in reference.items()
    ]
    return max(gaps, key=_badness)


def _diagnostics(values: Values) -> tuple[Worst, Worst]:
    from arviz_stats.base import array_stats

    axes = {"chain_axis": 0, "draw_axis": 1}
    rhats, sizes = [], []
    for name, value in values.items():
        rhats.append((float(array_stats.rhat(value, **axes)), name))
        sizes.append((float(array_stats.ess(value, method="bulk", **axes)), name))
    return max(rhats, key=_badness), min(sizes, key=lambda w: -_badness((-w[0], w[1])))


def _badness(worst: Worst) -> float:
    """NaN is the worst of all."""
    return math.inf if math.isnan(worst[0]) else worst[0]
