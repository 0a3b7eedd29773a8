"""Averages along a run converge to those of the target, for engines that adapt while sampling."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.stats import t as student

from ppcore.contract import Consistent
from ppcore.testing.checks.base import Check
from ppcore.testing.models import CONJUGATE, FINITE, FiniteTarget, feature_scale, raw_features
from ppcore.testing.result import Finding
from ppcore.testing.session import Session

CHAINS = 256
SHORT, LONG = 512, 8192
FALL = 0.5
RUNS, FEW, DRAWS, EXACT = 32, 32, 256, 100_000


def run(session: Session) -> Iterator[Finding]:
    """On every finite model: the share of visits to each state, over 256 runs of 8,192 steps.

    The error of the mean share after the first 512 steps is bias and noise. If averages converge,
    the bias after 8,192 steps is a small part of it: the mean share must lie within half of the
    largest early error of π, or within noise of it, by a normal test over the independent runs.
    An engine for continuous targets: see :func:`_continuous`.
    """
    engine, alpha = session.subject.engine, session.alpha / len(FINITE)
    if not getattr(engine, "finite", False):
        yield _continuous(session)
        return
    for name, build in FINITE.items():
        target = build()
        warm = engine.warmup(session.key("warm", name), target, CHAINS, lambda _: None)
        visits = _visits(session, engine, target, warm)
        pi = np.asarray(jax.nn.softmax(target.log_gamma))
        yield _judge(name, visits, pi, alpha)


def _visits(session: Session, engine: Any, target: FiniteTarget, warm: Any) -> Any:
    """Shares of visits after ``SHORT`` and ``LONG`` steps; float[2, chains, S]."""

    def walked(k_init: Any, k_block: Any, target: Any, tuned: Any, x: Any) -> Any:
        carry = engine.init(k_init, target, tuned, x)
        _, draws, _ = engine.block(k_block, target, tuned, carry, LONG)
        codes = jax.vmap(jax.vmap(target.code))(draws)
        hits = codes[..., None] == jnp.arange(len(target.states))
        return jnp.stack([hits[:, :SHORT].mean(1), hits.mean(1)])

    keys = session.key("init"), session.key("block")
    return np.asarray(session.jit(walked)(*keys, target, warm.tuned, jnp.asarray(warm.x)))


def _judge(name: str, visits: Any, pi: np.ndarray, alpha: float) -> Finding:
    if not np.all(np.isfinite(visits)):
        return Finding(name, False, "a draw is not finite.", np.inf)
    z = NormalDist().inv_cdf(1.0 - 0.5 * alpha / len(pi))
    early, late = np.abs(visits.mean(1) - pi)
    noise = z * visits[1].std(0) / np.sqrt(CHAINS)
    allowed = np.maximum(noise, FALL * early.max())
    worst = int(np.argmax(late - allowed))
    if late[worst] > allowed[worst]:
        return Finding(
            name,
            False,
            f"state {worst} has a share of {visits[1].mean(0)[worst]:.4f} of {CHAINS} × {LONG} "
            f"visits, and {pi[worst]:.4f} of the target: averages do not converge to it.",
        )
    resolution = float(np.max((noise + z * visits[1].std(0) / 16) / np.sqrt(pi * (1 - pi))))
    return Finding(
        name,
        True,
        f"shares of visits within {late.max():.1e} of the target after {LONG} steps "
        f"({early.max():.1e} after {SHORT})",
        resolution=resolution,
    )


def _continuous(session: Session) -> Finding:
    """The same for averages of bounded features along 32 runs of 256 draws for a conjugate normal
    posterior, against the exact one, by a t test over the runs."""
    engine, target = session.subject.engine, session.typical(CONJUGATE)
    warm = engine.warmup(session.key("warm"), target, RUNS, lambda _: None)
    carry = engine.init(session.key("init"), target, warm.tuned, warm.x)
    draws = engine.block(session.key("block"), target, warm.tuned, carry, DRAWS)[1]
    if not np.all(np.isfinite(draws)):
        return Finding(CONJUGATE.name, False, "a draw is not finite.", np.inf)
    assert CONJUGATE.posterior is not None
    exact = CONJUGATE.posterior(session.key("exact"), target, EXACT)
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf)[None], target)
    states = jnp.concatenate([jnp.asarray(draws).reshape(-1, CONJUGATE.dim), exact])
    scale = feature_scale(CONJUGATE)
    features = np.asarray(scale(raw_features(CONJUGATE, states[None], one)))[0]
    wanted = features[RUNS * DRAWS :]
    made = features[: RUNS * DRAWS].reshape(RUNS, DRAWS, -1)
    late, early = made.mean(1), made[:, :FEW].mean(1)
    error = np.sqrt(late.var(0, ddof=1) / RUNS + wanted.var(0) / EXACT)
    t = float(student.isf(0.5 * session.alpha / features.shape[1], RUNS - 1))
    gap = np.abs(late.mean(0) - wanted.mean(0))
    allowed = np.maximum(t * error, FALL * np.abs(early.mean(0) - wanted.mean(0)).max())
    worst = int(np.argmax(gap - allowed))
    name, unit = CONJUGATE.feature_names[worst], wanted.std(0)
    if gap[worst] > allowed[worst]:
        return Finding(
            CONJUGATE.name,
            False,
            f"the average of {name} over {RUNS} runs of {DRAWS} draws is off by "
            f"{gap[worst] / unit[worst]:.3f} sd: averages do not converge to the target's.",
        )
    return Finding(
        CONJUGATE.name,
        True,
        f"averages over {RUNS} runs of {DRAWS} draws within {(gap / unit).max():.3f} sd of exact",
        resolution=float(np.max(2 * t * error / unit)),
    )


CHECK = Check(
    name="consistency",
    law="averages converge to those of the target",
    applies=lambda s: s.engine is not None and isinstance(s.contract, Consistent),
    run=run,
    statistical=True,
)
