"""Stages on populations: proved unbiased by enumeration, and refused where ends do not meet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_smc.hmc import HMC

from ppcore import precision, random
from ppcore.contract import Contract, Invariant, ProperlyWeighted
from ppcore.contract import Transport as Bijection
from ppcore.errors import CompositionError, SettingsError, UnsupportedError
from ppcore.paths import Markov, Tempering, follow
from ppcore.population import Population, Stage, equally_weighted, reweight
from ppcore.stages import Anneal, Correct, Move, Prior, Resample, Sequence, Transport, WasteFree
from ppcore.stages.adaptive import AdaptiveAnneal, next_temperature
from ppcore.stages.lineage import variance_estimate
from ppcore.stages.resampling import SCHEMES, multinomial
from ppcore.stages.tuned import crossed, spread
from ppcore.target import DensityTarget
from ppcore.testing.checks.enumeration import TOLERANCE, weighted_law
from ppcore.testing.models.finite import FINITE, FiniteTarget
from ppcore.testing.reference.metropolis import Independence, Langevin

LINE = FINITE["finite_line"]


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def proper(stage: Any, target: FiniteTarget, particles: int = 2) -> None:
    """E[Ẑ Σ W 1(x = s)] = γ(s) for every state, over all random choices, to 1e-12."""
    law = np.asarray(weighted_law(stage, target, particles))
    gamma = np.exp(np.asarray(target.log_gamma))
    np.testing.assert_allclose(law, gamma, rtol=0, atol=TOLERANCE * gamma.sum())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_resampling_is_unbiased_exactly(scheme: str) -> None:
    weights = np.array([[0.1, 0.25, 0.65], [0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])
    for n in (2, 3):

        def copies(key: Any, w: Any, n: int = n) -> Any:
            index = SCHEMES[scheme](key, w, n)
            return jnp.sum(index[:, None] == jnp.arange(3), axis=0) * 1.0

        mean = random.expectation(copies, jnp.asarray(weights))
        np.testing.assert_allclose(mean, n * weights, atol=1e-12)


@pytest.mark.parametrize("scheme", ["systematic", "ssp"])
def test_copies_are_the_weights_rounded(scheme: str) -> None:
    w = np.random.default_rng(0).dirichlet(np.ones(50))
    keys = jax.random.split(jax.random.key(1), 40)
    index = jax.jit(jax.vmap(lambda k: SCHEMES[scheme](k, jnp.asarray(w))))(keys)
    copies = (np.asarray(index)[..., None] == np.arange(50)).sum(1)
    assert (np.floor(50 * w) <= copies).all() and (copies <= np.ceil(50 * w)).all()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_keeps_annealing_proper(scheme: str) -> None:
    proper(Anneal((0.4, 1.0), Independence(), resample=Resample(scheme)), LINE())


def test_compositions_are_proper() -> None:
    walk = Independence()
    proper(Anneal((0.4, 1.0), walk, resample=Resample(threshold=0.8)), LINE())
    proper(Anneal((0.3, 1.0), walk, resample=None), LINE())
    proper(Correct(0.0, 0.5) >> Resample() >> Move(walk) >> Correct(0.5, 1.0), LINE())
    proper(Correct(0.0, 0.4) >> Resample("ssp") >> Anneal((1.0,), walk, start=0.4), LINE(), 3)


def test_waste_free_is_proper() -> None:
    stage = Correct() >> WasteFree(Independence(), length=2)
    proper(stage, LINE(), particles=4)
    with pytest.raises(SettingsError, match="Use|use 4 or 6"):
        proper(stage, LINE(), particles=5)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class TwoData(FiniteTarget):
    """A finite target whose likelihood is that of two data."""

    share: Any = 0.3

    def parts(self, x: Any) -> tuple[Any, Any]:
        whole = self.log_likelihood(x)
        first = self.share * whole + jnp.where(x[0] == 1.0, 0.7, -0.2)
        return self.log_prior(x), jnp.stack([first, whole - first])


def test_data_tempering_is_proper() -> None:
    line = LINE()
    target = TwoData(line.table_prior, line.table_likelihood, line.beta)
    proper(Anneal((0.25, 1.0), Independence(), by="data"), target)
    with pytest.raises(UnsupportedError, match="Temper it instead"):
        proper(Anneal((1.0,), Independence(), by="data"), LINE())


@dataclass(frozen=True)
class Turn:
    """x ↦ x + 1 on the circle of three states."""

    contract: Contract = Bijection()

    def forward(self, x: Any) -> tuple[Any, Any]:
        return jnp.mod(x + 1.0, 3.0), jnp.zeros(())


def test_transport_is_weighed_for_what_the_map_misses() -> None:
    proper(Transport(Turn()), LINE())
    proper(Transport(Turn(), 0.0, 0.5) >> Resample() >> Correct(0.5, 1.0), LINE())


@dataclass(frozen=True)
class Arbitrary:
    """The general formula with kernels that leave nothing invariant: F flat, B lopsided."""

    contract: Contract = ProperlyWeighted()

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        back = jnp.log(jnp.asarray([0.2, 0.5, 0.3]))

        def forward(key: Any, path: Any, a: Any, b: Any, x: Any, params: Any) -> Any:
            return path.target.states[random.randint(key, (), 3)]

        def ratio(path: Any, a: Any, b: Any, x: Any, y: Any, params: Any) -> Any:
            # B may depend on where it comes from: turn the table by y.
            return back[jnp.mod(x[0] + y[0], 3.0).astype(int)] + jnp.log(3.0)

        betas = jnp.asarray([0.0, 0.3, 1.0])
        resample = Resample("systematic", 0.9).chosen
        return follow(
            key,
            Tempering(target),
            betas,
            Markov(forward, ratio),
            population,
            lambda k, p: resample(k, p)[0],
        )


def test_any_forward_and_backward_kernels_give_the_evidence() -> None:
    proper(Arbitrary(), LINE())


def test_lineages_estimate_the_variance_without_bias() -> None:
    """E[Ẑ² V] = Var(Ẑ), over all choices of two multinomial steps."""
    target = LINE()
    tilt = np.exp(np.asarray(target.table_likelihood))

    def program(key: Any) -> tuple[float, float]:
        x = target.sample_reference(key, 2)
        population, root = equally_weighted(x), np.arange(2)
        for power in (0.6, 0.4):
            g = power * np.log(tilt[np.asarray(population.x[:, 0], int)])
            population = reweight(population, jnp.asarray(g))
            index = np.asarray(multinomial(key, population.weights))
            root = root[index]
            population = replace(population, x=population.x[index], log_weight=jnp.zeros(2))
        z = float(np.exp(population.log_z))
        return z, z**2 * variance_estimate(root, 2)

    values, odds = zip(*random.enumerate_traces(program), strict=True)
    z, v = np.array(values).T
    p = np.array(odds)
    assert p.sum() == pytest.approx(1.0, abs=1e-12)
    assert p @ v == pytest.approx(p @ z**2 - (p @ z) ** 2, rel=1e-9)


def test_contracts_are_derived() -> None:
    assert (Prior() >> Anneal((1.0,), Independence())).contract == ProperlyWeighted()
    loose = ProperlyWeighted(unbiased_evidence=False)
    assert (Prior() >> AdaptiveAnneal(Independence())).contract == loose
    assert isinstance(Resample() >> Move(Independence()), Stage)
    assert Move(Independence()).contract == Invariant(reversible=True)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Correct(0.0, 0.5) >> Correct(0.6, 1.0), "starts at inverse temperature 0.6"),
        (lambda: Prior() >> Correct(0.5, 1.0), "Prior\\(\\) ends at inverse temperature 0"),
        (lambda: Resample() >> Independence(), "write Move\\(Independence"),
        (lambda: Resample() >> Turn(), "write Transport\\(Turn"),
        (lambda: Prior() >> Move(Langevin()), "wrongly weighted"),
        (lambda: Anneal((1.0,), Langevin()), "wrongly weighted"),
        (lambda: Move(3), "int is not one"),
        (lambda: Transport(Independence()), "has none"),
        (lambda: Anneal((0.5, 0.4), Independence()), "must increase"),
        (lambda: Anneal((0.5, 1.2), Independence()), "at most 1"),
        (lambda: Anneal((1.0,), Independence(), by="date"), "Did you mean 'data'"),
        (lambda: AdaptiveAnneal(Independence(), metric="dens"), "Did you mean 'dense'"),
        (lambda: AdaptiveAnneal(Independence(), ess=1.5), "between 0 and 1"),
        (lambda: Resample("sistematic"), "Did you mean 'systematic'"),
    ],
)
def test_what_does_not_fit_is_refused_when_built(build: Any, said: str) -> None:
    with pytest.raises((CompositionError, SettingsError), match=said):
        build()


def bowl(x: Any, data: Any) -> Any:
    return -0.5 * jnp.sum(x**2)


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Rough(FiniteTarget):
    """A target that says it has no gradient."""

    has_gradient = False


def test_a_sampler_says_what_its_target_lacks() -> None:
    bare = DensityTarget(bowl, 2)
    key = jax.random.key(0)
    with pytest.raises(UnsupportedError, match="reference='laplace'"):
        (Prior() >> Correct())(key, bare, 8)
    with pytest.raises(CompositionError, match="not at the target"):
        (Prior() >> Correct(0.0, 0.5))(key, LINE(), 8)
    with pytest.raises(CompositionError, match="one by one"):
        (Prior() >> Anneal((1.0,), Independence(), by="data"))(key, LINE(), 8)
    line = LINE()
    rough = Rough(line.table_prior, line.table_likelihood, line.beta)
    with pytest.raises(CompositionError, match="HMC needs a gradient"):
        (Prior() >> Anneal((1.0,), HMC()))(key, rough, 8)
    assert Sequence((Resample(),)).start is None


def test_temperatures_keep_their_share() -> None:
    rng = np.random.default_rng(2)
    gauge = Tempering(LINE()).gauge

    def share(change: np.ndarray, beta: float, share: float = 0.5) -> tuple[float, float]:
        zeros = jnp.zeros(len(change))
        b = float(next_temperature(gauge, jnp.asarray(change), zeros, jnp.asarray(beta), share))
        with np.errstate(all="ignore"):
            w = np.exp((b - beta) * (change - change.max()))
        return b, float(w.sum() ** 2 / (w**2).sum())

    mild = rng.normal(size=400)
    assert share(mild * 0.1, 0.0)[0] == 1.0
    b, ess = share(50 * mild, 0.0)
    assert 0 < b < 1 and ess == pytest.approx(200, rel=1e-3)
    # A prior so vague that the first step is 1e-40, and particles that cannot live at all.
    assert share(-1e40 * mild**2, 0.0)[1] == pytest.approx(200, rel=1e-3)
    dead = np.where(mild > 1, -np.inf, 50 * mild)
    alive = np.isfinite(dead).sum()
    assert share(dead, 0.2)[1] == pytest.approx(alive / 2, rel=1e-3)


def test_each_half_moves_on_the_scale_of_the_other() -> None:
    x = jnp.asarray(np.random.default_rng(3).normal(size=(41, 3)) * [1.0, 5.0, 0.1])
    about = crossed(x, jnp.asarray(40.0), dense=True)
    other = spread(x[21:], jnp.asarray(20.0), dense=True)
    padded = spread(jnp.concatenate([x[21:], x[-1:]]), jnp.asarray(20.0), dense=True)
    np.testing.assert_array_equal(about.mean[0], padded.mean)
    np.testing.assert_allclose(about.preconditioner.factor[0], padded.preconditioner.factor)
    assert not np.allclose(other.mean, about.mean[1])
    # Fewer particles than coordinates: correlations are not believed.
    few = spread(x[:3], jnp.asarray(2.0), dense=True).preconditioner.factor
    np.testing.assert_allclose(few, np.diag(np.diagonal(few)), atol=1e-9)
