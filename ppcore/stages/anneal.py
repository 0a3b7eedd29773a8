"""Annealing along a fixed schedule: annealed importance sampling, and SMC with resampling."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ppcore import contract as rules
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.errors import SettingsError, did_you_mean
from ppcore.kernel import check_kernel, needs
from ppcore.paths import Path, Reversal, data_path, follow
from ppcore.population import Population
from ppcore.settings import check_count
from ppcore.stages.base import Stage
from ppcore.stages.resampling import Resample

WAYS = ("data", "temperature")


@dataclass(frozen=True)
class Anneal(Stage):
    """Through γ_{b_1}, …, γ_{b_K}: weigh by γ_{b_k}/γ_{b_{k−1}}, resample, move for γ_{b_k}.

    Properly weighted at every b_k, with E[Ẑ] = Z, because the schedule does not depend on the
    particles. Without resampling it is annealed importance sampling.

    Parameters
    ----------
    schedule : tuple of float
        b_1 < … < b_K, each in (start, 1].
    move : Kernel
        Leaves γ_b invariant for the law γ_b that it is given.
    params : pytree
        The kernel's parameters, at every temperature the same.
    steps : int
        Transitions at each temperature.
    resample : Resample or None
    start : float
        b_0, where the stage before ends.
    by : "temperature" or "data"
        γ_b = prior × likelihood^b, or the data taken in one by one
        (:class:`ppcore.paths.DataTempering`; the path then begins at the prior).

    Raises
    ------
    SettingsError, CompositionError
        When built: for a schedule that does not increase, or what is no kernel or a biased one.

    Source: Neal 2001, arXiv:physics/9803008; Del Moral, Doucet & Jasra 2006,
    doi:10.1111/j.1467-9868.2006.00553.x.
    """

    schedule: tuple[float, ...]
    move: Any
    params: Any = ()
    steps: int = 1
    resample: Resample | None = Resample()
    start: float = 0.0
    by: str = "temperature"

    def __post_init__(self) -> None:
        check_kernel(self.move, "Anneal")
        check_count("steps", self.steps, 1)
        rules.stages(self.move.contract)
        edges = (self.start, *self.schedule)
        rising = all(a < b for a, b in pairwise(edges))
        if not self.schedule or not rising or not 0 <= edges[0] < edges[-1] <= 1:
            raise SettingsError(
                f"schedule={self.schedule!r} must increase from start={self.start:g} to at most 1."
            )
        if self.by not in WAYS:
            raise SettingsError(f"by={self.by!r} is not known. {did_you_mean(str(self.by), WAYS)}")

    @property
    def end(self) -> float:  # type: ignore[override]
        return self.schedule[-1]

    @property
    def needs(self) -> tuple[str, ...]:
        return (*needs(self.move), *(("parts",) if self.by == "data" else ()))

    @property
    def contract(self) -> Contract:
        return rules.stages(ProperlyWeighted(), self.move.contract)

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        if self.by == "temperature":
            return super().__call__(key, source, target, population)
        return self.along(key, data_path(target), self.start, population)

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        if self.by == "data":
            path = data_path(path.target)
        resample = None
        if self.resample is not None:
            rule = self.resample

            def resample(k: Any, p: Population) -> Population:
                return rule.chosen(k, p)[0]

        betas = (self.start, *self.schedule)
        transition = Reversal(self.move, self.steps)
        return follow(key, path, betas, transition, population, resample, self.params)
