"""An engine that solves models: evidence, draws and refusals against closed forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from ppcore.contract import Density, ProperlyWeighted
from ppcore.errors import UnsupportedError
from ppcore.testing.betting import Bet
from ppcore.testing.checks.base import Check
from ppcore.testing.checks.goodness import metropolis
from ppcore.testing.models import FINITE, CheckModel, feature_scale, pool, simulate
from ppcore.testing.models.declared import (
    DECLARED,
    declared_target,
    hidden_chain_target,
    series_target,
)
from ppcore.testing.result import Finding
from ppcore.testing.session import BATCH, Session, take

DATA_SETS = 3
RUNS = 24
SERIES = "state_space"
TOLERANCE = 1e-9
CHAIN = "finite_hidden_chain"


@dataclass(frozen=True)
class Posterior:
    """The log density of one target, as the goodness check wants it."""

    target: Any

    def log_prob(self, x: Any) -> Any:
        return self.target.log_density(x)


def run(session: Session) -> Iterator[Finding]:
    """log p(evidence) equals the closed form on three data sets of each conjugate, linear Gaussian,
    finite or bounded model, to 1e-9 or three times the error that the solution states; what the
    engine cannot solve raises :class:`ppcore.errors.UnsupportedError`, and something it can."""
    solved = 0
    for name in DECLARED:
        model = _model(name)
        if model.log_evidence is None:
            continue
        try:
            solutions = [solution for solution, _ in _solutions(session, model)]
        except UnsupportedError as error:
            yield _refused(name, error)
            continue
        solved += 1
        truths = _truths(model, _data(session, model))
        gaps = [_gap(s, truth) for s, truth in zip(solutions, truths, strict=True)]
        yield _evidence(name, max(gaps, key=lambda gap: gap[0] / gap[1]))
    try:
        solution = session.subject.solver.solve(hidden_chain_target())
    except UnsupportedError as error:
        yield _refused(CHAIN, error)
    else:
        solved += 1
        yield _evidence(CHAIN, _gap(solution, jax.nn.logsumexp(FINITE[CHAIN]().log_gamma)))
    if not solved:
        yield Finding("-", False, "none of the models was solved: nothing can be said.")


def run_draws(session: Session) -> Iterator[Finding]:
    """Draws are left alone by a kernel that is exact for the posterior density; on the finite
    model, states come up with their probabilities."""
    for name in DECLARED:
        try:
            yield _draws(session, _model(name))
        except UnsupportedError as error:
            yield _refused(name, error)
    try:
        yield _finite_draws(session)
    except UnsupportedError as error:
        yield _refused(CHAIN, error)


def run_weighted(session: Session) -> Iterator[Finding]:
    """E[Ẑ] = Z on a linear Gaussian chain, by a t test over data sets; only near Z (within 5 %)
    without a promise on the evidence."""
    contract, model = session.subject.contract, _model(SERIES)
    assert isinstance(contract, ProperlyWeighted)
    keys = jax.random.split(session.key("series"), RUNS)
    _, targets = simulate(model, keys)
    truths, ratios = _truths(model, targets), []
    for i in range(RUNS):
        target = take(targets, model, i)
        solution = session.subject.solver.solve(series_target(np.asarray(target.y)))
        draws = solution.sample(session.key("filter", i), 8)
        if not all(np.all(np.isfinite(v)) for v in draws.values()):
            yield Finding(SERIES, False, "a draw is not finite.", np.inf)
            return
        ratios.append(np.exp(float(solution.log_evidence) - truths[i]))
    mean, error = np.mean(ratios), np.std(ratios, ddof=1) / np.sqrt(RUNS)
    slack = 0.0 if contract.unbiased_evidence else 0.05
    seen = float(stats.t.isf(0.5 * session.alpha, RUNS - 1) * error + slack)
    yield Finding(
        SERIES,
        bool(abs(mean - 1.0) <= seen),
        f"mean Ẑ/Z = {mean:.4f} over {RUNS} data sets; a relative bias of {seen:.3f} would have "
        "been rejected",
    )


@lru_cache(maxsize=32)
def _model(name: str) -> CheckModel:
    """The check model of that name; all share their compiled programs."""
    return pool(tuple(DECLARED))[name]


def _gap(solution: Any, truth: Any) -> tuple[float, float]:
    """How far the log evidence is off, and how far it may be."""
    stated = float(getattr(solution, "log_evidence_error", 0.0) or 0.0)
    want = float(truth)
    allowed = max(TOLERANCE * max(1.0, abs(want)), 3.0 * stated)
    return abs(float(solution.log_evidence) - want), allowed


def _refused(name: str, error: UnsupportedError) -> Finding:
    said = str(error).strip()
    return Finding(name, bool(said), "refused with a reason" if said else "no reason given.")


def _data(session: Session, model: CheckModel) -> Any:
    """A batch of targets given data sets drawn from the joint."""
    return simulate(model, jax.random.split(session.key("solved", model.name), DATA_SETS))[1]


def _truths(model: CheckModel, targets: Any) -> Any:
    """log Z of each target of a batch, by one program."""
    assert model.log_evidence is not None
    return np.asarray(jax.jit(jax.vmap(model.log_evidence, (model.axes,)))(targets))


def _solutions(session: Session, model: CheckModel) -> Iterator[tuple[Any, Any]]:
    """``(solution, target)`` for data sets drawn from the joint."""
    declared, targets = DECLARED[model.name], _data(session, model)
    for i in range(DATA_SETS):
        target = take(targets, model, i)
        evidence = declared.evidence(np.asarray(target.y))
        yield session.subject.solver.solve(declared_target(declared.declare, evidence)), target


def _evidence(name: str, gap: tuple[float, float]) -> Finding:
    off, allowed = gap
    return Finding(name, off <= allowed, f"log evidence off by {off:.1e} (allowed {allowed:.0e})")


def _draws(session: Session, model: CheckModel) -> Finding:
    declared = DECLARED[model.name]
    solution, target = next(_solutions(session, model))
    scale, alpha = feature_scale(model), _alpha(session)
    features = session.jit(jax.vmap(lambda x: scale(model.raw_features(x, target))))
    move = session.jit(lambda key, x, sd: metropolis(Posterior(target), key, x, sd))
    bet = Bet.start(len(model.feature_names))
    for batch in range(session.batches):
        k_draw, k_move = jax.random.split(session.key("draws", model.name, batch))
        x = jnp.asarray(declared.x(solution.sample(k_draw, BATCH)))
        moved = move(k_move, x, jnp.std(x, axis=0))
        d = np.asarray(features(moved) - features(x))
        if not np.all(np.isfinite(d)):
            return Finding(model.name, False, "a draw or its log density is not finite.", np.inf)
        bet = bet.update(d)
        if bet.rejects(alpha):
            return Finding(
                model.name,
                False,
                f"draws drift by {bet.mean[bet.worst]:+.3f} in "
                f"{model.feature_names[bet.worst]} under a kernel that is exact for the posterior "
                f"({bet.n} draws, log e-value {bet.peak:.1f}).",
                bet.peak,
            )
    resolution = float(np.max(bet.resolution(alpha) / np.asarray(scale.spread)))
    message = f"no drift of {bet.n} draws above {resolution:.3f} sd"
    return Finding(model.name, True, message, bet.peak, resolution)


def _finite_draws(session: Session) -> Finding:
    table = FINITE[CHAIN]()
    solution = session.subject.solver.solve(hidden_chain_target())
    pi = np.asarray(jax.nn.softmax(table.log_gamma))
    draws = solution.sample(session.key("draws", CHAIN), BATCH * session.batches)
    x = np.stack([np.asarray(draws[f"z{t}"]) for t in range(3)], axis=1)
    codes = np.asarray(table.code(jnp.asarray(x, float)))
    bet = Bet.start(len(pi)).update((codes[:, None] == np.arange(len(pi))) - pi)
    s = bet.worst
    if bet.rejects(_alpha(session)):
        share = pi[s] + bet.mean[s]
        message = f"state {s} has a share of {share:.3f} of the draws and {pi[s]:.3f} of the law."
        return Finding(CHAIN, False, message, bet.peak)
    return Finding(
        CHAIN, True, f"shares of {len(pi)} states as of the law, {bet.n} draws", bet.peak
    )


def _alpha(session: Session) -> float:
    """One test's error, shared by the models that are drawn from."""
    return session.alpha / (1 + len(DECLARED))


SOLVED = Check(
    name="solved",
    law="the evidence is exact; what cannot be solved is refused",
    applies=lambda s: s.solver is not None and isinstance(s.contract, Density),
    run=run,
)
DRAWS = Check(
    name="solved_draws",
    law="draws follow the posterior",
    applies=lambda s: s.solver is not None and isinstance(s.contract, Density),
    run=run_draws,
    statistical=True,
)
WEIGHTED = Check(
    name="solved_weighted",
    law="E[Ẑ] = Z for a model with one scan",
    applies=lambda s: s.solver is not None and isinstance(s.contract, ProperlyWeighted),
    run=run_weighted,
    statistical=True,
)
