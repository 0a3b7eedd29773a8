"""The targets of the table: how each is made, what is true, and with which settings it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.evidence import synthetic, with_data


@dataclass(frozen=True)
class Case:
    """One target.

    Attributes
    ----------
    make : callable
        The target, from its data file if it has one.
    truth : float
        log Z.
    goal : float or None
        Largest error of the mean over seeds that is asked for, beside two standard errors.
    file : str
    particles : int
    settings : mapping
        Of the engine ``smc``.
    """

    make: Callable[..., Any]
    truth: float
    goal: float | None = None
    file: str = ""
    particles: int = 8192
    settings: Mapping[str, Any] = field(default_factory=dict)

    def target(self, folder: Path | None) -> Any:
        """The target, or None if its data are not there."""
        if not self.file:
            return self.make()
        if folder is None or not (folder / self.file).exists():
            return None
        return self.make(folder / self.file)


def _gaussian(*arguments: Any, **data: Any) -> Callable[[], Any]:
    return lambda: synthetic.from_gaussian(*arguments, **data)


CASES = {
    "funnel": Case(_gaussian(synthetic.funnel, 10, 3.0), 0.0),
    "gmm9": Case(_gaussian(synthetic.mixture, 2, 5.0, centres=synthetic.grid9(), sd=0.5477), 0.0),
    "gmm40-2": Case(
        _gaussian(synthetic.mixture, 2, 25.0, centres=synthetic.centres40(), sd=1.0), 0.0
    ),
    "many_well": Case(_gaussian(synthetic.many_well, 32, 2.0), 164.69568, particles=2048),
    "mw5": Case(_gaussian(synthetic.mw5, 5, 2.0), -0.54106),
    "banana": Case(_gaussian(synthetic.banana, 2, 10.0), 0.0),
    "brownian": Case(with_data.brownian, 1.18775, 0.05, "brownian.csv", 4096, {"most": 6}),
    "sonar": Case(with_data.regression, -108.39, 0.05, "sonar.csv", 4096, {"reference": "laplace"}),
    "ionosphere": Case(
        with_data.regression, -111.61, 0.05, "ionosphere.csv", 4096, {"reference": "laplace"}
    ),
    "seeds": Case(with_data.seeds, -73.41, 0.05, "seeds.csv", 4096, {"most": 4, "length": 0.5}),
    "lgcp": Case(
        with_data.lgcp, 501.6, 0.3, "finpines.csv", 256, {"reference": "laplace", "enough": 0.9}
    ),
}
