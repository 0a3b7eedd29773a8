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
    truth, known_to : float
        log Z, and the standard error of what is called the truth: 0 where it is exact.
    goal : float or None
        Largest error of the mean over seeds that is asked for, beside two standard errors.
    file : str
    particles : int
    start : str
        The reference that tempering starts from, in words.
    settings : mapping
        Of the engine ``smc``, beside ``pilot=True``.
    """

    make: Callable[..., Any]
    truth: float
    start: str
    goal: float | None = None
    file: str = ""
    particles: int = 8192
    known_to: float = 0.0
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


LAPLACE = {"reference": "laplace"}
MODE = "Gaussian at the mode"

CASES = {
    "funnel": Case(
        synthetic.funnel_from_scales,
        0.0,
        "x₀ ~ N(0, 3²), rest N(0, s² I), s = 2^U{−7…7}",
        particles=1024,
    ),
    "funnel-t": Case(
        synthetic.funnel_from_student, 0.0, "multivariate Student-t(1)", particles=1024
    ),
    "gmm9": Case(
        _gaussian(synthetic.mixture, 2, 5.0, centres=synthetic.grid9(), sd=0.5477),
        0.0,
        "N(0, 5² I)",
    ),
    "gmm40-2": Case(
        _gaussian(synthetic.mixture, 2, 25.0, centres=synthetic.centres40(), sd=1.0),
        0.0,
        "N(0, 25² I)",
        particles=2048,
    ),
    "many_well": Case(
        _gaussian(synthetic.many_well, 32, 2.0),
        164.69568,
        "N(0, 2² I)",
        particles=4096,
        settings={"most": 6},
    ),
    "mw5": Case(_gaussian(synthetic.mw5, 5, 2.0), -0.54106, "N(0, 2² I)", particles=4096),
    "banana": Case(_gaussian(synthetic.banana, 2, 10.0), 0.0, "N(0, 10² I)"),
    "brownian": Case(with_data.brownian, 1.18775, "prior", 0.05, "brownian.csv", 2048),
    "sonar": Case(
        with_data.regression, -108.39, MODE, 0.05, "sonar.csv", 8192, 0.01, settings=LAPLACE
    ),
    "ionosphere": Case(
        with_data.regression, -111.61, MODE, 0.05, "ionosphere.csv", 8192, 0.02, settings=LAPLACE
    ),
    "seeds": Case(with_data.seeds, -73.41, "prior, b = z/√τ", 0.05, "seeds.csv", 4096, 0.01),
    "lgcp": Case(with_data.lgcp, 501.6, MODE, 0.3, "finpines.csv", 64, 0.1, {**LAPLACE, "most": 3}),
}
