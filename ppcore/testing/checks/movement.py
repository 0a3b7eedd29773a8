"""An irreducible chain moves every coordinate, and crosses its middle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ppcore.contract import Invariant
from ppcore.testing.checks.base import Check
from ppcore.testing.models import CheckModel
from ppcore.testing.result import Finding
from ppcore.testing.session import STEPS, Session

MOVED = 0.2
CROSSED = 0.01


def run(session: Session) -> Iterator[Finding]:
    """After 20 steps each coordinate has moved in ≥ 20 % and crossed its prior median in ≥ 1 %
    of the joint draws. Thresholds of use rather than tests of a null: a chain that meets them
    by a hair is no good either."""
    for model in session.models:
        yield _model(session, model)


def _model(session: Session, model: CheckModel) -> Finding:
    paths = session.paths(model, 0)
    moved = np.mean(paths.x_start != paths.x_end, axis=0)
    start, end = paths.start[:, : model.dim], paths.steps[:, STEPS.index(20), : model.dim]
    crossed = np.mean(np.sign(start) != np.sign(end), axis=0)
    for j in range(model.dim):
        if moved[j] < MOVED:
            return Finding(
                model.name,
                False,
                f"coordinate {j} moved in only {moved[j]:.1%} of the chains within 20 steps "
                f"(at least {MOVED:.0%} expected of an irreducible chain).",
            )
        if crossed[j] < CROSSED:
            return Finding(
                model.name,
                False,
                f"coordinate {j} crossed its median in only {crossed[j]:.2%} of the chains "
                f"within 20 steps (at least {CROSSED:.0%} expected of an irreducible chain).",
            )
    return Finding(model.name, True, f"every coordinate moved (least: {moved.min():.0%})")


CHECK = Check(
    name="movement",
    law="the chain reaches every part of the target",
    applies=lambda s: (
        s.engine is not None and isinstance(s.contract, Invariant) and s.contract.irreducible
    ),
    run=run,
)
