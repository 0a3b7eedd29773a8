"""E[Ẑ Σ W f] = Z π(f) by simulation, where the evidence is known in closed form."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import ProperlyWeighted
from ppcore.population import equally_weighted
from ppcore.testing.checks.base import Check
from ppcore.testing.models import CheckModel, feature_scale, raw_features, simulate
from ppcore.testing.result import Finding
from ppcore.testing.session import Session

PARTICLES = 16
BATCHES = 4
STAKES = np.array([0.01, 0.03, 0.1, 0.3, 0.8])
CAP, SLACK = 50.0, 0.02


def run(session: Session) -> Iterator[Finding]:
    """Bet on R_f = (Ẑ/Z) Σ W f − f(θ₀) over the joint of (θ₀, y), for f ∈ {1, F, 1 − F}.

    R_f has mean zero for a proper weighting and R_f ≥ −1, so betting that its mean is positive
    is valid however heavy the tail. Too small an evidence is bet on through min(Ẑ/Z, 50), under
    the stated assumption that at most 2 % of the mean lies beyond 50. Without a promise on the
    evidence only that bet and f = 1 are left out.
    """
    for model in session.models:
        if model.log_evidence is not None:
            yield _model(session, model)


def ratios(session: Session, model: CheckModel, batch: int) -> tuple[Any, Any, Any]:
    """``(Ẑ/Z [R], Σ W F [R, F], F(θ₀) [R, F])`` for a batch of joint draws."""
    keys = jax.random.split(session.key("joint", model.name, batch), session.batch_size)
    x, targets = simulate(model, keys)
    states, log_z, weights = _program(session, model)(
        jax.random.split(session.key("stage", model.name, batch), session.batch_size), targets
    )
    both = jnp.concatenate([x[:, None], states], axis=1)
    features = feature_scale(model)(raw_features(model, both, targets))
    inside = jnp.einsum("rn,rnf->rf", weights, features[:, 1:])
    assert model.log_evidence is not None
    evidence = jax.vmap(model.log_evidence, (model.axes,))(targets)
    ratio = jnp.exp(log_z - evidence)
    return np.asarray(ratio), np.asarray(inside), np.asarray(features[:, 0])


def _program(session: Session, model: CheckModel) -> Any:
    """The stage run on a batch of targets; compiled once for a family of models."""
    stage = session.subject.stage

    def one(key: Any, target: Any) -> Any:
        k_start, k_stage = jax.random.split(key)
        start = equally_weighted(target.sample_reference(k_start, PARTICLES))
        end = stage(k_stage, target.tempered(jnp.zeros((), start.x.dtype)), target, start)
        return end.x, end.log_z, end.weights

    if "stage" not in session.shelf:
        session.shelf["stage"] = session.jit(jax.vmap(one, (0, model.axes)))
    return session.shelf["stage"]


def _model(session: Session, model: CheckModel) -> Finding:
    contract = session.subject.contract
    assert isinstance(contract, ProperlyWeighted)
    ratio, inside, here = (
        np.concatenate(p)
        for p in zip(*(ratios(session, model, b) for b in range(BATCHES)), strict=True)
    )
    if not (np.all(np.isfinite(ratio)) and np.all(np.isfinite(inside))):
        return Finding(model.name, False, "a weight or the evidence is not finite.", np.inf)
    if not contract.unbiased_evidence:
        ratio = ratio / ratio.mean()
    r, names = [], []
    for sign in (1.0, -1.0):
        r.append(ratio[:, None] * (0.5 + sign * inside) - (0.5 + sign * here))
        names += [
            f"E[Ẑ ΣWf] too large for f = ½{'+' if sign > 0 else '−'}F({f})"
            for f in model.feature_names
        ]
    gains = np.concatenate(r, axis=1)
    if contract.unbiased_evidence:
        low = 1.0 - SLACK - np.minimum(ratio, CAP)
        gains = np.concatenate([gains, ratio[:, None] - 1.0, low[:, None] / CAP], axis=1)
        names += ["E[Ẑ] > Z", "E[Ẑ] < Z"]
    log_wealth = np.cumsum(np.log1p(gains[:, :, None] * STAKES), axis=0)
    flat = log_wealth.reshape(len(log_wealth), -1)
    peak = float(np.max(np.logaddexp.reduce(flat, axis=1)) - np.log(flat.shape[1]))
    relative = 2.0 * ratio.std() * np.sqrt(2.0 * -np.log(session.alpha) / len(ratio))
    if peak >= -np.log(session.alpha):
        worst = names[int(np.argmax(np.max(flat, axis=0))) // len(STAKES)]
        return Finding(
            model.name,
            False,
            f"{worst}: mean Ẑ/Z = {ratio.mean():.3f} over {len(ratio)} joint draws (log e-value "
            f"{peak:.1f}, allowed {-np.log(session.alpha):.1f}).",
            peak,
        )
    return Finding(
        model.name,
        True,
        f"E[Ẑ]/Z = {ratio.mean():.3f}, {len(ratio)} joint draws, {PARTICLES} particles; a relative "
        f"bias of about {relative:.2f} would have been rejected",
        peak,
    )


CHECK = Check(
    name="evidence",
    law="E[Ẑ Σ W f] = Z π(f)",
    applies=lambda s: (
        s.stage is not None and isinstance(s.contract, ProperlyWeighted) and s.models != ()
    ),
    run=run,
    statistical=True,
)
