"""Gradients agree with finite differences."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from ppcore.contract import Density
from ppcore.testing.checks.base import Check
from ppcore.testing.result import Finding
from ppcore.testing.session import Session

POINTS = 16
STEP = 1e-5
TOLERANCE = 1e-6


def gradient_gap(fn: Callable[[Any], Any], x: Any) -> float:
    """The largest relative gap between ∇fn and central differences at the rows of x[n, d]."""
    auto = jax.jit(jax.vmap(jax.grad(fn)))(x)
    eye = STEP * jnp.eye(x.shape[1], dtype=x.dtype)
    slopes = jax.vmap(lambda v: jax.vmap(lambda e: (fn(v + e) - fn(v - e)) / (2.0 * STEP))(eye))
    central = jax.jit(slopes)(x)
    return float(jnp.max(jnp.abs(auto - central) / (1.0 + jnp.abs(central))))


def run(session: Session) -> Iterator[Finding]:
    """∇ log q by autodiff against central differences at sixteen samples, to 1e-6."""
    density = session.subject.density
    gap = gradient_gap(density.log_prob, density.sample(session.key("gradient"), POINTS))
    ok = gap <= TOLERANCE
    what = f"∇log q against central differences: {gap:.1e} (allowed {TOLERANCE:.0e})"
    yield Finding("-", ok, what)


CHECK = Check(
    name="gradient",
    law="∇ log q is the derivative of log q",
    applies=lambda s: s.density is not None and isinstance(s.contract, Density),
    run=run,
)
