"""Fits that the planner makes: rewritten, then solved, integrated, weighed or walked."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ppcore import precision as precisions
from ppcore import registry
from ppcore.errors import SettingsError
from ppcore.fit import direct
from ppcore.fit.fit import Fit
from ppcore.fit.record import record
from ppcore.fit.values import Constrain
from ppcore.model_target import ModelTarget
from ppcore.planner.choose import Choice, choose
from ppcore.planner.parts import coordinates
from ppcore.planner.plan import Plan
from ppcore.planner.recovered import Recovered
from ppcore.planner.rewriting import SPLIT, Prepared, prepare, untouched
from ppcore.report import SamplingWarning, assess
from ppcore.run.keys import Keys
from ppcore.run.loop import RunResult
from ppcore.run.plan import count

CHAINS, DRAWS = 4, 2500
"""Of draws that cost little, when ``infer`` is not told."""


class Planner:
    """Stands for the engine in the record of a fit that no engine made."""

    contract: Any = None


@dataclass(frozen=True)
class _Solved:
    """A solution that is there already, as an engine."""

    solution: Any
    default_draws: int = DRAWS

    def solve(self, target: Any) -> Any:
        return self.solution


def ready(
    model: Any, target: Any, rewrites: bool, without: Sequence[str], precision: str
) -> Prepared:
    """The model rewritten, or as it is where nothing can be or shall be rewritten.

    Raises :class:`~ppcore.errors.SettingsError` for an unknown name in ``without``.
    """
    registry.rewrites(without, more=(SPLIT,))
    declared = isinstance(target, ModelTarget) and model is not target
    if rewrites and declared and precision == "float64":
        return prepare(model, tuple(without), precision)
    return untouched(target)


def recovery(
    prepared: Prepared, precision: str, rows: tuple[int, int], seed: int
) -> Callable[[np.ndarray], Callable[[], Mapping[str, np.ndarray]]]:
    """From draws of the rewritten target to what computes the sites of the model, when asked.

    The program is compiled in another thread from now on.
    """
    if not prepared.rewriting.recoveries:
        shape = (*rows, prepared.target.dim)
        constrain = Constrain(prepared.target, precision, shape, seed)
        return lambda x: lambda: constrain(x)
    with precisions.scope(precision):
        recovered = Recovered.of(prepared)
    full = Constrain(recovered, precision, (*rows, recovered.width), seed)
    rng = np.random.default_rng([seed, 3])

    def values(x: np.ndarray) -> Callable[[], Mapping[str, np.ndarray]]:
        with_noise = recovered.rows(x, rng, prepared.samplers)
        return lambda: full(with_noise)

    return values


def attempt(
    model: Any,
    prepared: Prepared,
    draws: int | None,
    chains: int | None,
    seed: int,
    precision: str,
    walk: bool,
    name: Callable[[int], str],
    outside: Callable[[], int],
) -> tuple[Fit | None, Plan, Prepared]:
    """A fit by no engine, or None where the plan names one; the plan, and what is left to draw."""
    began = time.perf_counter()
    rows = (
        count("chains", CHAINS if chains is None else chains),
        count("draws", DRAWS if draws is None else draws),
    )
    with precisions.scope(precision):
        back = None if walk or _solvable(prepared) else recovery(prepared, precision, rows, seed)
        choice = choose(prepared, np.random.default_rng([seed, 1]), Keys(seed).warmup, rows, walk)
        if choice.parts is not None:
            prepared = choice.parts.left
            if choice.engine is None:
                back = recovery(prepared, precision, rows, seed)
        if choice.engine is not None:
            return None, choice.plan, prepared
        chosen = time.perf_counter()
        if choice.solution is not None:
            return _solved(model, prepared, choice, rows, seed, precision), choice.plan, prepared
        x, stats, evidence = _draw(choice, prepared, np.random.default_rng([seed, 2]), *rows)
        ended = time.perf_counter()
    result = RunResult(
        x=x,
        stats=stats,
        tuned=None,
        gradients={"warmup": choice.gradients, "sampling": x[..., 0].size if x.size else 0},
        notes=(f"{choice.plan.choice.capitalize()}: {choice.plan.reason}",),
        timings={
            "warmup_seconds": chosen - began,
            "first_draw_seconds": ended - began,
            "sampling_seconds": ended - chosen,
            "total_seconds": ended - began,
        },
    )
    health = assess(x, stats, name) if x.size and stats else direct.HEALTHY
    if health.warnings:
        warnings.warn("\n".join(health.warnings), SamplingWarning, stacklevel=outside())
    assert back is not None
    attrs = record(model, Planner(), choice.plan.choice, result, health, seed, precision)
    value = evidence[0] + prepared.rewriting.log_constant
    attrs |= {"log_evidence": value, "log_evidence_error": evidence[1]}
    attrs |= described(prepared, choice.plan)
    held = model if hasattr(model, "spaces") else None
    return Fit(attrs, model=held, result=result, values=back(x)), choice.plan, prepared


def _solvable(prepared: Prepared) -> bool:
    return prepared.target.dim == 0 and not prepared.rewriting.recoveries


def _solved(
    model: Any,
    prepared: Prepared,
    choice: Choice,
    rows: tuple[int, int],
    seed: int,
    precision: str,
) -> Fit:
    engine = _Solved(choice.solution)
    solution, result, values = direct.draw(engine, prepared.origin, rows[1], rows[0], seed)
    attrs = record(model, Planner(), "exact", result, direct.health(solution), seed, precision)
    attrs |= {"log_evidence": float(solution.log_evidence), "log_evidence_error": 0.0}
    attrs |= described(prepared, choice.plan)
    return Fit(attrs, model=model, result=result, values=lambda: values, solution=solution)


def _draw(
    choice: Choice, prepared: Prepared, rng: np.random.Generator, chains: int, draws: int
) -> tuple[np.ndarray, dict[str, np.ndarray], tuple[float, float]]:
    """x: float[chains, draws, d], statistics, and log Z of the rewritten target with its error."""
    if choice.lattice is None and choice.sampled is None:
        density = float(prepared.target.log_density(np.zeros(0)))
        error = 0.0 if choice.parts is None else choice.parts.error
        return np.zeros((chains, draws, 0)), {}, (density, error)
    x = coordinates(choice, rng, chains, draws)
    if choice.lattice is not None:
        return x, {}, (choice.lattice.log_z, choice.lattice.error)
    made = choice.sampled
    stats = {"log_density": made.log_density, "acceptance_rate": made.acceptance_rate}
    return x, stats, (made.log_evidence, made.log_evidence_error)


def described(prepared: Prepared, plan: Plan | None) -> dict[str, Any]:
    """What a fit by an engine records of the planner's decision and of the rewrites."""
    found: dict[str, Any] = {"rewrites": [asdict(a) for a in prepared.applied]}
    return found if plan is None else found | {"plan": plan.as_data()}


def require_coordinates(prepared: Prepared) -> None:
    """Raise :class:`~ppcore.errors.SettingsError` if the rewrites left nothing for an engine."""
    if prepared.target.dim == 0 and prepared.rewriting.recoveries:
        raise SettingsError(
            "The rewrites integrate out every site, so that no coordinate is left for an engine. "
            "Call infer() without an engine for exact draws, or pass rewrites=False."
        )
