"""A map inverts, and its log-determinant is that of the autodiff Jacobian, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from ppcore.contract import Transport
from ppcore.testing.checks.base import Check
from ppcore.testing.result import Finding
from ppcore.testing.session import Session

POINTS = 64
TOLERANCE = 1e-8


def run(session: Session) -> Iterator[Finding]:
    """At 64 points of two scales: T⁻¹(T(x)) = x; log|det| of T and of T⁻¹ against autodiff."""
    tmap = session.subject.map
    dim = int(tmap.dim)
    key = session.key("transport")
    x = jax.random.normal(key, (POINTS, dim)) * jnp.where(jnp.arange(POINTS) % 2, 3.0, 0.7)[:, None]
    y, log_det = jax.vmap(tmap.forward)(x)
    back, log_det_back = jax.vmap(tmap.inverse)(y)
    jacobian = jax.vmap(jax.jacfwd(lambda v: tmap.forward(v)[0]))(x)
    truth = jnp.linalg.slogdet(jacobian)[1]
    yield _judge("T⁻¹(T(x)) = x", back, x)
    yield _judge("log|det ∂T| against autodiff", log_det, truth)
    yield _judge("log|det ∂T⁻¹| = −log|det ∂T|", log_det_back, -truth)


def _judge(what: str, got: jax.Array, want: jax.Array) -> Finding:
    if got.shape != want.shape:
        return Finding("-", False, f"{what}: shape {got.shape}, expected {want.shape}.")
    gap = float(jnp.max(jnp.abs(got - want) / (1.0 + jnp.abs(want))))
    if not gap <= TOLERANCE:
        return Finding("-", False, f"{what}: off by {gap:.2e} (allowed {TOLERANCE:.0e}).")
    return Finding("-", True, f"{what} to {max(gap, 1e-16):.0e} at {POINTS} points")


CHECK = Check(
    name="transport",
    law="T⁻¹T = id and the log-determinant is right",
    applies=lambda s: s.map is not None and isinstance(s.contract, Transport),
    run=run,
)
