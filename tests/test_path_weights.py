"""Every engine with a learned transport: E[Ẑ] = Z before training as well as after.

To add an engine, write one line in ``ENGINES``: its registered name, and the settings that leave it
untrained and that train it for a moment. It is run on N(m, S) and on a mixture of two Gaussians in
the plane, of which it may only see the log density, its gradient and a wide reference. Each run is
judged by its own standard error, whether from the weights or as the engine states it; an engine
whose libraries are not installed is skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ppcore import precision, registry
from ppcore.target import DensityTarget


@dataclass(frozen=True)
class Settings:
    """Settings of the constructor in all runs, those without training, those with a little."""

    untrained: dict[str, Any]
    trained: dict[str, Any]
    always: dict[str, Any] = field(default_factory=dict)


SHORT = {"steps": 8, "batch": 32, "width": 8, "components": 1}
# Without resampling, so that the weights tell the error.
LAYERS = {"map": "diagonal", "layers": 4, "pilot": 64, "batch": 64, "threshold": 0.0}
ENGINES = {
    "cmcd": Settings({"iterations": 0}, {"iterations": 25}, SHORT),
    "scld": Settings({"iterations": 0}, {"iterations": 25}, SHORT),
    "craft": Settings({"sweeps": 0}, {"sweeps": 50}, LAYERS),
    "snf": Settings({"steps": 0}, {"steps": 50}, LAYERS),
    "mixflow": Settings({"length": 4}, {"length": 8}, {"leaps": 4}),
}

PARTICLES = 4096
LOG_Z = 0.8
# Two-sided at 4.5 deviations: a false alarm in 10⁵ runs, of which there are four an engine.
LIMIT, LARGEST = 4.5, 0.15


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def log_density(x: Any, data: Any) -> Any:
    """e^0.8 (0.6 N(m₁, F₁F₁ᵀ) + 0.4 N(m₂, F₂F₂ᵀ)), of one program for any data."""
    parts = []
    for i in range(2):
        z = data["inverse"][i] @ (x - data["mean"][i])
        parts.append(-0.5 * z @ z + data["log_det"][i])
    log_p = jnp.logaddexp(jnp.log(0.6) + parts[0], jnp.log(0.4) + parts[1])
    return log_p - jnp.log(2 * jnp.pi) + LOG_Z


def log_reference(x: Any, data: Any) -> Any:
    return -0.5 * jnp.sum(x**2) / 9.0 - jnp.log(9.0) - jnp.log(2 * jnp.pi)


def draw_reference(key: Any, data: Any) -> Any:
    return 3.0 * jax.random.normal(key, (2,), data["mean"].dtype)


def target(means: Any, factors: Any) -> DensityTarget:
    inverse = np.linalg.inv(np.array(factors))
    log_det = np.linalg.slogdet(inverse)[1]
    data = {"mean": np.array(means), "inverse": inverse, "log_det": log_det}
    return DensityTarget(log_density, 2, data, log_reference, draw_reference)


TARGETS = {
    "gaussian": target(2 * [[1.0, -0.5]], 2 * [[[1.0, 0.0], [0.6, 0.5]]]),
    "mixture": target(
        [[1.5, 1.0], [-1.5, 0.0]], [[[0.5, 0.0], [0.2, 0.6]], [[0.8, 0.0], [0.0, 0.5]]]
    ),
}


def silent(_: Any) -> None:
    """Takes reports."""


@pytest.mark.parametrize("trained", (False, True), ids=("before", "after"))
@pytest.mark.parametrize("name", ENGINES)
def test_the_mean_weight_is_the_evidence(name: str, trained: bool) -> None:
    reason = registry.unavailable(registry.spec(name))
    if reason is not None:
        pytest.skip(reason)
    how = ENGINES[name]
    settings = {**how.always, **(how.trained if trained else how.untrained)}
    engine = registry.engine(name, settings)
    for which, at in TARGETS.items():
        made = engine.populate(jax.random.key(11), at, PARTICLES, silent)
        by_weights = np.sqrt(max(PARTICLES / float(made.population.ess) - 1.0, 0.0) / PARTICLES)
        # Weights that are equal but for rounding leave nothing to test but the value.
        error = max(by_weights, made.log_z_error or 0.0, 1e-9)
        assert error < LARGEST, f"{which}: a relative error of {error:.2f} tests nothing"
        off = np.expm1(float(made.population.log_z) - LOG_Z)
        assert abs(off) < LIMIT * error, f"{which}: Ẑ/Z − 1 = {off:.4f} ± {error:.4f}"
        assert made.gradients > PARTICLES
