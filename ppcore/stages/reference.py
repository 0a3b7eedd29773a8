"""The ends of a composition: draws from the reference, and weights for what is left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from ppcore import random
from ppcore.contract import Contract, Density, ProperlyWeighted
from ppcore.errors import CompositionError, SettingsError, UnsupportedError
from ppcore.kernel import check_target
from ppcore.paths import Path, Tempering
from ppcore.population import Population, equally_weighted, reweight
from ppcore.stages.base import Sequence, Stage


@dataclass(frozen=True)
class Prior:
    """x_i ~ γ_0, the target's reference, with equal weights: where a composition begins.

    ``Prior() >> stage`` is a :class:`Sampler`: ``(key, target, n) -> Population``.

    >>> (Prior() >> Correct()).contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    contract: Contract = Density()

    def draw(self, key: Any, target: Any, n: int) -> Population:
        """``n`` draws from the reference of ``target``."""
        return equally_weighted(target.sample_reference(key, n))

    def require(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.UnsupportedError` if ``target`` has no reference."""
        if target.has_reference:
            return
        improper = getattr(target, "improper", ())
        why = f"the prior of site {improper[0]!r} is improper" if improper else "it has no prior"
        raise UnsupportedError(
            f"There is no reference distribution to start a population from: {why}. Give every "
            "site a proper prior (or a DensityTarget its log_reference_fn and "
            "sample_reference_fn), ask for reference='laplace', or use an engine that needs no "
            "reference, such as 'nuts'."
        )

    def __rshift__(self, other: Any) -> Sampler:
        stage = other if isinstance(other, Sequence) else Sequence(()) >> other
        return Sampler(self, stage)


@dataclass(frozen=True)
class Sampler:
    """A reference and the stages from it: ``(key, target, n) -> Population``.

    Raises
    ------
    CompositionError
        When built: if the stages do not start at inverse temperature 0. When called: if they do
        not end at 1, or the target lacks what they need.
    """

    prior: Prior
    stages: Sequence

    def __post_init__(self) -> None:
        if self.stages.start not in (None, 0.0):
            raise CompositionError(
                f"Prior() ends at inverse temperature 0, but the stages after it start at "
                f"{self.stages.start:g}. Begin with Anneal((…, {self.stages.start:g}))."
            )

    @property
    def contract(self) -> Contract:
        from ppcore.contract import stages

        return stages(self.prior.contract, self.stages.contract)

    def __rshift__(self, other: Any) -> Sampler:
        return Sampler(self.prior, self.stages >> other)

    def check(self, target: Any) -> None:
        """Whether ``target`` has what the stages need; raises as said above."""
        self.prior.require(target)
        if self.stages.end != 1.0:
            end = 0.0 if self.stages.end is None else self.stages.end
            raise CompositionError(
                f"The composition ends at inverse temperature {end:g}, not at the target. "
                f"Append Anneal(..., start={end:g}) or Correct(start={end:g})."
            )
        if "parts" in self.stages.needs and not hasattr(target, "parts"):
            raise CompositionError(
                "A stage takes in the data one by one, but the target has no parts(x) -> "
                "(log_prior, terms). Temper it instead."
            )
        for part in self.stages.parts:
            kernel = getattr(part, "kernel", getattr(part, "move", None))
            if kernel is not None:
                check_target(kernel, target)

    def __call__(self, key: Any, target: Any, n: int) -> Population:
        self.check(target)
        k_prior, k_stages = random.split(key)
        start = self.prior.draw(k_prior, target, n)
        return self.stages.along(k_stages, Tempering(target), 0.0, start)


@dataclass(frozen=True)
class Correct(Stage):
    """Weigh the particles where they are: log w += log γ_end(x) − log γ_start(x).

    Importance sampling; also what ends a composition short of the target.

    Parameters
    ----------
    start, end : float
        Inverse temperatures.
    """

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        for name, value in (("start", self.start), ("end", self.end)):
            if not 0.0 <= value <= 1.0:
                raise SettingsError(f"{name}={value!r} must be an inverse temperature in [0, 1].")

    @property
    def contract(self) -> Contract:
        return ProperlyWeighted()

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        def log_g(x: Any) -> Any:
            return path.gauge.log_ratio(path.change(x), self.start, self.end)

        return reweight(population, jax.vmap(log_g)(population.x))
