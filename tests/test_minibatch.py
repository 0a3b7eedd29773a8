"""Minibatched log densities: unbiased, exactly, and computed from the minibatch alone."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ppcore as pp
from ppcore import dist, precision, random
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.minibatch import largest_plate, minibatch

N, COUNTIES = 5, 3


@pp.model
def regression(x: Any, county: Any, counties: int) -> None:
    """A hierarchical regression with most of what a plate may hold."""
    n = len(x)
    mu = pp.sample("mu", dist.Normal(0, 5))
    slope = pp.sample("slope", dist.Normal(np.zeros(2), 1))
    sigma = pp.sample("sigma", dist.HalfNormal(1))
    with pp.plate("county", counties):
        alpha = pp.sample("alpha", dist.Normal(mu, 1 + sigma))
    with pp.plate("home", n):
        local = pp.sample("local", dist.Gamma(2, 1 + sigma))
        mean = alpha[county] + x @ slope + np.log(local) * np.arange(float(n))
        pp.sample("y", dist.Normal(mean, sigma))
        pp.sample("k", dist.Categorical(logits=np.stack([mean, 0 * mean, -mean], -1)))
        pp.sample("t", dist.StudentT(4, np.cumsum(mean), sigma).mask(np.arange(n) > 0))
        pp.factor("soft", -(mean**2))


@pp.model
def grouped(x: Any) -> None:
    """Plates within plates, events within plates, and a reduction inside one."""
    scale = pp.sample("scale", dist.LogNormal(0, 1))
    with pp.plate("row", 4):
        w = pp.sample("w", dist.Dirichlet(np.ones(3)))
        with pp.plate("column", 2):
            b = pp.sample("b", dist.Normal(0, scale))
            pp.sample("y", dist.Normal(b + np.sum(w * x, axis=-1), scale))
        loc = np.stack([b[0], b[1]], axis=-1)
        pp.sample("z", dist.MultivariateNormal(loc, np.eye(2)))


def models() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    x, county = rng.normal(size=(N, 2)), np.array([0, 1, 2, 0, 1])
    data = {n: rng.normal(size=N) for n in ("y", "t")}
    first = regression(x, county, COUNTIES).observe(k=np.arange(N) % 3, **data)
    second = grouped(rng.normal(size=(4, 3)))
    return {
        "home": first.target(),
        "county": first.target(),
        "row": second.observe(y=rng.normal(size=(2, 4)), z=rng.normal(size=(4, 2))).target(),
    }


@pytest.mark.parametrize(("plate", "size"), [("home", 2), ("county", 1)])
def test_the_mean_over_all_minibatches_is_the_log_density(plate: str, size: int) -> None:
    with precision.scope("float64"):
        target = models()[plate].tempered(jnp.asarray(0.7))
        batched = minibatch(target, plate, size)
        x = jnp.asarray(np.random.default_rng(1).normal(size=target.dim))
        every = jnp.asarray(list(itertools.combinations(range(batched.elements), size)))
        score = jax.jit(jax.vmap(jax.value_and_grad(batched.estimate_at, 1), (0, None)))
        values, gradients = score(every, x)
        full, slope = jax.jit(jax.value_and_grad(target.log_density))(x)
        assert values.std() > 1e-3
        np.testing.assert_allclose(values.mean(), full, rtol=1e-12)
        np.testing.assert_allclose(gradients.mean(0), slope, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("plate", "size"), [("row", 3), ("home", 1)])
def test_the_mean_over_all_draws_is_the_log_density(plate: str, size: int) -> None:
    with precision.scope("float64"):
        target = models()[plate]
        batched = minibatch(target, plate, size)
        x = jnp.zeros(target.dim)
        mean = random.expectation(lambda script: batched.estimate_at(batched.indices(script), x))
        np.testing.assert_allclose(mean, jax.jit(target.log_density)(x), rtol=1e-12)
        assert len(set(np.asarray(batched.indices(jax.random.key(0))).tolist())) == size


def test_all_elements_in_any_order_give_the_whole() -> None:
    with precision.scope("float64"):
        target = models()["home"]
        batched = minibatch(target, "home", N)
        x = jnp.full(target.dim, 0.3)
        shuffled = jax.jit(batched.estimate_at)(jnp.array([3, 0, 4, 1, 2]), x)
        np.testing.assert_allclose(shuffled, jax.jit(target.log_density)(x), rtol=1e-13)


@pp.model
def logistic(x: Any, group: Any) -> None:
    beta = pp.sample("beta", dist.Normal(np.zeros(3), 1))
    with pp.plate("group", 7):
        shift = pp.sample("shift", dist.Normal(0, 1))
    with pp.plate("row", len(x)):
        pp.sample("y", dist.Bernoulli(logits=x @ beta + 2 * shift[group] - 1))


def test_only_the_minibatch_is_computed() -> None:
    n = 20_000
    x = np.random.default_rng(0).normal(size=(n, 3))
    target = logistic(x, np.arange(n) % 7).observe(y=(x[:, 0] > 0).astype(int)).target()
    batched = minibatch(target, None, 10)
    assert batched.plate == largest_plate(target) == "row"
    index, at = jnp.arange(10), jnp.zeros(target.dim)

    def flops(fn: Any, *args: Any) -> float:
        program = jax.jit(jax.grad(fn, len(args) - 1)).lower(*args).compile()
        return float(program.cost_analysis()["flops"])

    def estimate(t: Any, i: Any, v: Any) -> Any:
        return minibatch(t, None, 10).estimate_at(i, v)

    part = flops(estimate, target, index, at)
    assert part < 5_000 < 100_000 < flops(lambda t, v: t.log_density(v), target, at)


def test_what_cannot_be_batched_is_refused() -> None:
    target = models()["home"]
    with pytest.raises(UnsupportedError, match="home"):
        minibatch(target, "hone", 2)
    with pytest.raises(SettingsError, match="from 1 to 5"):
        minibatch(target, "home", 6)
    from ppcore.target import DensityTarget

    with pytest.raises(UnsupportedError, match="has no diagram"):
        minibatch(DensityTarget(lambda x, _: -x @ x, 2), None, 1)
