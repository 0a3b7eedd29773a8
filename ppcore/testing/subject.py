"""What is under test: a contract and the objects that carry it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ppcore.contract import Contract


@dataclass(frozen=True)
class Subject:
    """A named claim. Fill in what exists; checks that need something absent do not apply.

    Attributes
    ----------
    name : str
    contract : Contract
        The promise that is checked.
    engine : Engine, optional
        For ``Invariant`` and ``Biased``: checked on joint draws and for good behaviour.
    kernel, params : Kernel and pytree, optional
        Code drawn through :mod:`ppcore.random`: exact checks on the finite models named, and
        coupled runs for the order of a bias.
    populator : PopulationEngine, optional
        Checked for what it returns; its ``stage`` is weighed.
    solver : DirectEngine, optional
        Compared with closed forms on models that can be solved.
    stage : Stage, optional
        For ``ProperlyWeighted``: enumerated on finite models, weighed on continuous ones.
    map : Map, optional
        For ``Transport``.
    density : Normalised, optional
        For ``Density``.
    amortiser : object with ``draw(key, target, n) -> float[n, d]``, optional
        For ``Amortised``.
    rewrite : callable, optional
        ``FiniteTarget -> (FiniteTarget, kept coordinates)``.
    models, finite : tuple of str, optional
        Check models to use; None is every model that applies.
    particles : int
        Population size when traces are enumerated.
    step : float
        The coarse step at which a bias is measured.
    expected_failures : mapping of str to str
        Check name -> reason. Strict: a check that passes nevertheless is an error.
    """

    name: str
    contract: Contract
    engine: Any = None
    populator: Any = None
    solver: Any = None
    kernel: Any = None
    params: Any = None
    stage: Any = None
    map: Any = None
    density: Any = None
    amortiser: Any = None
    rewrite: Callable[[Any], Any] | None = None
    models: tuple[str, ...] | None = None
    finite: tuple[str, ...] | None = None
    particles: int = 2
    step: float = 0.1
    expected_failures: Mapping[str, str] = field(default_factory=dict)


def engine_subject(
    engine: Any, name: str | None = None, expected_failures: Mapping[str, str] | None = None
) -> Subject:
    """The subject of an engine, by its own contract."""
    return Subject(
        name=name or type(engine).__name__,
        contract=engine.contract,
        engine=engine,
        expected_failures=dict(expected_failures or {}),
    )
