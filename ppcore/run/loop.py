"""Run an engine on a target: warm-up, then blocks of draws that are checked, saved and reported."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppcore import precision as precisions
from ppcore.engine import Engine, Progress, Report, Warm
from ppcore.errors import StartError
from ppcore.run import cache
from ppcore.run.checkpoint import Block, Checkpoint, Saver, chosen
from ppcore.run.checks import check_block, check_warm
from ppcore.run.keys import Keys
from ppcore.run.plan import Plan, check_seed, identity, plan, versions
from ppcore.run.program import Program
from ppcore.run.progress import show
from ppcore.run.start import explain_start


@dataclass(frozen=True)
class RunResult:
    """Draws in unconstrained coordinates and what they cost.

    Attributes
    ----------
    x : float[chains, draws, d]
        The draws, as a NumPy array.
    stats : dict of str to array[chains, draws]
        What the engine says of each draw.
    tuned : pytree
        The frozen parameters that all draws were made with.
    gradients : dict
        Gradient evaluations of all chains together, in ``"warmup"`` and in ``"sampling"``.
    notes : tuple of str
        What the user should know.
    timings : dict
        Seconds: ``warmup_seconds``; ``first_draw_seconds``, from the call to the first block on
        the host, compilation included; ``sampling_seconds``; ``total_seconds``.
    complete : bool
        False if the run was interrupted: then there are fewer draws than were asked for.
    block_size : int
        Draws of each chain to a block; the draws depend on it.
    """

    x: np.ndarray
    stats: dict[str, np.ndarray]
    tuned: Any
    gradients: dict[str, int]
    notes: tuple[str, ...] = ()
    timings: dict[str, float] = field(default_factory=dict)
    complete: bool = True
    block_size: int = 0


def run(
    engine: Engine,
    target: Any,
    *,
    draws: int | None = None,
    chains: int | None = None,
    seed: int = 0,
    block_size: int | None = None,
    progress: Any = None,
    checkpoint: str | os.PathLike[str] | None = None,
    precision: str = "float64",
) -> RunResult:
    """Warm up ``engine`` on ``target``, freeze its tuning, and draw.

    The draws follow the law that ``engine.contract`` states, for parameters that no draw
    changed. They depend on the engine, the target, ``seed``, ``chains`` and ``block_size`` only:
    a run that was interrupted and resumed returns the same bits as one that was not.

    Parameters
    ----------
    engine, target
        See :class:`ppcore.engine.Engine` and :class:`ppcore.target.Target`.
    draws, chains : int, optional
        Draws of each chain, and chains; by default the engine's own.
    seed : int
        From 0 to 2**32 − 1.
    block_size : int, optional
        Draws of each chain between two looks at the host; decided once, so that one program is
        compiled. By default the engine's ``block_size``, or about a twentieth of the draws.
    progress : None, bool, str or callable
        See :func:`ppcore.run.progress.show`.
    checkpoint : path, optional
        A folder to save every block in. If it holds this run, the run is continued; ``draws`` may
        then be larger than before.
    precision : "float64" or "float32"

    Raises
    ------
    SettingsError
        For a setting that is out of range.
    StartError
        If no start with a finite log density is found; the guilty sites are named.
    EngineError
        If the engine returns something that is not finite, or of another shape.
    CheckpointError
        If ``checkpoint`` holds another run.
    """
    began = time.perf_counter()
    seed, path = check_seed(seed), chosen(checkpoint)
    cache.enable()
    with precisions.scope(precision):
        sizes = plan(engine, target, draws, chains, block_size, path, precision)
        saved = None
        if path is not None:
            saved = Checkpoint.open(path, identity(engine, target, sizes, seed), versions())
        job = _Job(engine, target, sizes, Keys(seed), saved, Saver(saved), began)
        with show(progress, sizes.chains) as report:
            warm, warm_seconds = _warm_up(job, report)
            draws_made = _Draws(sizes, report, warm.tuned)
            try:
                _sample(job, warm, draws_made)
            except KeyboardInterrupt:
                if draws_made.done == 0:
                    raise
    return _result(job, warm, warm_seconds, draws_made)


@dataclass(frozen=True)
class _Job:
    engine: Engine
    target: Any
    plan: Plan
    keys: Keys
    saved: Checkpoint | None
    saver: Saver
    began: float


class _Draws:
    """The draws made so far, in arrays that are as large as the run."""

    def __init__(self, plan: Plan, report: Report, tuned: Any) -> None:
        self.plan, self.report, self.tuned = plan, report, tuned
        self.done, self.seconds, self.first = 0, 0.0, 0.0
        self.x = np.empty((plan.chains, plan.draws, plan.dim), plan.dtype)
        self.stats: dict[str, np.ndarray] = {}
        self.divergences = np.zeros(plan.chains, int)

    def add(self, block: Block) -> None:
        """Keep a block; the last one may reach beyond the run and is cut."""
        take = min(self.plan.block, self.plan.draws - self.done)
        place = slice(self.done, self.done + take)
        self.x[:, place] = block.draws[:, :take]
        for name, values in block.stats.items():
            if name not in self.stats:
                shape = (self.plan.chains, self.plan.draws)
                self.stats[name] = np.zeros(shape, values.dtype)
            self.stats[name][:, place] = values[:, :take]
        self.seconds += block.seconds
        self.done += take
        self.show(block.stats, take)

    def show(self, stats: dict[str, np.ndarray], take: int) -> None:
        fields: dict[str, Any] = {}
        if "diverging" in stats:
            self.divergences = self.divergences + stats["diverging"][:, :take].sum(1)
            fields["divergences"] = self.divergences
        step_size = stats["step_size"][:, -1] if "step_size" in stats else _step(self.tuned)
        if step_size is not None:
            fields["step_size"] = step_size
        if "acceptance_rate" in stats:
            fields["acceptance"] = stats["acceptance_rate"][:, :take].mean(1)
        self.report(Progress("sampling", self.done, self.plan.draws, fields))


def _warm_up(job: _Job, report: Report) -> tuple[Warm, float]:
    found = job.saved.warm() if job.saved is not None else None
    if found is not None:
        return found
    began = time.perf_counter()
    dtype = job.plan.dtype
    try:
        warm = job.engine.warmup(job.keys.warmup, job.target, job.plan.chains, report)
        x = np.asarray(warm.x)
        check_warm(job.engine, x, job.plan.chains, job.plan.dim, dtype)
    except StartError as error:
        why = explain_start(job.target, job.keys.seed, dtype)
        raise StartError(f"{error} {why}") from error
    seconds = time.perf_counter() - began
    job.saver.warm(warm, seconds)
    return warm, seconds


def _sample(job: _Job, warm: Warm, made: _Draws) -> None:
    """Draw block after block; while one is computed, the one before it is checked and saved."""
    program, sizes = Program(job.engine), job.plan
    carry, start = None, 0
    for block in job.saved.blocks() if job.saved is not None else ():
        if start < sizes.blocks:
            made.add(block)
            carry, start = block.carry, start + 1
    if start >= sizes.blocks:
        return
    if carry is None:
        carry = program.init(job.keys.init, job.target, warm.tuned, warm.x)
    clock = time.perf_counter()
    waiting: tuple[int, Any, Any, Any] | None = None
    for index in range(start, sizes.blocks):
        key = job.keys.block(index)
        carry, draws, stats = program.block(key, job.target, warm.tuned, carry, sizes.block)
        if waiting is not None:
            clock = _keep(job, made, clock, *waiting)
        waiting = (index, carry, draws, stats)
        if index == start:
            clock, waiting = _keep(job, made, clock, *waiting), None
            made.first = clock - job.began
    if waiting is not None:
        _keep(job, made, clock, *waiting)


def _keep(
    job: _Job, made: _Draws, clock: float, index: int, carry: Any, draws: Any, stats: Any
) -> float:
    """Bring a block to the host, check it, save it, count it; the time when it was there."""
    sizes = job.plan
    x = np.asarray(draws)
    values = {name: np.asarray(value) for name, value in stats.items()}
    now = time.perf_counter()
    shape = (sizes.chains, sizes.block, sizes.dim)
    check_block(job.engine, job.target, index, x, values, shape, sizes.dtype)
    block = Block(carry, x, values, now - clock)
    job.saver.block(index, block)
    made.add(block)
    return now


def _result(job: _Job, warm: Warm, warm_seconds: float, made: _Draws) -> RunResult:
    done, complete = made.done, made.done == job.plan.draws
    notes = [*warm.notes, *job.saver.notes]
    if not complete:
        notes.append(f"Interrupted: {done} of {job.plan.draws} draws per chain were made.")
    spent = made.stats.get("n_gradients")
    return RunResult(
        x=made.x[:, :done],
        stats={name: values[:, :done] for name, values in made.stats.items()},
        tuned=warm.tuned,
        gradients={
            "warmup": int(warm.gradients),
            "sampling": 0 if spent is None else int(spent[:, :done].sum()),
        },
        notes=tuple(notes),
        timings={
            "warmup_seconds": warm_seconds,
            "first_draw_seconds": made.first,
            "sampling_seconds": made.seconds,
            "total_seconds": time.perf_counter() - job.began,
        },
        complete=complete,
        block_size=job.plan.block,
    )


def _step(tuned: Any) -> Any:
    """The step size among the tuned parameters, if they name one."""
    found = tuned.get("step_size") if isinstance(tuned, dict) else getattr(tuned, "step_size", None)
    return None if found is None else np.asarray(found)
