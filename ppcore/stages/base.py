"""What a stage is, where it starts and ends, and how stages compose."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ppcore import contract as rules
from ppcore import random
from ppcore.contract import Contract
from ppcore.errors import CompositionError
from ppcore.paths import Between, Path, Tempering
from ppcore.population import Population


class Stage:
    """A kernel from populations for γ_start to populations for γ_end along a path.

    A stage is called as :class:`ppcore.population.Stage` is, ``(key, source, target,
    population)``, with b = 0 at the source and b = 1 at the target. ``a >> b`` does a, then b.

    Attributes
    ----------
    start, end : float or None
        Inverse temperatures; None for a stage that works wherever it is, and stays there.
    needs : tuple of str
        What the target must offer: "gradient", "reference", "parts".
    """

    start: float | None = None
    end: float | None = None

    @property
    def needs(self) -> tuple[str, ...]:
        return ()

    @property
    def contract(self) -> Contract:
        raise CompositionError(f"{type(self).__name__} states no contract.")

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        """The population for γ_end, from one for γ_at; ``at`` is ``start`` where that is known."""
        raise CompositionError(f"{type(self).__name__} does nothing to a population.")

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        path = Tempering(Between(source, target))
        at = 1.0 if self.start is None else self.start
        return self.along(key, path, at, population)

    def __rshift__(self, other: Any) -> Sequence:
        return Sequence((*_parts(self), *_parts(other)))


@dataclass(frozen=True)
class Sequence(Stage):
    """Stages one after the other; proper if each is, by :func:`ppcore.contract.stages`.

    Raises
    ------
    CompositionError
        When built: if a stage does not start where the one before it ends.
    """

    parts: tuple[Stage, ...]

    def __post_init__(self) -> None:
        at: float | None = None
        before = ""
        for part in self.parts:
            name = type(part).__name__
            if part.start is not None and at is not None and part.start != at:
                raise CompositionError(
                    f"{name} starts at inverse temperature {part.start:g}, but {before} ends at "
                    f"{at:g}. Put Anneal((…, {part.start:g})) or Correct(start={at:g}, "
                    f"end={part.start:g}) between them."
                )
            if part.end is not None:
                at, before = part.end, name
        rules.stages(*(part.contract for part in self.parts))

    @property
    def start(self) -> float | None:  # type: ignore[override]
        return next((part.start for part in self.parts if part.start is not None), None)

    @property
    def end(self) -> float | None:  # type: ignore[override]
        return next((part.end for part in reversed(self.parts) if part.end is not None), None)

    @property
    def needs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(need for part in self.parts for need in part.needs))

    @property
    def contract(self) -> Contract:
        return rules.stages(*(part.contract for part in self.parts))

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        for k, part in zip(random.split(key, len(self.parts)), self.parts, strict=True):
            at = at if part.start is None else part.start
            population = part.along(k, path, at, population)
            at = at if part.end is None else part.end
        return population


def _parts(stage: Any) -> tuple[Stage, ...]:
    if isinstance(stage, Sequence):
        return stage.parts
    if isinstance(stage, Stage):
        return (stage,)
    hint = ""
    if hasattr(stage, "step") and hasattr(stage, "contract"):
        hint = f" It is a kernel: write Move({type(stage).__name__}(...), steps=...)."
    elif hasattr(stage, "forward"):
        hint = f" It is a map: write Transport({type(stage).__name__}(...))."
    raise CompositionError(f"{type(stage).__name__} is no stage.{hint}")
