"""An engine that solves models: evidence, draws and refusals against answers in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.errors import UnsupportedError
from ppcore.testing.betting import Bet
from ppcore.testing.checks.base import Check
from ppcore.testing.checks.goodness import metropolis
from ppcore.testing.models import FINITE, CheckModel, check_model, feature_scale, simulate
from ppcore.testing.models.declared import DECLARED, declared_target, hidden_chain_target
from ppcore.testing.result import Finding
from ppcore.testing.session import BATCH, Session, take

DATA_SETS = 3
TOLERANCE = 1e-9
CHAIN = "finite_hidden_chain"


@dataclass(frozen=True)
class Posterior:
    """The log density of one target, as the goodness check wants it."""

    target: Any

    def log_prob(self, x: Any) -> Any:
        return self.target.log_density(x)


def run(session: Session) -> Iterator[Finding]:
    """log p(evidence) equals the closed form to 1e-9 on three data sets of each conjugate, linear
    Gaussian or finite model; draws are left alone by an exact kernel for the posterior density
    (finite: states come up with their probabilities); and models that no solver can take raise
    :class:`ppcore.errors.UnsupportedError` instead of giving a posterior."""
    for name, declared in DECLARED.items():
        if declared.x is None:
            yield _refusal(session, name)
        else:
            yield _conjugate(session, check_model(name))
    yield _finite(session)


def _conjugate(session: Session, model: CheckModel) -> Finding:
    declared, solver = DECLARED[model.name], session.subject.solver
    keys = jax.random.split(session.key("solved", model.name), DATA_SETS)
    _, targets = simulate(model, keys)
    assert model.log_evidence is not None and declared.x is not None
    for i in reversed(range(DATA_SETS)):
        target = take(targets, model, i)
        solution = solver.solve(
            declared_target(declared.declare, declared.evidence(np.asarray(target.y)))
        )
        want, got = float(model.log_evidence(target)), float(solution.log_evidence)
        if not abs(got - want) <= TOLERANCE * max(1.0, abs(want)):
            return Finding(model.name, False, f"log evidence {got:.12g}, but it is {want:.12g}.")
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
    return Finding(
        model.name,
        True,
        f"evidence to {TOLERANCE:.0e} on {DATA_SETS} data sets; no drift of {bet.n} draws above "
        f"{resolution:.3f} sd",
        bet.peak,
        resolution,
    )


def _finite(session: Session) -> Finding:
    table = FINITE[CHAIN]()
    solution = session.subject.solver.solve(hidden_chain_target())
    want, got = float(jax.nn.logsumexp(table.log_gamma)), float(solution.log_evidence)
    if not abs(got - want) <= TOLERANCE:
        return Finding(CHAIN, False, f"log evidence {got:.12g}, but it is {want:.12g}.")
    pi = np.asarray(jax.nn.softmax(table.log_gamma))
    draws = solution.sample(session.key("draws", CHAIN), BATCH * session.batches)
    x = np.stack([np.asarray(draws[f"z{t}"]) for t in range(3)], axis=1)
    codes = np.asarray(table.code(jnp.asarray(x, float)))
    bet = Bet.start(len(pi)).update((codes[:, None] == np.arange(len(pi))) - pi)
    if bet.rejects(_alpha(session)):
        s = bet.worst
        share = pi[s] + bet.mean[s]
        message = f"state {s} has a share of {share:.3f} of the draws and {pi[s]:.3f} of the law."
        return Finding(CHAIN, False, message, bet.peak)
    return Finding(
        CHAIN, True, f"evidence exact; shares of {len(pi)} states, {bet.n} draws", bet.peak
    )


def _refusal(session: Session, name: str) -> Finding:
    declared, model = DECLARED[name], check_model(name)
    _, targets = simulate(model, jax.random.split(session.key("refused", name), 2))
    y = np.asarray(take(targets, model, 0).y)
    try:
        session.subject.solver.solve(declared_target(declared.declare, declared.evidence(y)))
    except UnsupportedError as error:
        said = str(error).strip()
        return Finding(name, bool(said), "refused with a reason" if said else "no reason given.")
    return Finding(name, False, "a model without an exact solution was given a posterior.")


def _alpha(session: Session) -> float:
    """One test's error, shared by the models that are drawn from."""
    return session.alpha / (1 + sum(d.x is not None for d in DECLARED.values()))


CHECK = Check(
    name="solved",
    law="evidence and draws are those of the posterior; what cannot be solved is refused",
    applies=lambda s: s.solver is not None,
    run=run,
    statistical=True,
)
