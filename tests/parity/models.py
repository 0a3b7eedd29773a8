"""All parity cases."""

from __future__ import annotations

from . import multivariate, regressions, series
from .case import Case

MAKERS = (*regressions.CASES, *multivariate.CASES, *series.CASES)
CASES: tuple[Case, ...] = tuple(make() for make in MAKERS)
