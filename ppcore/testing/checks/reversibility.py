"""π(dx) K(x, dy) is symmetric: stationary pairs may be swapped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ppcore.contract import Invariant
from ppcore.testing.betting import Bet
from ppcore.testing.checks.base import Check
from ppcore.testing.models import CheckModel
from ppcore.testing.result import Finding
from ppcore.testing.session import STEPS, Paths, Session

PAIRS = 5
_AT = [STEPS.index(k) for k in range(1, PAIRS + 1)]


def run(session: Session) -> Iterator[Finding]:
    """Bet against E[F_a(θ_t)F_b(θ_{t+1}) − F_b(θ_t)F_a(θ_{t+1})] = 0 for all pairs of features.

    A stationary step of a reversible kernel is exchangeable given the data. Each replicate gives
    the mean over its first five steps: what differs between data sets telescopes away.
    """
    for model in session.models:
        yield _model(session, model)


def antisymmetric(paths: Paths) -> Any:
    """2 (F_a F_b′ − F_b F_a′), averaged over five steps; float[R, F(F − 1)/2]."""
    a, b = np.triu_indices(paths.start.shape[1], k=1)
    path = np.concatenate([paths.start[:, None], paths.steps[:, _AT]], axis=1)
    old, new = path[:, :-1], path[:, 1:]
    return 2.0 * (old[..., a] * new[..., b] - old[..., b] * new[..., a]).mean(axis=1)


def _model(session: Session, model: CheckModel) -> Finding:
    a, b = np.triu_indices(len(model.feature_names), k=1)
    bet = Bet.start(len(a))
    for paths in session.each_batch(model):
        d = antisymmetric(paths)
        if not np.all(np.isfinite(d)):
            return Finding(model.name, False, "a feature of the path is not finite.", np.inf)
        bet = bet.update(d)
        if bet.rejects(session.alpha):
            break
    if bet.rejects(session.alpha):
        first, second = model.feature_names[a[bet.worst]], model.feature_names[b[bet.worst]]
        return Finding(
            model.name,
            False,
            f"({first} before, {second} after a step) differs from its mirror image "
            f"over {bet.n} joint draws (log e-value {bet.peak:.1f}, allowed "
            f"{-np.log(session.alpha):.1f}): not reversible.",
            bet.peak,
        )
    return Finding(
        model.name,
        True,
        f"no asymmetry in {len(a)} pairs of features, {bet.n} joint draws",
        bet.peak,
    )


CHECK = Check(
    name="reversibility",
    law="π(dx) K(x, dy) = π(dy) K(y, dx)",
    applies=lambda s: (
        s.engine is not None and isinstance(s.contract, Invariant) and s.contract.reversible
    ),
    run=run,
    statistical=True,
)
