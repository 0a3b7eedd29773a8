"""Layered flows: weights by enumeration and in closed form, SMC where maps do nothing, MixFlows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flowjax")

from ppcore_flows import linear
from ppcore_flows.aft import AFT
from ppcore_flows.bases import Gaussian
from ppcore_flows.craft import Craft
from ppcore_flows.density import Flow
from ppcore_flows.measure_preserving import Stir
from ppcore_flows.mixflow import MixFlow, MixFlowImportance
from ppcore_flows.snf import SNF
from ppcore_flows.stochastic import FlowAnneal, Stirred, run, stacked
from ppcore_flows.stochastic_losses import Course, path_chi_square, path_kl, stepwise_kl
from ppcore_flows.training import Training, block, train
from ppcore_smc.random_walk import RandomWalk as Walk

from ppcore import contract as rules
from ppcore import precision, registry
from ppcore.contract import Contract
from ppcore.errors import CompositionError, SettingsError, UnsupportedError
from ppcore.paths import Tempering
from ppcore.population import equally_weighted
from ppcore.stages import Anneal, Correct, Move, Prior, Resample, Transport
from ppcore.target import DensityTarget
from ppcore.testing.checks.enumeration import TOLERANCE, weighted_law
from ppcore.testing.models.finite import FINITE
from ppcore.testing.reference.metropolis import Independence, Langevin, RandomWalk
from ppcore.tuning.preconditioner import Dense

KEY = jax.random.key


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def silent(_: Any) -> None:
    """Takes reports."""


def gauss(x: Any, mean: Any, sd: Any) -> Any:
    """log N(x; mean, sd² I), summed over coordinates."""
    return jax.scipy.stats.norm.logpdf(x, mean, sd).sum()


def wide(x: Any, data: Any) -> Any:
    return gauss(x, 0.0, 3.0)


def drawn_wide(key: Any, data: Any) -> Any:
    return 3.0 * jax.random.normal(key, (2,))


def one_mode(x: Any, data: Any) -> Any:
    """e^0.7 N((1, −1), 0.5² I)."""
    return 0.7 + gauss(x, data, 0.5)


def two_modes(x: Any, data: Any) -> Any:
    """e^0.7 [0.7 N((2, 2), I) + 0.3 N((−2, −2), 0.5² I)]."""
    first, second = gauss(x, 2.0, 1.0), gauss(x, -2.0, 0.5)
    return 0.7 + jnp.logaddexp(jnp.log(0.7) + first, jnp.log(0.3) + second)


def target(fn: Any = one_mode) -> DensityTarget:
    return DensityTarget(fn, 2, jnp.array([1.0, -1.0]), wide, drawn_wide)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Turn:
    """x ↦ x + by on the circle of three states."""

    by: Any
    contract = rules.Transport()

    def forward(self, x: Any) -> tuple[Any, Any]:
        return jnp.mod(x + self.by, 3.0), jnp.zeros(())


@pytest.mark.parametrize("threshold", [0.0, 0.8, 1.0])
def test_layers_are_proper_over_all_random_choices(threshold: float) -> None:
    """E[Ẑ Σ W 1(x = s)] = γ(s) to 1e-12, with maps that turn another way at each temperature."""
    finite = FINITE["finite_line"]()
    turns = Turn(jnp.array([1.0, 2.0]))
    betas = jnp.array([0.0, 0.3, 1.0])
    stage = FlowAnneal(betas, turns, (), Independence(), 1, threshold)
    law = np.asarray(weighted_law(stage, finite, 2))
    gamma = np.exp(np.asarray(finite.log_gamma))
    np.testing.assert_allclose(law, gamma, rtol=0, atol=TOLERANCE * gamma.sum())


def test_with_maps_that_do_nothing_it_is_smc() -> None:
    """The same particles, weights and evidence as Anneal with the same keys."""
    schedule, walk = (0.1, 0.4, 1.0), RandomWalk()
    params = {"step_size": jnp.asarray(0.8)}
    smc = Anneal(schedule, walk, params, 2, Resample(threshold=0.6))
    nothing, own = stacked((linear.lower_triangular(2, float), params), 3)
    same = FlowAnneal(jnp.array([0.0, *schedule]), nothing, own, walk, 2, 0.6)
    key, start = KEY(1), Prior().draw(KEY(0), target(two_modes), 300)
    path = Tempering(target(two_modes))
    one, other = (jax.jit(s.along)(key, path, 0.0, start) for s in (smc, same))
    np.testing.assert_allclose(one.x, other.x, rtol=0, atol=1e-12)
    np.testing.assert_allclose(one.log_weight, other.log_weight, rtol=0, atol=1e-10)
    assert float(one.log_z) == pytest.approx(float(other.log_z), abs=1e-12)
    assert len(np.unique(np.asarray(one.x)[:, 0])) > 200


def optimal(betas: Any) -> Any:
    """The affine maps from each N(m_b, s_b² I) to the next: γ_b between the two Gaussians."""
    precisions = (1 - betas) / 9.0 + betas / 0.25
    sd = precisions**-0.5
    mean = (betas / 0.25 / precisions)[:, None] * jnp.array([1.0, -1.0])
    scale = sd[1:] / sd[:-1]
    shift = mean[1:] - scale[:, None] * mean[:-1]
    return linear.Diagonal(shift, jnp.repeat(jnp.log(scale)[:, None], 2, axis=1))


def test_the_best_maps_between_gaussians_have_weights_without_variance() -> None:
    """All weights equal, log Ẑ exact, and every gradient of the loss zero, noise and all."""
    betas = jnp.array([0.0, 0.05, 0.3, 1.0])
    params = {"step_size": jnp.full(3, 0.5)}
    stage = FlowAnneal(betas, optimal(betas), params, RandomWalk(), 1, 0.0)
    made = run(KEY(0), stage, target(), 64)
    assert float(made.log_z) == pytest.approx(0.7, abs=1e-12)
    assert float(jnp.ptp(made.log_weight)) < 1e-12
    course = Course(target(), stage)
    loss = jax.jit(jax.grad(stepwise_kl, has_aux=True), static_argnums=3)
    gradient, (value, spread) = loss(stage.maps, KEY(2), course, 64)
    assert max(float(jnp.abs(g).max()) for g in jax.tree.leaves(gradient)) < 1e-12
    assert float(value) == pytest.approx(-0.7) and float(spread) < 1e-12


def test_craft_learns_those_maps_and_counts_what_it_cost() -> None:
    engine = Craft("diagonal", 3, move=Walk(), moves=1, sweeps=150, batch=64, rate=5e-2, pilot=64)
    made = engine.populate(KEY(0), target(), 512, silent)
    assert float(made.population.log_z) == pytest.approx(0.7, abs=0.01)
    assert float(made.population.ess) > 0.99 * 512
    assert made.gradients > (150 * 64 + 512) * 3 * 3
    assert made.stats["spread"][-1] < 0.05 * made.stats["spread"][0]


def test_aft_trains_all_temperatures_with_one_program() -> None:
    engine = AFT("diagonal", 5, move=Walk(), moves=1, sweeps=100, batch=64, rate=5e-2, pilot=64)
    before = block._cache_size()
    made = engine.populate(KEY(0), target(), 512, silent)
    assert block._cache_size() == before + 1
    assert float(made.population.log_z) == pytest.approx(0.7, abs=0.05)
    assert float(made.population.ess) > 0.9 * 512


def test_a_program_does_not_grow_with_the_number_of_temperatures() -> None:
    sizes = []
    for layers in (2, 12):
        maps, params = stacked((linear.diagonal(2, float), {"step_size": 0.5}), layers)
        stage = FlowAnneal(jnp.linspace(0, 1, layers + 1), maps, params, RandomWalk())
        course = Course(target(), stage)
        traced = jax.make_jaxpr(lambda m, c: stepwise_kl(m, KEY(0), c, 8)[0])(maps, course)
        flat = SNF(map="diagonal", layers=layers).blank(2)
        parts = (flat.maps, flat.log_steps, flat.rises)
        whole = jax.make_jaxpr(lambda p, c: path_kl(p, KEY(0), c, 8)[0])
        sizes.append((len(traced.eqns), len(whole(parts, Course(target(), flat)).eqns)))
    assert sizes[0] == sizes[1]


def test_a_langevin_step_is_weighed_by_the_densities_of_both_ways() -> None:
    """log G = log γ_b(y) − log γ_a(x) + log N(x; drift from y) − log N(y; drift from x)."""
    factor = np.array([[0.9, 0.0], [0.4, 0.6]])
    spread, path = 0.3, Tempering(target(two_modes))
    params = (linear.diagonal(2, float), Dense(jnp.asarray(factor)), jnp.log(spread))
    x = jnp.array([1.2, 0.3])
    y, log_g = Stirred(1).step(KEY(3), path, 0.2, 0.7, x, params)
    law, covariance = path.at(0.7), spread**2 * factor @ factor.T

    def moved(a: Any) -> Any:
        return a + 0.5 * covariance @ jax.grad(law.log_density)(a)

    normal = jax.scipy.stats.multivariate_normal.logpdf
    ways = normal(x, moved(y), covariance) - normal(y, moved(x), covariance)
    ends = law.log_density(y) - path.at(0.2).log_density(x)
    assert float(log_g) == pytest.approx(float(ends + ways), abs=1e-10)


def test_stochastic_flows_are_unbiased_before_training_and_after() -> None:
    """log Ẑ of untrained and trained layers within five of its own standard errors of log Z."""
    law, first = target(two_modes), SNF(map="diagonal", layers=8, stir=2).blank(2)
    parts, plan = (first.maps, first.log_steps, first.rises), Training(100, 64, 2e-2, 0.0)
    made = train(KEY(2), parts, Course(law, first), path_chi_square, plan, silent, 64)
    maps, log_steps, rises = made.density
    last = replace(first, maps=maps, log_steps=log_steps, rises=rises)
    sizes = []
    for stage in (first, last):
        population = run(KEY(3), stage, law, 8000)
        sizes.append(float(population.ess))
        error = np.sqrt(1 / sizes[-1] - 1 / 8000)
        assert error < 0.05
        assert abs(float(population.log_z) - 0.7) < 5 * error
    assert sizes[1] > 1.3 * sizes[0]
    assert float(last.betas[0]) == 0.0 and float(last.betas[-1]) == 1.0


def test_layers_compose_by_hand() -> None:
    """Prior, anneal, transport, resample, move: refused where ends do not meet."""
    walk, params = RandomWalk(), {"step_size": jnp.asarray(0.5)}
    maps = optimal(jnp.array([0.3, 1.0]))
    flow = jax.tree.map(lambda v: v[0], maps)
    annealed = Prior() >> Anneal((0.1, 0.3), walk, params, 3)
    sampler = annealed >> Transport(flow, 0.3, 1.0) >> Resample() >> Move(walk, 2, params)
    made = jax.jit(lambda key, law: sampler(key, law, 2000))(KEY(0), target())
    assert sampler.contract == rules.ProperlyWeighted()
    assert float(made.log_z) == pytest.approx(0.7, abs=0.1)
    with pytest.raises(CompositionError, match="starts at inverse temperature 0.5"):
        _ = annealed >> Transport(flow, 0.5, 1.0)
    layered = (
        Prior() >> SNF(map="diagonal", layers=2).blank(2) >> Resample() >> Move(walk, 1, params)
    )
    assert layered.contract == rules.ProperlyWeighted()
    with pytest.raises(CompositionError, match="wrongly weighted"):
        _ = Prior() >> FlowAnneal(jnp.array([0.0, 1.0]), maps, params, Langevin()) >> Correct()


def mix(length: int, step: float = 0.6, dim: int = 1) -> MixFlow:
    """A MixFlow for two near modes, from a Gaussian off their centre."""

    def near(x: Any, data: Any) -> Any:
        return 0.7 + jnp.logaddexp(gauss(x, -1.0, 0.7), gauss(x, 1.5, 1.0)) - jnp.log(2.0)

    frame = linear.Whiten(jnp.full(dim, 0.2), 1.3 * jnp.eye(dim))
    base = Flow(Gaussian(dim), linear.Whiten(jnp.full(dim, 0.5), 1.5 * jnp.eye(dim)))
    law = DensityTarget(near, dim)
    return MixFlow(base, Stir(law, frame, jnp.asarray(step), 3), length)


def test_the_measure_preserving_map_inverts_with_the_determinant_of_its_jacobian() -> None:
    flow = mix(2, dim=2)
    y = flow.start(KEY(0), 64)
    forward, inverse = jax.jit(jax.vmap(flow.map.forward)), jax.jit(jax.vmap(flow.map.inverse))
    z, log_det = forward(y)
    back, other = inverse(z)
    np.testing.assert_allclose(back, y, atol=1e-9)
    np.testing.assert_allclose(other, -log_det, atol=1e-9)
    jacobian = jax.vmap(jax.jacfwd(lambda v: flow.map.forward(v)[0]))(y)
    np.testing.assert_allclose(jnp.linalg.slogdet(jacobian)[1], log_det, atol=1e-8)
    # Nothing but the error of the leapfrog steps is lost of γ m.
    small = replace(flow.map, step_size=jnp.asarray(1e-3))
    after, gain = jax.vmap(small.forward)(y)
    kept = jax.vmap(small.log_joint)(after) + gain - jax.vmap(small.log_joint)(y)
    assert float(jnp.abs(kept).max()) < 1e-5


def test_a_mixflow_is_normalised_and_its_draws_follow_it() -> None:
    """∫q = 1 by the midpoint rule in (v, σ(ρ), u); means of draws within five standard errors."""
    flow = mix(4)
    middle = [(np.arange(n) + 0.5) / n for n in (120, 100, 12)]
    grid = np.stack(np.meshgrid(*middle, indexing="ij"), -1).reshape(-1, 3)
    # Uniform in σ(ρ), so that the logistic law is flat; v from −9 to 9.
    grid[:, 0] = 18 * grid[:, 0] - 9
    rho = np.log(grid[:, 1]) - np.log1p(-grid[:, 1])
    cell = 18 / (120 * 100 * 12) / (grid[:, 1] * (1 - grid[:, 1]))
    grid[:, 1] = rho
    log_prob = jax.jit(jax.vmap(flow.log_prob))
    q = np.exp(np.asarray(log_prob(grid))) * cell
    assert abs(q.sum() - 1) < 1e-3
    draws = np.asarray(flow.sample(KEY(1), 20_000))
    for f in (lambda y: np.tanh(y[:, 0]), lambda y: np.tanh(y[:, 1] * y[:, 0]), lambda y: y[:, 2]):
        truth, seen = q @ f(grid) / q.sum(), f(draws)
        assert abs(seen.mean() - truth) < 5 * seen.std() / np.sqrt(len(seen))


def test_densities_along_a_trajectory_are_those_of_its_points() -> None:
    flow = mix(6, dim=2)
    y = flow.start(KEY(2), 20)
    points, log_q = jax.jit(jax.vmap(flow.along))(y)
    np.testing.assert_allclose(points[:, 0], y)
    again = jax.vmap(jax.vmap(flow.log_prob))(points)
    np.testing.assert_allclose(log_q, again, atol=1e-6)


def test_mixflow_finds_the_evidence_and_refuses_what_it_cannot_invert() -> None:
    law = target(two_modes)
    made = MixFlowImportance(8, 3).populate(KEY(0), law, 2000, silent)
    assert made.population.size == 2000
    assert made.log_z_error is not None and made.log_z_error < 0.05
    assert abs(float(made.population.log_z) - 0.7) < 5 * made.log_z_error + 1e-3
    assert any("inverted 7 times" in note for note in made.notes)
    with pytest.raises(UnsupportedError, match="Use a shorter flow"):
        MixFlowImportance(8, 3, tolerance=1e-18).populate(KEY(0), law, 100, silent)
    with precision.scope("float32"), pytest.raises(UnsupportedError, match="precision='float64'"):
        MixFlowImportance().populate(KEY(0), law, 100, silent)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'affine'"):
        Craft(map="afine")
    with pytest.raises(SettingsError, match="Did you mean 'modes'"):
        SNF(reference="mode")
    with pytest.raises(SettingsError, match="threshold"):
        AFT(threshold=1.5)
    with pytest.raises(SettingsError, match="length"):
        MixFlowImportance(length=1)
    with pytest.raises(CompositionError, match="no engine that runs one invariant kernel"):
        Craft(move="smc")
    improper = DensityTarget(one_mode, 2, jnp.zeros(2))
    flat = DensityTarget(one_mode, 0, jnp.zeros(2))
    for engine in (Craft(), AFT()):
        with pytest.raises(UnsupportedError, match=f"^{type(engine).__name__.lower()} needs at"):
            engine.populate(KEY(0), flat, 64, silent)
    with pytest.raises(UnsupportedError, match="no reference"):
        Craft(reference="prior").populate(KEY(0), improper, 64, silent)


@pytest.mark.parametrize("name", ("craft", "aft", "snf", "mixflow"))
def test_engines_are_registered_with_the_contracts_they_derive(name: str) -> None:
    found: Contract = registry.engine(name).contract
    assert found == registry.spec(name).contract


@pytest.mark.parametrize(
    "engine", [Craft("affine", 3, move=Walk()), SNF("affine", 3), MixFlowImportance(6)]
)
def test_the_stage_that_is_checked_is_proper(engine: Any) -> None:
    """E[Ẑ] = Z within five standard errors for layers that nothing has trained."""
    law, n = target(two_modes), 4000
    start = equally_weighted(law.sample_reference(KEY(4), n))
    made = jax.jit(engine.stage)(KEY(5), law.tempered(jnp.zeros(())), law, start)
    assert engine.stage.contract == rules.ProperlyWeighted()
    if isinstance(engine, Craft):
        assert float(made.log_z) == pytest.approx(0.7, abs=0.25)
    else:
        error = np.sqrt(1 / float(made.ess) - 1 / n)
        assert error < 0.2 and abs(float(made.log_z) - 0.7) < 5 * error
