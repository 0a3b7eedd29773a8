"""What the Metropolis kernels share: a scored position, and the test."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp

from ppcore import random
from ppcore.tuning.preconditioner import Preconditioner

DIVERGENCE = 1000.0


class Scored(NamedTuple):
    """A position with its log density: ``x`` float[d], ``log_density`` float[]."""

    x: Any
    log_density: Any


class Step(NamedTuple):
    """Parameters of a random-walk proposal: F and the step size in whitened units."""

    preconditioner: Preconditioner
    step_size: Any


def score(target: Any, x: Any) -> Scored:
    """``x`` with log γ(x)."""
    return Scored(x, target.log_density(x))


def choose(key: Any, log_ratio: Any, new: Any, old: Any) -> tuple[Any, dict[str, Any]]:
    """``new`` with probability min(1, exp(log_ratio)), else ``old``; a NaN ratio is a rejection."""
    log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
    probability = jnp.exp(jnp.minimum(0.0, log_ratio))
    accept = random.bernoulli(key, probability)
    state = type(new)(*(jnp.where(accept, a, b) for a, b in zip(new, old, strict=True)))
    info = {
        "acceptance_rate": probability,
        "log_density": state.log_density,
        "diverging": ~(log_ratio > -DIVERGENCE),
    }
    return state, info
