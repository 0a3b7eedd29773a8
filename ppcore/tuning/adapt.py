"""The warm-up that the engines share: rounds of draws with adaptation on the host in between."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from ppcore.engine import Progress, Report
from ppcore.tuning.length import Length, autocorrelation_time
from ppcore.tuning.metric import choose, estimate, from_factor
from ppcore.tuning.noise import spawned
from ppcore.tuning.preconditioner import Dense, Preconditioner, identity
from ppcore.tuning.start import find
from ppcore.tuning.step_size import StepSize
from ppcore.tuning.trial import Candidate, in_trouble, try_metrics, uncorrelated

TRY_AT = 0.6
MOST_THIN = 8
BRISK = 3.0
IDLE = 4.0
DIVERGING = 0.002


class Machine(Protocol):
    """Chains at work, for the host to adapt between rounds.

    ``gradients`` counts evaluations so far, all chains together; ``dtype`` is that of x.
    """

    gradients: int
    dtype: Any

    def evaluate(self, precondition: Preconditioner, x: np.ndarray) -> tuple[Any, Any]:
        """log γ and its gradient at each row of ``x``: float[N, d]."""
        ...

    def place(self, precondition: Preconditioner, x: np.ndarray) -> None:
        """Put the chains at ``x``: float[chains, d]."""
        ...

    def advance(
        self, precondition: Preconditioner, step: float, length: float, n: int
    ) -> dict[str, np.ndarray]:
        """``n`` draws of every chain: x, gradient: float[n, chains, d]; log_density,
        acceptance_rate, diverging, n_gradients: [n, chains]."""
        ...

    def copy(self, source: np.ndarray) -> None:
        """Chain i goes on from where chain ``source[i]`` (int[chains]) is."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long to warm up.

    Attributes
    ----------
    draws : int
        Draws per chain from scattered starts; half as many from a Laplace start.
    limit : int
        Warm-up goes on, up to here, until the chains have settled.
    longest : int
        Draws in the longest round.
    target_accept : float
    length : float
        First trajectory length, in whitened units (ignored by engines that choose their own).
    learn_length : bool
        Whether to look for a better one.
    apart : float
        The condition number of the correlations above which a diagonal metric is not tried.
    """

    draws: int
    limit: int
    longest: int
    target_accept: float
    length: float
    learn_length: bool
    apart: float


@dataclass
class Adapted:
    """The state of a warm-up; its end is what the engine freezes.

    ``precondition`` is a dense metric's ``flat`` counterpart where that has proved better.
    """

    learnt: Preconditioner
    step: StepSize
    length: Length
    flat: Dense | None = None
    diverged: bool = False
    done: int = 0
    settled: bool = False
    thin: int = 1
    divergences: Any = 0
    history: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def precondition(self) -> Preconditioner:
        return self.learnt if self.flat is None else self.flat

    def aim(self, schedule: Schedule) -> float:
        """The acceptance to tune for: half way to 1 once chains have diverged late."""
        return (1 + schedule.target_accept) / 2 if self.diverged else schedule.target_accept


def warm_up(
    machine: Machine,
    key: Any,
    target: Any,
    chains: int,
    metric: str,
    rank: int,
    schedule: Schedule,
    report: Report,
) -> Adapted:
    """Find a start and adapt step size and preconditioner while the chains go on from it.

    Raises :class:`ppcore.errors.StartError` if no finite log density is found.
    """
    host_key, reference_key = spawned(key, 2)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(host_key)).ravel())
    kind = choose(metric, target.dim)
    precondition = identity(kind, target.dim, rank, machine.dtype)
    start = find(partial(machine.evaluate, precondition), rng, reference_key, target, chains)
    precondition = from_factor(precondition, start.root())
    machine.place(precondition, start.x)
    step = StepSize(math.log(0.5 * target.dim**-0.25))
    length = Length(schedule.length, schedule.length)
    state = Adapted(precondition, step, length, divergences=np.zeros(chains, int))
    state.notes += [start.note] if start.note else []
    near, free = start.factor is not None, metric == "auto" and kind == "dense"
    return _rounds(machine, state, schedule, near, free, rng, report)


def _rounds(
    machine: Machine,
    state: Adapted,
    schedule: Schedule,
    near: bool,
    free: bool,
    rng: np.random.Generator,
    report: Report,
) -> Adapted:
    """Round after round of draws, with ``state`` adapted in between.

    Rounds grow from a few draws to ``schedule.longest``. After each, the step size moves; at
    lengthening intervals the preconditioner is estimated anew from the later half of all draws.
    In the first half, chains left far below the bulk are replaced by copies of others. With a
    ``free`` metric that serves badly, others are tried once in between. The last fifth only
    averages the step size. The whole goes on while the pooled mean still drifts.
    """
    total = schedule.draws // 2 if near else schedule.draws
    early = 0.25 if not near else 1.0
    refit = schedule.longest // 2
    while True:
        n = max(schedule.longest // 8, min(schedule.longest, state.done // 4))
        n = min(n, total - state.done)
        cap = 16 if state.done < total // 8 else 64 if state.done < total // 2 else 512
        reach = min(early * state.length.now, cap * state.step.now)
        out = machine.advance(state.precondition, state.step.now, reach, n)
        state.done += n
        state.history.append((out["x"], out["gradient"]))
        state.divergences = state.divergences + out["diverging"].sum(0)
        late = state.done >= total // 2
        state.diverged = state.diverged or (late and out["diverging"].mean() > DIVERGING)
        state.step = state.step.update(_acceptance(out), state.aim(schedule))
        if not late:
            _rescue(machine, out, rng)
        elif schedule.learn_length:
            _learn_length(state, out["x"])
        if refit <= state.done <= 0.8 * total:
            early = 1.0
            _refit(state, by_fisher=state.done < total // 2)
            refit = state.done + max(schedule.longest // 4, state.done // 3)
            if free and state.done >= TRY_AT * total:
                free = False
                _choose_metric(machine, state, schedule, out)
        fields = {"step_size": state.step.now, "divergences": state.divergences}
        report(Progress("warmup", state.done, total, fields))
        if state.done >= total:
            state.settled = _settled(state.history)
            if state.settled or total >= schedule.limit:
                state.thin = thinning(state) if schedule.learn_length else 1
                if state.thin > 1:
                    state.notes.append(
                        f"Chains move slowly: each draw is the last of {state.thin} transitions."
                    )
                return state
            total = min(2 * total, schedule.limit)


def _recent(state: Adapted) -> tuple[np.ndarray, np.ndarray]:
    """Draws and gradients of the later half of the warm-up: float[N, d] each."""
    kept, recent = 0, []
    for round_ in reversed(state.history):
        if kept >= state.done / 2:
            break
        recent.append(round_)
        kept += len(round_[0])
    draws, gradients = (np.concatenate(parts) for parts in zip(*recent, strict=True))
    return draws.reshape(-1, draws.shape[-1]), gradients.reshape(-1, draws.shape[-1])


def thinning(state: Adapted) -> int:
    """Transitions that make draws nearly independent, as the last quarter of all draws shows.

    1 up to an autocorrelation time of ``IDLE``, else enough for one of about ``BRISK``: with short
    chains it is the time between draws that R-hat sees, and where it is long gradients are cheap
    beside keeping every state.
    """
    draws = np.concatenate([draws for draws, _ in state.history[-len(state.history) // 4 :]])
    pooled, _ = _recent(state)
    time = autocorrelation_time(draws, pooled.mean(0), pooled.var(0))
    return 1 if time < IDLE else min(math.ceil(time / BRISK), MOST_THIN)


def _learn_length(state: Adapted, draws: np.ndarray) -> None:
    pooled, _ = _recent(state)
    state.length = state.length.update(draws, pooled.mean(0), pooled.var(0))


def _refit(state: Adapted, by_fisher: bool) -> None:
    recent = _recent(state)
    state.learnt = estimate(state.learnt, *recent, by_fisher)
    if state.flat is not None:
        state.flat = uncorrelated(state.flat, *recent)
    state.step = state.step.restart()


def _choose_metric(
    machine: Machine, state: Adapted, schedule: Schedule, out: dict[str, np.ndarray]
) -> None:
    """Try a diagonal metric beside the dense one if the last round, ``out``, was poor."""
    draws, gradients = _recent(state)
    moments = draws.mean(0), draws.var(0)
    if not isinstance(state.learnt, Dense) or not in_trouble(out, *moments):
        return
    flat = uncorrelated(state.learnt, draws, gradients)

    def advance(metric: Preconditioner, step: float, length: float, n: int) -> dict[str, Any]:
        out = machine.advance(metric, step, length, n)
        state.history.append((out["x"], out["gradient"]))
        return out

    def tune(step: StepSize, out: dict[str, np.ndarray]) -> StepSize:
        return step.update(_acceptance(out), state.aim(schedule))

    now = Candidate(False, state.step, state.length.now)
    rounds = schedule.longest // 4, schedule.longest
    best = try_metrics(advance, tune, (state.learnt, flat), now, moments, rounds, schedule.apart)
    state.step = best.step
    if best.diagonal:
        state.notes.append("A diagonal metric was tried and serves better than the dense one.")
        state.flat, state.length = flat, Length(best.length, best.length)


def _acceptance(out: dict[str, np.ndarray]) -> float:
    """Harmonic mean over chains of their mean acceptance, so that stuck chains count."""
    per_chain = np.nan_to_num(out["acceptance_rate"]).mean(0)
    return float(1 / np.mean(1 / np.maximum(per_chain, 0.02)))


def _rescue(machine: Machine, out: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Replace chains whose log density lies far below the others' by copies of those."""
    level = np.nan_to_num(np.median(out["log_density"], axis=0), nan=-np.inf)
    middle = np.median(level)
    spread = 1.0 + 1.5 * np.median(np.abs(level - middle)) if np.isfinite(middle) else 1.0
    lost = ~(level >= middle - 6 * spread)
    if len(level) >= 8 and lost.any() and not lost.all():
        source = np.arange(len(level))
        source[lost] = rng.choice(np.flatnonzero(~lost), lost.sum())
        machine.copy(source)


def _settled(history: list[tuple[np.ndarray, np.ndarray]]) -> bool:
    """Whether the last quarter's pooled means agree with the quarter's before, and chains mix."""
    draws = np.concatenate([draws for draws, _ in history])
    quarter = len(draws) // 4
    last, before = draws[-quarter:], draws[-2 * quarter : -quarter]
    sd = np.sqrt(last.reshape(-1, draws.shape[-1]).var(0)) + 1e-300
    drift = np.abs(last.mean((0, 1)) - before.mean((0, 1))) / sd
    within = last.var(0).mean(0) + 1e-300
    between = last.mean(0).var(0)
    return bool((drift < 0.3).all() and (between < 0.5 * within).all())
