"""Samples follow the stated log density: an exact kernel for it must leave them alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Density
from ppcore.testing.betting import Bet
from ppcore.testing.checks.base import Check
from ppcore.testing.result import Finding
from ppcore.testing.session import BATCH, Session

STEPS = 10
SCALES = (0.3, 1.0, 2.5)


def run(session: Session) -> Iterator[Finding]:
    """Bet against E[F(x_K) − F(x_0)] = 0, x_0 a sample and x_K ten Metropolis steps on.

    Random-walk Metropolis with log q is exactly invariant for q, so if samples follow q no
    bounded feature (x, x², |x|, log q) can move on average. Sees every shape error, and no
    constant factor: normalisation is a check of its own.
    """
    density = session.subject.density
    d = int(density.dim)
    sample = session.jit(lambda key: density.sample(key, BATCH))
    features = session.jit(lambda x: _raw(density, x))
    pilot = sample(session.key("pilot"))
    raw = features(pilot)
    centre, width = jnp.median(raw, axis=0), jnp.std(raw, axis=0) + 1e-6
    move = session.jit(lambda key, x: metropolis(density, key, x, jnp.std(pilot, axis=0) + 1e-6))
    bet = Bet.start(3 * d + 1)
    for batch in range(session.batches):
        x = sample(session.key("sample", batch))
        moved = move(session.key("move", batch), x)
        f = [np.asarray(0.5 * jnp.tanh(0.5 * (features(v) - centre) / width)) for v in (x, moved)]
        if not np.all(np.isfinite(f[1] - f[0])):
            yield Finding("-", False, "a sample or its log density is not finite.", np.inf)
            return
        bet = bet.update(f[1] - f[0])
        if bet.rejects(session.alpha):
            yield Finding(
                "-",
                False,
                f"samples drift by {bet.mean[bet.worst]:+.3f} in feature {bet.worst} under a "
                f"kernel that is exact for log_prob ({bet.n} samples, log e-value "
                f"{bet.peak:.1f}).",
                bet.peak,
            )
            return
    resolution = float(np.max(bet.resolution(session.alpha))) / 0.2
    yield Finding(
        "-",
        True,
        f"samples match log_prob, {bet.n} samples; no drift above {resolution:.3f} sd",
        bet.peak,
        resolution,
    )


def _raw(density: Any, x: Any) -> Any:
    log_q = jax.vmap(density.log_prob)(x)
    return jnp.concatenate([x, x**2, jnp.abs(x), log_q[:, None]], axis=1)


def metropolis(density: Any, key: Any, x: Any, sd: Any) -> Any:
    """``STEPS`` random-walk steps from every row of x[n, d], exact for ``density.log_prob``."""
    log_q = jax.vmap(density.log_prob)

    def step(state: Any, drawn: Any) -> tuple[Any, None]:
        k, scale = drawn
        k_step, k_accept = jax.random.split(k)
        y = state[0] + scale * sd * jax.random.normal(k_step, x.shape)
        new = log_q(y)
        accept = jnp.log(jax.random.uniform(k_accept, (len(x),))) < new - state[1]
        return (jnp.where(accept[:, None], y, state[0]), jnp.where(accept, new, state[1])), None

    scales = jnp.asarray([SCALES[i % 3] for i in range(STEPS)])
    return jax.lax.scan(step, (x, log_q(x)), (jax.random.split(key, STEPS), scales))[0][0]


CHECK = Check(
    name="goodness",
    law="samples follow log_prob",
    applies=lambda s: s.density is not None and isinstance(s.contract, Density),
    run=run,
    statistical=True,
)
