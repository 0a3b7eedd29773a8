"""πK = π, by pairs: a joint draw (θ₀, y), moved K steps, must stay a joint draw."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ppcore.contract import Invariant
from ppcore.testing.betting import Bet
from ppcore.testing.checks.base import Check
from ppcore.testing.models import CheckModel, feature_scale
from ppcore.testing.result import Finding
from ppcore.testing.session import STEPS, Paths, Session

AFTER = (1, 5, 20)
_AT = [STEPS.index(k) for k in AFTER]


def run(session: Session) -> Iterator[Finding]:
    """Bet against E[F(θ_K, y) − F(θ₀, y)] = 0 for K ∈ {1, 5, 20} and every feature.

    θ₀ | y is an exact posterior draw, so an invariant kernel leaves the mean of every bounded
    feature alone, exactly and at any number of replicates; features include θ, θ², |θ|, the log
    likelihood, the log prior and products of θ with the data.
    """
    for model in session.models:
        yield _model(session, model)


def differences(paths: Paths) -> Any:
    """F(θ_K, y) − F(θ₀, y) for K ∈ {1, 5, 20}; float[R, 3F]."""
    return (paths.steps[:, _AT] - paths.start[:, None]).reshape(len(paths.start), -1)


def _model(session: Session, model: CheckModel) -> Finding:
    names = [f"{f} after {k}" for k in AFTER for f in model.feature_names]
    bet = Bet.start(len(names))
    for paths in session.each_batch(model):
        d = differences(paths)
        if not np.all(np.isfinite(d)):
            return _not_finite(model, d, names)
        bet = bet.update(d)
        if bet.rejects(session.alpha):
            break
    spread = np.tile(np.asarray(feature_scale(model).spread), len(AFTER))
    worst = bet.worst
    if bet.rejects(session.alpha):
        shift = bet.mean[worst] / spread[worst]
        return Finding(
            model.name,
            False,
            f"the mean of {names[worst]} steps moved by {shift:+.3f} sd over {bet.n} joint draws "
            f"(log e-value {bet.peak:.1f}, allowed {-np.log(session.alpha):.1f}): the target is "
            "not invariant.",
            bet.peak,
        )
    resolution = float(np.max(bet.resolution(session.alpha) / spread))
    return Finding(
        model.name,
        True,
        f"no bias above {resolution:.3f} sd on {len(model.feature_names)} features after "
        f"{AFTER} steps, {bet.n} joint draws",
        bet.peak,
        resolution,
    )


def _not_finite(model: CheckModel, d: np.ndarray, names: list[str]) -> Finding:
    rows, columns = np.nonzero(~np.isfinite(d))
    return Finding(
        model.name,
        False,
        f"{names[columns[0]]} steps is not finite for {len(set(rows))} of {len(d)} joint draws "
        f"(first: replicate {rows[0]}): the chain left the support or returned NaN.",
        np.inf,
    )


CHECK = Check(
    name="invariance",
    law="πK = π",
    applies=lambda s: s.engine is not None and isinstance(s.contract, Invariant),
    run=run,
    statistical=True,
)
