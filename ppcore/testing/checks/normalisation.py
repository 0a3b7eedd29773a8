"""∫ q = 1, from both sides."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Density
from ppcore.testing.checks.base import Check
from ppcore.testing.result import Finding
from ppcore.testing.session import BATCH, Session

STAKES = np.array([0.01, 0.03, 0.1, 0.3, 0.9])


def run(session: Session) -> Iterator[Finding]:
    """Bet that E_q[g/q] > 1 and that E_g[q/g] > 1, for a Gaussian g fitted to other samples.

    Both means are one when q is normalised. The ratios are nonnegative, so wealth 1 + λ(R − 1),
    0 ≤ λ ≤ 1, is a martingale however heavy their tails; the first bet finds ∫q < 1, the second
    ∫q > 1.
    """
    density = session.subject.density
    pilot = density.sample(session.key("normal-pilot"), 1024)
    mean, sd = jnp.mean(pilot, axis=0), jnp.std(pilot, axis=0) + 1e-6
    n = BATCH * session.batches
    x = density.sample(session.key("normal-q"), n)
    narrow, wide = 0.7 * sd, 1.3 * sd
    z = mean + wide * jax.random.normal(session.key("normal-g"), (n, int(density.dim)))
    log_q = session.jit(jax.vmap(density.log_prob))
    logs = (_gauss(x, mean, narrow) - log_q(x), log_q(z) - _gauss(z, mean, wide))
    sides = ("∫q < 1", "∫q > 1")
    for side, log_ratio in zip(sides, logs, strict=True):
        ratio = np.exp(np.asarray(log_ratio))
        if np.any(np.isnan(ratio)):
            yield Finding("-", False, "log_prob is NaN at a sample.", np.inf)
            return
        wealth = np.cumsum(np.log1p(STAKES * (ratio[:, None] - 1.0)), axis=0)
        peak = float(np.max(np.logaddexp.reduce(wealth, axis=1)) - np.log(len(STAKES)))
        if peak >= -np.log(0.5 * session.alpha):
            yield Finding(
                "-",
                False,
                f"{side}: the mean ratio is {ratio.mean():.3f} instead of 1 over {n} draws (log "
                f"e-value {peak:.1f}).",
                peak,
            )
            return
    yield Finding("-", True, f"∫q = 1 on both sides, {n} draws each", peak)


def _gauss(x: Any, mean: Any, sd: Any) -> Any:
    return jax.scipy.stats.norm.logpdf(x, mean, sd).sum(-1)


CHECK = Check(
    name="normalisation",
    law="∫ q = 1",
    applies=lambda s: s.density is not None and isinstance(s.contract, Density),
    run=run,
    statistical=True,
)
