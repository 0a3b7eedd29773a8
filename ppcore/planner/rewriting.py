"""A model's target rewritten by all that is installed, once for each model."""

from __future__ import annotations

import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ppcore import registry
from ppcore.model_target import ModelTarget
from ppcore.planner.plan import Applied
from ppcore.rewrite.protocol import Problem, Rewriting, rewrite

SPLIT = "components"
"""The one step that makes several problems of one; it has a name like a rewrite."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model as it was written, and as it will be sampled.

    Attributes
    ----------
    origin : ModelTarget
        The model's own target.
    target : ModelTarget
        What is left of it.
    rewriting : Rewriting
        The way back and the constant.
    applied : tuple of Applied
    seconds : float
        What rewriting took.
    """

    origin: ModelTarget
    target: ModelTarget
    rewriting: Rewriting
    applied: tuple[Applied, ...]
    seconds: float


_made: weakref.WeakKeyDictionary[Any, dict[Any, Prepared]] = weakref.WeakKeyDictionary()


def prepare(model: Any, without: Sequence[str] = (), precision: str = "float64") -> Prepared:
    """Rewrite ``model`` by every installed rewrite but those of ``without``, in their order.

    The same model object is rewritten once; another fit of it reuses the result. The precision's
    scope must be entered.

    Raises :class:`~ppcore.errors.SettingsError` for a name in ``without`` that is none of them.
    """
    rewrites = registry.rewrites(without, more=(SPLIT,))
    key = (tuple(rewrites), precision)
    kept = _made.setdefault(model, {})
    if key not in kept:
        began = time.perf_counter()
        origin = model.target(precision)
        done = rewrite(Problem.of(origin), tuple(rewrites.values()))
        target = ModelTarget(done.problem.diagram, (), done.problem.data, ())
        applied = tuple(Applied(*line) for line in done.log)
        if not any(a.applied for a in applied):
            target = origin
        kept[key] = Prepared(origin, target, done, applied, time.perf_counter() - began)
    return kept[key]


def untouched(target: Any) -> Prepared:
    """A target that is sampled as it is."""
    return Prepared(target, target, Rewriting(None, (), 0.0, ()), (), 0.0)  # type: ignore[arg-type]
