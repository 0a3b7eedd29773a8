"""π(dx) K(x, dy) is symmetric: stationary pairs may be swapped."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppcore.contract import Invariant
from ppcore.testing.betting import Bet
from ppcore.testing.checks.base import Check
from ppcore.testing.models import CheckModel
from ppcore.testing.result import Finding
from ppcore.testing.session import STEPS, Session

AFTER = (1, 5)
_AT = [STEPS.index(k) for k in AFTER]


def run(session: Session) -> Iterator[Finding]:
    """Bet against E[F_a(θ₀)F_b(θ_K) − F_b(θ₀)F_a(θ_K)] = 0 for all pairs of features, K ∈ {1, 5}.

    Powers of a reversible kernel are reversible, so (θ₀, θ_K) is exchangeable given the data.
    """
    for model in session.models:
        yield _model(session, model)


def _model(session: Session, model: CheckModel) -> Finding:
    a, b = np.triu_indices(len(model.feature_names), k=1)
    bet = Bet.start(len(a) * len(AFTER))
    for paths in session.each_batch(model):
        start, steps = paths.start[:, None, :], paths.steps[:, _AT]
        d = 2.0 * (start[..., a] * steps[..., b] - start[..., b] * steps[..., a])
        if not np.all(np.isfinite(d)):
            return Finding(model.name, False, "a feature of the path is not finite.", np.inf)
        bet = bet.update(d.reshape(len(d), -1))
        if bet.rejects(session.alpha):
            break
    if bet.rejects(session.alpha):
        step, pair = divmod(bet.worst, len(a))
        first, second = model.feature_names[a[pair]], model.feature_names[b[pair]]
        return Finding(
            model.name, False,
            f"({first} before, {second} after {AFTER[step]} steps) differs from its mirror image "
            f"over {bet.n} joint draws (log e-value {bet.peak:.1f}, allowed "
            f"{-np.log(session.alpha):.1f}): not reversible.",
            bet.peak,
        )
    return Finding(
        model.name, True, f"no asymmetry in {len(a)} pairs of features, {bet.n} joint draws",
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
