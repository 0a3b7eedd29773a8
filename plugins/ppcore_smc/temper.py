"""The host drives adaptive annealing: one compiled step, watched, until the target is reached."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np

from ppcore.engine import Progress, Report
from ppcore.errors import PopulationError
from ppcore.population import require_alive
from ppcore.stages.adaptive import MOST_STEPS, AdaptiveAnneal, Chosen, Front
from ppcore.stages.reference import Prior
from ppcore.stages.tuned import bounds
from ppcore.tuning.noise import spawned

See = Callable[[Front, Chosen], None]


def temper(
    stage: AdaptiveAnneal,
    key: Any,
    path: Any,
    n: int,
    given: Any,
    report: Report,
    see: See | None = None,
) -> tuple[Front, list[dict[str, float]]]:
    """The front at the target, and one row of statistics for each temperature.

    The inverse temperature is a leaf, so that one program serves all temperatures; ``see`` is
    shown each of them.

    Raises
    ------
    PopulationError
        If all weights vanish, one is NaN, or the temperature stops rising.
    """
    k_begin, k_run = spawned(key, 2)
    front = _begin(stage, k_begin, path, n)
    _check_defined(front)
    rows: list[dict[str, float]] = []
    while float(front.beta) < 1.0:
        chosen = _choose(stage, k_run, path.gauge, front)
        before, front = front, _move(stage, k_run, path, front, chosen, given, stage.bounds)
        rows.append(_row(front))
        _check(front, before)
        report(_progress(front))
        if see is not None:
            see(front, chosen)
    return front, rows


@dataclass(frozen=True)
class Level:
    """What a run found for one temperature, for another run to use as it is."""

    beta: Any
    about: Any
    log_step: Any
    moves: int


def retrace(
    stage: AdaptiveAnneal,
    key: Any,
    path: Any,
    n: int,
    given: Any,
    levels: list[Level],
    report: Report,
) -> tuple[Front, list[dict[str, float]]]:
    """As :func:`temper`, with temperatures, scales, steps and numbers of moves given.

    Nothing depends on the particles any more, so that E[Ẑ] = Z for any number of them. With as
    many particles as the run that found the levels, the moves are the same compiled program.
    """
    k_begin, k_run = spawned(key, 2)
    front = _begin(stage, k_begin, path, n)
    _check_defined(front)
    rows: list[dict[str, float]] = []
    for level in levels:
        chosen = _rechoose(stage, k_run, path.gauge, front, level.beta, level.about)
        rule = bounds(level.moves, level.moves, gain=0.0)
        before, front = front, replace(front, log_step=level.log_step)
        front = _move(stage, k_run, path, front, chosen, given, rule)
        rows.append(_row(front))
        _check(front, before)
        report(_progress(front))
    return front, rows


@partial(jax.jit, static_argnames=("stage", "n"))
def _begin(stage: AdaptiveAnneal, key: Any, path: Any, n: int) -> Front:
    return stage.begin(path, Prior().draw(key, path.target, n))


@partial(jax.jit, static_argnames=("stage",))
def _choose(stage: AdaptiveAnneal, key: Any, gauge: Any, front: Front) -> Any:
    # A program of its own, without the model, so that JAX's disk cache serves it to all models.
    return stage.choose(key, gauge, front)


@partial(jax.jit, static_argnames=("stage",))
def _rechoose(
    stage: AdaptiveAnneal, key: Any, gauge: Any, front: Front, beta: Any, about: Any
) -> Any:
    return stage.rechosen(key, gauge, front, beta, about)


@partial(jax.jit, static_argnames=("stage",))
def _move(
    stage: AdaptiveAnneal, key: Any, path: Any, front: Front, chosen: Any, given: Any, rule: Any
) -> Front:
    return stage.move_all(key, path, front, chosen, given, rule)


def undefined(front: Front) -> int:
    """How many particles have an undefined log likelihood."""
    parts = [np.isnan(np.asarray(leaf)).reshape(len(leaf), -1) for leaf in _leaves(front)]
    return int(np.any(np.concatenate(parts, axis=1), axis=1).sum())


def _leaves(front: Front) -> list[Any]:
    return list(jax.tree.leaves(front.change))


def _check_defined(front: Front) -> None:
    """Raise if no particle of the reference has a log likelihood."""
    population = front.population
    if undefined(front) == population.size:
        raise PopulationError(
            f"The log likelihood is NaN at all {population.size} draws from the reference (inverse "
            "temperature 0). Check data for NaN, and the model for an undefined likelihood.",
            population,
            "reference",
            0.0,
        )


def _row(front: Front) -> dict[str, float]:
    return {
        "temperature": float(front.beta),
        "ess": float(front.ess),
        "log_z": float(front.population.log_z),
        "acceptance_rate": float(front.acceptance),
        "step_size": float(np.exp(front.log_step)),
        "jump": float(front.jump),
        "moves": float(front.moves),
        "undefined": float(undefined(front)),
    }


def _progress(front: Front) -> Progress:
    fields = {
        "temperature": float(front.beta),
        "log_z": float(front.population.log_z),
        "acceptance": float(front.acceptance),
    }
    return Progress("tempering", round(100 * float(front.beta)), 100, fields, unit="% of the way")


def _check(front: Front, before: Front) -> None:
    """Raise if the population died in the last step, with the one before it."""
    try:
        require_alive(front.population, "tempering", float(front.beta))
    except PopulationError as error:
        raise PopulationError(
            str(error), before.population, error.stage, error.temperature
        ) from None
    if int(front.count) >= MOST_STEPS:
        raise PopulationError(
            f"After {MOST_STEPS} temperatures the inverse temperature is {float(front.beta):.3g}: "
            "each step kills most particles. Use more particles (draws=...), a smaller ess, or a "
            "prior that is less vague.",
            front.population,
            "tempering",
            float(front.beta),
        )
