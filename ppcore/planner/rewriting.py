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
    split : bool
        Whether independent components may be sampled by themselves.
    samplers : tuple of (callable or None)
        For each recovery, what makes its noise on the host: (rng, chains, draws) ->
        float[chains, draws, noise_size]; None for standard normals.
    """

    origin: ModelTarget
    target: ModelTarget
    rewriting: Rewriting
    applied: tuple[Applied, ...]
    seconds: float
    split: bool = False
    samplers: tuple[Any, ...] = ()


_made: weakref.WeakKeyDictionary[Any, dict[Any, Prepared]] = weakref.WeakKeyDictionary()


def prepare(model: Any, without: Sequence[str] = (), precision: str = "float64") -> Prepared:
    """Rewrite ``model`` by every installed rewrite but those of ``without``, in their order.

    The same model object is rewritten once; another fit of it reuses the result. The precision's
    scope must be entered.

    Raises :class:`~ppcore.errors.SettingsError` for a name in ``without`` that is none of them.
    """
    rewrites = registry.rewrites(without, more=(SPLIT,))
    key = (tuple(rewrites), SPLIT in without, precision)
    kept = _made.setdefault(model, {})
    if key not in kept:
        began = time.perf_counter()
        origin = model.target(precision)
        done = rewrite(Problem.of(origin), tuple(rewrites.values()))
        target = ModelTarget(done.problem.diagram, (), done.problem.data, ())
        applied = tuple(Applied(*line) for line in done.log)
        if not any(a.applied for a in applied):
            target = origin
        took = time.perf_counter() - began
        samplers = (None,) * len(done.recoveries)
        split = SPLIT not in without
        kept[key] = Prepared(origin, target, done, applied, took, split, samplers)
    return kept[key]


def untouched(target: Any) -> Prepared:
    """A target that is sampled as it is."""
    return Prepared(target, target, Rewriting(None, (), 0.0, ()), (), 0.0)  # type: ignore[arg-type]
