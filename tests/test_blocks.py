"""Gibbs draws of finite sites: exact conditionals, invariance by enumeration, calibration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_mcmc.gibbs_finite import GibbsFinite, nuts_gibbs
from scipy.stats import chi2

import ppcore as pp
from ppcore import dist, precision, random
from ppcore.chains import KernelEngine, Tuning
from ppcore.compose import CONTINUOUS, Blocks
from ppcore.errors import CompositionError, SettingsError
from ppcore.labelled_target import LabelledTarget, blanket
from ppcore.testing.reference.metropolis import RandomWalk
from ppcore.tuning.preconditioner import Dense


@pp.model
def mixture(n: int) -> None:
    w = pp.sample("w", dist.Beta(2, 2))
    mu = pp.sample("mu", dist.Normal(0, 0.5))
    with pp.plate("i", n):
        z = pp.sample("z", dist.Bernoulli(w))
        pp.sample("y", dist.Normal(mu + 2.0 * z, 0.7))


@pp.model
def change_point(time: Any) -> None:
    before = pp.sample("before", dist.LogNormal(0, 1))
    after = pp.sample("after", dist.LogNormal(0, 1))
    when = pp.sample("when", dist.Categorical(np.full(len(time), 1 / len(time))))
    with pp.plate("t", len(time)):
        pp.sample("count", dist.Poisson(np.where(time < when, before, after)))


@pp.model
def spike_and_slab(x: Any) -> None:
    n, p = x.shape
    with pp.plate("j", p):
        used = pp.sample("used", dist.Bernoulli(0.4))
        slope = pp.sample("slope", dist.Normal(0, 1))
    with pp.plate("i", n):
        pp.sample("y", dist.Normal(x @ (used * slope), 2.0))


X = np.random.default_rng(3).normal(size=(8, 3))
MODELS = {
    "mixture": lambda: mixture(8).observe(y=np.linspace(-1, 3, 8)),
    "change_point": lambda: change_point(np.arange(8)).observe(
        count=np.array([1, 0, 2, 1, 4, 5, 3, 6])
    ),
    "spike_and_slab": lambda: spike_and_slab(X).observe(y=X @ np.array([1.0, 0.0, -1.0])),
}
FINITE_SITE = {"mixture": "z", "change_point": "when", "spike_and_slab": "used"}
REPLICATES, BURN_IN, APART, RANKS, ALARM = 400, 40, 10, 7, 1e-3


def labelled(name: str) -> LabelledTarget:
    return LabelledTarget(MODELS[name]().target())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_the_conditional_of_a_site_is_the_normalised_density(name: str, beta: float) -> None:
    site = FINITE_SITE[name]
    with precision.scope("float64"):
        target = labelled(name).tempered(beta)
        x = target.simulate_joint(jax.random.key(1))[0]
        at, values = target.site_slices[site], target.domain(site)
        summed, sites = target._conditional(x, site)
        grid = np.stack(np.meshgrid(*[range(len(values))] * min(at.stop - at.start, 3)), -1)
        rows = jnp.asarray(grid.reshape(-1, grid.shape[-1]))
        rest = jnp.zeros((len(rows), at.stop - at.start - rows.shape[1]), int)
        rows = jnp.concatenate([rows, rest], axis=1)
        claimed = jax.vmap(summed.log_prob)(rows)
        moved = jax.vmap(lambda k: x.at[at].set(jnp.asarray(values, float)[k]))(rows)
        true = jax.vmap(target.log_density)(moved)
        near = jax.vmap(lambda v: target.blanket_density(v, site))(moved)
    assert np.ptp(claimed - true) < 1e-10
    assert np.ptp(near - true) < 1e-10
    assert sites[site].shape == target.spaces[site].shape


def test_the_density_sums_to_that_of_the_summed_target() -> None:
    with precision.scope("float64"):
        target = labelled("change_point")
        x = target.simulate_joint(jax.random.key(2))[0]
        at = target.site_slices["when"]
        moved = jax.vmap(lambda k: x.at[at].set(1.0 * k))(jnp.arange(8))
        total = jax.nn.logsumexp(jax.vmap(target.log_density)(moved))
        assert np.isclose(total, target.base.log_density(x[: target.base.dim]), atol=1e-10)


def test_a_blanket_holds_parents_children_and_co_parents_only() -> None:
    target = labelled("mixture")
    assert blanket(target.base.joint, ("y", "z"), "z") == ("z", "y")


@pp.model
def sprinkler() -> None:
    rain = pp.sample("rain", dist.Bernoulli(0.3))
    with pp.plate("lawn", 2):
        on = pp.sample("on", dist.Categorical(np.array([0.5, 0.3, 0.2])))
        pp.sample("wet", dist.Normal(on * (1.0 - rain) + 2.0 * rain, 1.0))


def test_gibbs_by_element_leaves_the_posterior_alone_exactly() -> None:
    with precision.scope("float64"):
        target = LabelledTarget(sprinkler().observe(wet=[1.5, 0.2]).target())
        states = jnp.asarray([(r, a, b) for r in (0, 1) for a in range(3) for b in range(3)], float)
        order = [target.site_slices[name].start for name in ("rain", "on")]
        assert order == [0, 1]
        kernel = GibbsFinite()

        def row(key: Any, x: Any) -> Any:
            state, _ = kernel.step(key, target, kernel.init(None, target, x, ()), ())
            return (states == state.x).all(1).astype(float)

        p = np.asarray(random.expectation(row, over=states))
        pi = np.asarray(jax.nn.softmax(jax.vmap(target.log_density)(states)))
    assert abs(p.sum(1) - 1).max() < 1e-12
    assert abs(pi @ p - pi).max() < 1e-14


def ranks(name: str) -> tuple[list[str], np.ndarray]:
    """Ranks of θ among draws from its posterior: int[REPLICATES, quantities], ties at random."""
    engine = nuts_gibbs(max_tree_depth=5)
    with precision.scope("float64"):
        target = labelled(name)
        params = engine.parameters(target, Dense(np.eye(target.dim)), np.array([0.4]), 1.0)
        tuned = Tuning(params, jnp.int32(APART))

        def one(key: Any) -> Any:
            k_joint, k_start, k_init, k_draw, k_ties = jax.random.split(key, 5)
            x, moved = target.simulate_joint(k_joint)
            begin = target.simulate_joint(k_start)[0]
            carry = engine.init(k_init, moved, tuned, begin[None])
            carry, draws, _ = engine.block(k_draw, moved, tuned, carry, BURN_IN // APART + RANKS)
            every = jnp.concatenate([x[None], draws[0][BURN_IN // APART :]])
            level = jax.vmap(moved.log_likelihood)(every)
            every = jnp.concatenate([every, level[:, None]], axis=1)
            ties = jax.random.uniform(k_ties, every.shape)
            equal = (every[1:] == every[0]) & (ties[1:] < ties[0])
            below = (every[1:] < every[0]) | equal
            return jnp.sum(below, axis=0)

        found = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(20), REPLICATES))
        return [str(i) for i in range(target.dim)] + ["log_likelihood"], np.asarray(found)


@pytest.mark.parametrize("name", MODELS)
def test_nuts_with_gibbs_is_calibrated(name: str) -> None:
    names, found = ranks(name)
    expected = REPLICATES / (RANKS + 1)
    limit = chi2.isf(ALARM / (3 * len(names)), RANKS)
    for quantity, column in zip(names, found.T, strict=True):
        counts = np.bincount(column, minlength=RANKS + 1)
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < limit, (quantity, counts.tolist())


def test_labels_come_back_from_infer() -> None:
    fit = MODELS["change_point"]().infer(
        nuts_gibbs(warmup_draws=64, max_warmup_draws=64), chains=8, draws=50, seed=1
    )
    when = np.asarray(fit.posterior["when"])
    assert when.shape == (8, 50) and set(np.unique(when)) <= set(range(8))


def test_bad_input_is_named() -> None:
    with pytest.raises(SettingsError, match="by='elment'.*'element'"):
        GibbsFinite(by="elment")
    target = MODELS["mixture"]().target()
    with precision.scope("float64"):
        with pytest.raises(CompositionError, match="keeps none"):
            KernelEngine(GibbsFinite()).init(None, target, None, None)
        kernel = Blocks({"z": GibbsFinite(), ("w", "mu"): GibbsFinite()})
        with pytest.raises(CompositionError, match="continuous site 'w'"):
            KernelEngine(kernel).init(None, LabelledTarget(target), None, None)
        nested = Blocks({CONTINUOUS: RandomWalk()})
        with pytest.raises(CompositionError, match="No block moves the site 'z'"):
            KernelEngine(nested).init(None, LabelledTarget(target), None, None)
