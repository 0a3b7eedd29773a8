"""The warm-up that the engines share: rounds of draws with adaptation on the host in between."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import jax
import numpy as np

from ppcore.engine import Progress, Report
from ppcore.kernel import StepRule
from ppcore.tuning.length import Length, autocorrelation_time
from ppcore.tuning.metric import choose, estimate, from_factor
from ppcore.tuning.noise import spawned
from ppcore.tuning.preconditioner import Dense, Preconditioner, identity
from ppcore.tuning.search import search
from ppcore.tuning.start import find
from ppcore.tuning.step_size import Steps, StepSize
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
        """log γ and its gradient (None without one) at each row of ``x``: float[N, d]."""
        ...

    def place(self, precondition: Preconditioner, x: np.ndarray) -> None:
        """Put the chains at ``x``: float[chains, d]."""
        ...

    def advance(
        self, precondition: Preconditioner, step: Any, length: float, n: int
    ) -> dict[str, np.ndarray]:
        """``n`` draws of every chain: x, gradient (where there is one): float[n, chains, d];
        log_density, acceptance_rate, diverging, n_gradients: [n, chains]."""
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
    target_accept : float or None
        None: the step size stays as it is.
    length : float
        First trajectory length, in whitened units (ignored by engines that choose their own).
    learn_length : bool
        Whether to look for a better one.
    apart : float
        The condition number of the correlations above which a diagonal metric is not tried.
    most_thin : int
        The most transitions that may make one draw.
    gradient : bool
        Whether the machine has gradients; without, starts are searched for by log γ alone and the
        preconditioner is the covariance of the draws.
    order : float
        See :class:`ppcore.tuning.step_size.StepSize`.
    step : float or None
        The first step size; by default ½ d^(−1/2p), p the ``order``.
    rules : tuple of StepRule
        For a kernel with several step sizes, instead of ``target_accept``, ``order``, ``step``.
    """

    draws: int
    limit: int
    longest: int
    target_accept: float | None
    length: float
    learn_length: bool
    apart: float
    most_thin: int = 1
    gradient: bool = True
    order: float = 2.0
    step: float | None = None
    rules: tuple[StepRule, ...] = ()

    def first_step(self, dim: int) -> StepSize | Steps:
        """The step size to begin with, or several, in ``dim`` dimensions."""

        def made(order: float, first: float | None) -> StepSize:
            usual = 0.5 * dim ** (-0.5 / order)
            return StepSize(math.log(usual if first is None else first), order=order)

        if self.rules:
            return Steps(tuple(made(rule.error_order, rule.first) for rule in self.rules))
        return made(self.order, self.step)


@dataclass
class Adapted:
    """The state of a warm-up; its end is what the engine freezes.

    ``step`` is a :class:`StepSize` or :class:`Steps`. ``precondition`` is a dense metric's ``flat``
    counterpart where that has proved better.
    """

    learnt: Preconditioner
    step: Any
    length: Length
    flat: Dense | None = None
    diverged: bool = False
    done: int = 0
    settled: bool = False
    thin: int = 1
    divergences: Any = 0
    history: list[tuple[np.ndarray, np.ndarray | None]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def precondition(self) -> Preconditioner:
        return self.learnt if self.flat is None else self.flat

    def tune(self, schedule: Schedule, out: dict[str, np.ndarray], step: Any) -> Any:
        """``step`` after a round; the acceptance to reach is half way to 1 once chains have
        diverged late."""

        def aim(wanted: float | None) -> float | None:
            return (1 + wanted) / 2 if self.diverged and wanted is not None else wanted

        if schedule.rules:
            rates = np.moveaxis(out["acceptance_rates"], -1, 0)
            aims = tuple(aim(rule.target_accept) for rule in schedule.rules)
            return step.update(np.array([_acceptance(each) for each in rates]), aims)
        wanted = aim(schedule.target_accept)
        return step if wanted is None else step.update(_acceptance(out["acceptance_rate"]), wanted)


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
    look = find if schedule.gradient else search
    start = look(partial(machine.evaluate, precondition), rng, reference_key, target, chains)
    precondition = from_factor(precondition, start.root())
    machine.place(precondition, start.x)
    step = schedule.first_step(target.dim)
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
        least = float(np.min(state.step.now))
        reach = min(early * state.length.now, cap * least)
        out = machine.advance(state.precondition, state.step.now, reach, n)
        state.done += n
        state.history.append((out["x"], out.get("gradient")))
        state.divergences = state.divergences + out["diverging"].sum(0)
        late = state.done >= total // 2
        state.diverged = state.diverged or (late and out["diverging"].mean() > DIVERGING)
        state.step = state.tune(schedule, out, state.step)
        if not late:
            _rescue(machine, out, rng)
        elif schedule.learn_length:
            _learn_length(state, out["x"])
        if refit <= state.done <= 0.8 * total:
            early = 1.0
            _refit(state, by_fisher=state.done < total // 2)
            refit = state.done + max(schedule.longest // 4, state.done // 3)
            if free and "gradient" in out and state.done >= TRY_AT * total:
                free = False
                _choose_metric(machine, state, schedule, out)
        fields = {"step_size": least, "divergences": state.divergences}
        report(Progress("warmup", state.done, total, fields))
        if state.done >= total:
            state.settled = _settled(state.history)
            if state.settled or total >= schedule.limit:
                state.thin = thinning(state, schedule.most_thin)
                if state.thin > 1:
                    state.notes.append(
                        f"Chains move slowly: each draw is the last of {state.thin} transitions."
                    )
                return state
            total = min(2 * total, schedule.limit)


def _recent(state: Adapted) -> tuple[np.ndarray, np.ndarray | None]:
    """Draws and gradients of the later half of the warm-up: float[N, d] each."""
    draws: list[np.ndarray] = []
    gradients: list[np.ndarray] = []
    kept = 0
    for x, gradient in reversed(state.history):
        if kept >= state.done / 2:
            break
        draws.append(x.reshape(-1, x.shape[-1]))
        if gradient is not None:
            gradients.append(gradient.reshape(-1, x.shape[-1]))
        kept += len(x)
    return np.concatenate(draws), np.concatenate(gradients) if gradients else None


def thinning(state: Adapted, most: int) -> int:
    """Transitions that make draws nearly independent, as the last quarter of all draws shows.

    1 up to an autocorrelation time of ``IDLE``, else enough for one of about ``BRISK``, at most
    ``most``: with short chains it is the time between draws that R-hat sees, and where it is long
    gradients are cheap beside keeping every state.
    """
    if most <= 1:
        return 1
    draws = np.concatenate([draws for draws, _ in state.history[-len(state.history) // 4 :]])
    pooled, _ = _recent(state)
    time = autocorrelation_time(draws, pooled.mean(0), pooled.var(0))
    return 1 if time < IDLE else min(math.ceil(time / BRISK), most)


def _learn_length(state: Adapted, draws: np.ndarray) -> None:
    pooled, _ = _recent(state)
    state.length = state.length.update(draws, pooled.mean(0), pooled.var(0))


def _refit(state: Adapted, by_fisher: bool) -> None:
    recent = _recent(state)
    state.learnt = estimate(state.learnt, *recent, by_fisher)
    if state.flat is not None and recent[1] is not None:
        state.flat = uncorrelated(state.flat, recent[0], recent[1])
    state.step = state.step.restart()


def _choose_metric(
    machine: Machine, state: Adapted, schedule: Schedule, out: dict[str, np.ndarray]
) -> None:
    """Try a diagonal metric beside the dense one if the last round, ``out``, was poor."""
    draws, gradients = _recent(state)
    moments = draws.mean(0), draws.var(0)
    if gradients is None or not isinstance(state.learnt, Dense) or not in_trouble(out, *moments):
        return
    flat = uncorrelated(state.learnt, draws, gradients)

    def advance(metric: Preconditioner, step: float, length: float, n: int) -> dict[str, Any]:
        out = machine.advance(metric, step, length, n)
        state.history.append((out["x"], out["gradient"]))
        return out

    def tune(step: StepSize, out: dict[str, np.ndarray]) -> StepSize:
        return state.tune(schedule, out, step)

    now = Candidate(False, state.step, state.length.now)
    rounds = schedule.longest // 4, schedule.longest
    best = try_metrics(advance, tune, (state.learnt, flat), now, moments, rounds, schedule.apart)
    state.step = best.step
    if best.diagonal:
        state.notes.append("A diagonal metric was tried and serves better than the dense one.")
        state.flat, state.length = flat, Length(best.length, best.length)


def _acceptance(rates: np.ndarray) -> float:
    """Harmonic mean over chains of their mean acceptance, so that stuck chains count.

    ``rates``: float[n, chains]; draws with NaN do not count, NaN if there are no others.
    """
    counted = np.isfinite(rates)
    some = counted.any(0)
    if not some.any():
        return math.nan
    per_chain = np.where(counted, rates, 0.0).sum(0)[some] / counted.sum(0)[some]
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


def _settled(history: list[tuple[np.ndarray, np.ndarray | None]]) -> bool:
    """Whether the last quarter's pooled means agree with the quarter's before, and chains mix."""
    draws = np.concatenate([draws for draws, _ in history])
    quarter = len(draws) // 4
    last, before = draws[-quarter:], draws[-2 * quarter : -quarter]
    sd = np.sqrt(last.reshape(-1, draws.shape[-1]).var(0)) + 1e-300
    drift = np.abs(last.mean((0, 1)) - before.mean((0, 1))) / sd
    within = last.var(0).mean(0) + 1e-300
    between = last.mean(0).var(0)
    return bool((drift < 0.3).all() and (between < 0.5 * within).all())
