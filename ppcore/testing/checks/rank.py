"""The rank of a joint draw within a path that runs through it in both directions of time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ppcore.contract import Invariant
from ppcore.testing.betting import Bet
from ppcore.testing.checks.base import Check
from ppcore.testing.models import CheckModel
from ppcore.testing.result import Finding
from ppcore.testing.session import Paths, Session

SPAN = 4
TIE = 1e-12


def run(session: Session) -> Iterator[Finding]:
    """Put θ₀ at a uniform place M of a path of five states; its rank must be uniform.

    A reversible invariant kernel run twice from θ₀ gives a stationary path around it: M states
    before and 4 − M after. Ties, which rejections make on both sides, are broken at random.
    Source: Gandy and Scott (2020), "Unit testing for MCMC and other Monte Carlo methods",
    arXiv:2001.06465.
    """
    for model in session.models:
        yield _model(session, model)


def uniform_scores(rank: Any, size: int) -> Any:
    """cos(πk(r + ½)/n), k = 1, 2: mean zero when r is uniform on 0 … n − 1, within [−1, 1]."""
    angle = np.pi * (np.asarray(rank) + 0.5) / size
    return np.concatenate([np.cos(angle), np.cos(2.0 * angle)], axis=-1)


def scores(after: Paths, before: Paths, rng: np.random.Generator) -> Any:
    """Cosines of the starting point's rank on each path; float[R, 2F]."""
    here = after.start
    place = rng.integers(0, SPAN + 1, len(here))
    index = np.arange(SPAN)
    used = np.concatenate([index < SPAN - place[:, None], index < place[:, None]], axis=1)
    gap = np.concatenate([after.steps[:, :SPAN], before.steps[:, :SPAN]], axis=1) - here[:, None]
    below = np.sum((gap < -TIE) & used[:, :, None], axis=1)
    tied = np.sum((np.abs(gap) <= TIE) & used[:, :, None], axis=1)
    rank = below + np.floor(rng.random(tied.shape) * (tied + 1))
    return uniform_scores(rank, SPAN + 1)


def _model(session: Session, model: CheckModel) -> Finding:
    bet = Bet.start(2 * len(model.feature_names))
    rng = np.random.default_rng([session.seed, 7])
    for batch in range(max(1, session.batches // 2)):
        after, before = session.paths(model, batch), session.paths(model, batch, 1)
        bet = bet.update(scores(after, before, rng))
        if bet.rejects(session.alpha):
            break
    if bet.rejects(session.alpha):
        feature = model.feature_names[bet.worst % len(model.feature_names)]
        return Finding(
            model.name,
            False,
            f"the rank of {feature} of the starting point among its neighbours in time is not "
            f"uniform over {bet.n} joint draws (log e-value {bet.peak:.1f}, allowed "
            f"{-np.log(session.alpha):.1f}).",
            bet.peak,
        )
    return Finding(model.name, True, f"ranks uniform over {bet.n} joint draws", bet.peak)


CHECK = Check(
    name="rank",
    law="a stationary reversible path looks the same from every state on it",
    applies=lambda s: (
        s.engine is not None and isinstance(s.contract, Invariant) and s.contract.reversible
    ),
    run=run,
    statistical=True,
)
