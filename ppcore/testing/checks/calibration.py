"""Simulation-based calibration: the parameter's rank among posterior draws is uniform."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Amortised
from ppcore.testing.betting import Bet
from ppcore.testing.checks.base import Check
from ppcore.testing.checks.rank import uniform_scores
from ppcore.testing.models import CONJUGATE, CheckModel, feature_scale
from ppcore.testing.result import Finding
from ppcore.testing.session import BATCH, Session

DRAWS = 19


def run(session: Session) -> Iterator[Finding]:
    """Rank F(θ₀, y) among 19 draws of the claimed posterior, over the joint of (θ₀, y).

    Features include the log likelihood, without which a posterior that ignores the data passes.
    The second cosine of the rank is large at the middle and small at both ends, so the same bet
    sees wrong coverage. Sources: Talts et al. (2018), arXiv:1804.06788; Modrák et al. (2023),
    arXiv:2211.02383.
    """
    yield bet_on_ranks(session, CONJUGATE, "joint", "calibration")


def run_at_data(session: Session) -> Iterator[Finding]:
    """The same with everything conditioned on one observed data set.

    θ′ is drawn from the claimed posterior, new data y′ at θ′, and θ′ ranked among draws given
    both data sets: an exact posterior stays calibrated there. Source: Säilynoja et al. (2025),
    arXiv:2502.03279.
    """
    yield bet_on_ranks(session, CONJUGATE, "given data", "posterior calibration")


def bet_on_ranks(session: Session, model: CheckModel, mode: str, label: str) -> Finding:
    """Bet against uniform ranks; ``mode`` is "joint" or "given data"."""
    amortiser, scale = session.subject.amortiser, feature_scale(model)
    observed = session.typical(model)

    def ranks(key: Any) -> Any:
        k_joint, k_draw, k_more = jax.random.split(key, 3)
        if mode == "joint":
            x, target = model.simulate_joint(k_joint)
        else:
            assert model.extend is not None
            x = amortiser.draw(k_joint, observed, 1)[0]
            target = model.extend(k_more, observed, x)
        draws = amortiser.draw(k_draw, target, DRAWS)
        f = jax.vmap(lambda v: scale(model.raw_features(v, target)))
        here, there = f(x[None])[0], f(draws)
        return jnp.sum(there < here, axis=0), jnp.sum(there == here, axis=0), here

    run_all = jax.jit(jax.vmap(ranks))
    rng = np.random.default_rng([session.seed, 11])
    bet = Bet.start(2 * len(model.feature_names))
    for batch in range(session.batches):
        keys = jax.random.split(session.key(label, batch), BATCH)
        below, tied, here = (np.asarray(v) for v in run_all(keys))
        if not np.all(np.isfinite(here)):
            return Finding(model.name, False, "a posterior draw is not finite.", np.inf)
        rank = below + np.floor(rng.random(tied.shape) * (tied + 1))
        bet = bet.update(uniform_scores(rank, DRAWS + 1))
        if bet.rejects(session.alpha):
            feature = model.feature_names[bet.worst % len(model.feature_names)]
            return Finding(
                model.name,
                False,
                f"ranks of {feature} are not uniform over {bet.n} simulations (log e-value "
                f"{bet.peak:.1f}, allowed {-np.log(session.alpha):.1f}).",
                bet.peak,
            )
    resolution = float(np.max(bet.resolution(session.alpha)))
    return Finding(
        model.name,
        True,
        f"{mode}: ranks of {len(model.feature_names)} features uniform over {bet.n} simulations; "
        f"a cosine moment of {resolution:.3f} would have been rejected",
        bet.peak,
    )


CALIBRATION = Check(
    name="calibration",
    law="ranks over the joint are uniform",
    applies=lambda s: s.amortiser is not None and isinstance(s.contract, Amortised),
    run=run,
    statistical=True,
)
AT_DATA = Check(
    name="calibration_at_data",
    law="ranks given the observed data are uniform",
    applies=lambda s: s.amortiser is not None and isinstance(s.contract, Amortised),
    run=run_at_data,
    statistical=True,
)
