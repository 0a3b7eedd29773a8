"""Transport: push the particles through an invertible map, and weigh what it misses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from ppcore.contract import Contract, ProperlyWeighted
from ppcore.errors import CompositionError, SettingsError
from ppcore.paths import Path, increment
from ppcore.population import Population, reweight
from ppcore.stages.base import Stage


@dataclass(frozen=True)
class Transport(Stage):
    """x ← T(x), log w += log γ_end(T(x)) − log γ_start(x) + log |det ∂T(x)|.

    The path-weight formula with F = δ_T(x) and B = δ_T⁻¹(x): properly weighted for γ_end whatever
    the bijection T, and the weights stay equal if T carries γ_start to γ_end.

    Parameters
    ----------
    map : Map
        ``forward(x) -> (y, log |det ∂y/∂x|)``, with contract ``Transport``.
    start, end : float
        Inverse temperatures.

    Raises
    ------
    CompositionError, SettingsError
        When built: for what is no map, or temperatures outside [0, 1].

    Source: Arbel, Matthews & Doucet 2021, arXiv:2102.07501; Wu, Köhler & Noé 2020,
    arXiv:2002.06707.
    """

    map: Any
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not hasattr(self.map, "forward"):
            raise CompositionError(
                f"Transport takes a map with forward(x) -> (y, log_det), and "
                f"{type(self.map).__name__} has none."
            )
        for name, value in (("start", self.start), ("end", self.end)):
            if not 0.0 <= value <= 1.0:
                raise SettingsError(f"{name}={value!r} must be an inverse temperature in [0, 1].")

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        old, new = path.at(self.start), path.at(self.end)

        def push(x: Any) -> tuple[Any, Any]:
            y, log_det = self.map.forward(x)
            return y, increment(old, new, x, y, log_det)

        y, log_g = jax.vmap(push)(population.x)
        return reweight(Population(y, population.log_weight, population.log_z), log_g)
