"""Density, gradient and forward draws agree with the same model written directly in NumPyro."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.infer
import pytest
from numpyro.infer.util import potential_energy
from scipy import stats

from ppcore.precision import scope
from ppcore.semantics.log_density import layout

from .case import Case
from .models import CASES

POINTS = 4
DRAWS = 1500
# NumPyro's side is compiled as it is written: quickly, and not by the code that is under test.
PLAIN = {"xla_backend_optimization_level": 0}
# Chance that any forward comparison of the suite fails although all models agree.
FAMILY_ERROR = 1e-3


@pytest.mark.parametrize("case", CASES, ids=str)
def test_log_density_and_gradient(case: Case) -> None:
    """All points at once here, as engines do; one at a time there."""
    with scope("float64"):
        target = case.model().target()
        z = layout(target.diagram)
        observed = {name: jnp.asarray(value) for name, value in case.observed.items()}

        def theirs(x: Any) -> Any:
            return -potential_energy(case.theirs, case.args, observed, z.split(x))

        differentiated = jax.value_and_grad if case.gradient else _without_gradient
        ours = jax.jit(jax.vmap(differentiated(target.log_density)))
        one = jax.jit(differentiated(theirs), compiler_options=PLAIN)
        x = np.random.default_rng(3).normal(size=(POINTS, target.dim))
        expected = jax.tree.map(lambda *rows: np.stack(rows), *map(one, x))
        for found, wanted in zip(ours(x), expected, strict=True):
            assert np.isfinite(wanted).all()
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def _without_gradient(f: Callable[[Any], Any]) -> Callable[[Any], tuple[Any]]:
    return lambda x: (f(x),)


@pytest.mark.parametrize("case", [c for c in CASES if c.simulates], ids=str)
def test_forward_draws(case: Case) -> None:
    joint = case.joint()
    ours = joint.simulate(seed=1, n=DRAWS)
    with scope("float64"):
        predictive = numpyro.infer.Predictive(case.theirs, num_samples=DRAWS, parallel=True)
        key = jax.random.PRNGKey(2)
        theirs = jax.jit(lambda k: predictive(k, *case.args), compiler_options=PLAIN)(key)
    pairs = [
        (name, what, a, b)
        for name in joint.spaces
        for (what, a), (_, b) in zip(_summaries(ours[name]), _summaries(theirs[name]), strict=True)
    ]
    level = FAMILY_ERROR / len(CASES) / len(pairs)
    for name, what, a, b in pairs:
        p = stats.ks_2samp(a, b, method="asymp").pvalue
        assert p > level, f"{what} of {name!r} differs: p = {p:.2g}"


def _summaries(draws: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Scalar functions of a site's draws [n, ...]: elements, their mean, and a second moment."""
    flat = np.asarray(draws, float).reshape(len(draws), -1)
    yield "the first element", flat[:, 0]
    if flat.shape[1] > 1:
        yield "the last element", flat[:, -1]
        yield "the mean", flat.mean(1).round(10)
        yield "first times last", flat[:, 0] * flat[:, -1]
