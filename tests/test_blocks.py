"""Gibbs draws of finite sites: exact conditionals, invariance by enumeration, calibration."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_mcmc.gibbs_conjugate import LAWS, GibbsConjugate, family_of
from ppcore_mcmc.gibbs_finite import GibbsFinite, nuts_gibbs
from ppcore_mcmc.mixed_hmc import MixedHMC
from scipy.stats import chi2

import ppcore as pp
from ppcore import dist, precision, random
from ppcore.chains import KernelEngine, Tuning
from ppcore.compose import CONTINUOUS, Blocks, Restricted
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
def test_the_conditional_of_a_site_is_the_normalised_density(name: str) -> None:
    site = FINITE_SITE[name]

    def compare(target: LabelledTarget, key: Any) -> tuple[Any, Any]:
        x = target.simulate_joint(key)[0]
        at, values = target.site_slices[site], target.domain(site)
        free = min(at.stop - at.start, 3)
        grid = np.stack(np.meshgrid(*[range(len(values))] * free), -1).reshape(-1, free)
        rows = jnp.concatenate(
            [jnp.asarray(grid), jnp.zeros((len(grid), at.stop - at.start - free), int)], axis=1
        )
        moved = jax.vmap(lambda k: x.at[at].set(jnp.asarray(values, float)[k]))(rows)
        true = jax.vmap(target.log_density)(moved)
        near = jax.vmap(lambda v: target.blanket_density(v, site))(moved)
        return jax.vmap(target.site_log_prob(x, site))(rows) - true, near - true

    with precision.scope("float64"):
        gaps = jax.jit(compare)
        for beta in (1.0, 0.4):
            target = labelled(name).tempered(jnp.asarray(beta))
            for gap in gaps(target, jax.random.key(1)):
                assert np.ptp(gap) < 1e-10


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


@pp.model
def conjugate() -> None:
    mu = pp.sample("mu", dist.Normal(0, 2))
    v = pp.sample("v", dist.InverseGamma(3, 2))
    rate = pp.sample("rate", dist.Gamma(2, 1.5))
    p = pp.sample("p", dist.Beta(2, 3))
    with pp.plate("i", 4):
        pp.sample("y", dist.Normal(mu, np.sqrt(v)))
        pp.sample("count", dist.Poisson(rate))
        pp.sample("heads", dist.Bernoulli(p))


def test_natural_parameters_are_those_of_the_conjugate_conditional() -> None:
    y, count, heads = np.array([1.0, 2.0, 0.0, 0.5]), np.array([1, 3, 2, 2]), np.array([1, 0, 1, 1])
    with precision.scope("float64"):
        target = conjugate().observe(y=y, count=count, heads=heads).target()
        x = target.sample_reference(jax.random.key(3), 1)[0]
        at = {name: float(value) for name, value in target.constrain(x).items()}
        precise = 4 / at["v"] + 0.25
        wanted = {
            "mu": (y.sum() / at["v"] / precise, precise),
            "v": (5.0, 2.0 + 0.5 * ((y - at["mu"]) ** 2).sum()),
            "rate": (10.0, 5.5),
            "p": (5.0, 4.0),
        }

        def natural(target: Any, x: Any) -> dict[str, Any]:
            found = {}
            for site in wanted:
                where = target.site_slices[site]
                own = Restricted(target, x, (site,), tuple(range(where.start, where.stop)))
                law = LAWS[family_of(target, site)]
                found[site] = jnp.stack([jnp.ravel(v)[0] for v in law.natural(own, x[where])])
            return found

        found = jax.jit(natural)(target, x)
    for site, truth in wanted.items():
        assert np.allclose(found[site], truth, rtol=1e-9), site


@pp.model
def heavy() -> None:
    mu = pp.sample("mu", dist.Normal(0, 2))
    pp.sample("y", dist.StudentT(3.0, mu, 1.0))


def test_a_site_that_is_not_conjugate_is_named() -> None:
    with precision.scope("float64"):
        target = heavy().observe(y=1.0).target()
        with pytest.raises(CompositionError, match="'mu' given all else is not of its prior's"):
            KernelEngine(GibbsConjugate()).init(None, target, None, None)
        target = MODELS["change_point"]().target()
        with pytest.raises(CompositionError, match="'before' has the prior LogNormal"):
            KernelEngine(GibbsConjugate()).init(None, target, None, None)
        with pytest.raises(CompositionError, match="every site of this model is finite"):
            finite = LabelledTarget(sprinkler().observe(wet=[1.5, 0.2]).target())
            KernelEngine(MixedHMC()).init(None, finite, None, None)
