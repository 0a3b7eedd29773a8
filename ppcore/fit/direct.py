"""Fits by engines that draw the sites themselves, independently and at once."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from ppcore.errors import SettingsError
from ppcore.report import Health
from ppcore.run.keys import Keys
from ppcore.run.loop import RunResult
from ppcore.run.plan import count

CHAINS = 4
"""Independent draws are stored as this many chains, so that every diagnostic applies to them."""


def is_direct(engine: Any) -> bool:
    """Whether an engine solves a model rather than walking through it."""
    return hasattr(engine, "solve") and not hasattr(engine, "block")


def draw(
    engine: Any, target: Any, draws: int | None, chains: int | None, seed: int
) -> tuple[Any, RunResult, dict[str, np.ndarray]]:
    """The solution, what it cost, and draws from it: {site: array[chains, draws, ...]}."""
    began = time.perf_counter()
    chains = count("chains", CHAINS if chains is None else chains)
    draws = count("draws", engine.default_draws if draws is None else draws)
    solution = engine.solve(target)
    solved = time.perf_counter()
    values = {
        site: np.asarray(value).reshape(chains, draws, *np.shape(value)[1:])
        for site, value in solution.sample(Keys(seed).block(0), chains * draws).items()
    }
    ended = time.perf_counter()
    result = RunResult(
        x=np.zeros((chains, draws, 0)),
        stats={},
        tuned=None,
        gradients={"warmup": 0, "sampling": 0},
        notes=getattr(solution, "notes", None)
        or (f"Independent draws from the exact posterior (solver: {solution.solver}).",),
        timings={
            "warmup_seconds": 0.0,
            "solve_seconds": solved - began,
            "first_draw_seconds": ended - began,
            "sampling_seconds": ended - solved,
            "total_seconds": ended - began,
        },
    )
    return solution, result, values


def refuse(**unused: Any) -> None:
    """Raise :class:`~ppcore.errors.SettingsError` for a run setting that has no meaning here."""
    for name, value in unused.items():
        if value is not None:
            raise SettingsError(f"{name}= has no meaning for an engine that draws all at once.")


def health(solution: Any) -> Health:
    """What a solution that is made of particles says against its draws; an exact one nothing."""
    return replace(HEALTHY, warnings=tuple(getattr(solution, "warnings", ())))


HEALTHY = Health(divergences=None, rhat=None, ess=None, energy=None)
