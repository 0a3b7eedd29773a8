"""Flows: maps against Jacobians, densities by quadrature, weights before and after training."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flowjax")

from ppcore_flows import linear, maps
from ppcore_flows.bases import Gaussian, StudentT, mixture
from ppcore_flows.density import Defended, Flow, weighed
from ppcore_flows.flow import Design, FlowImportance, learn
from ppcore_flows.flow_mcmc import FlowMCMC
from ppcore_flows.laplace import Laplace
from ppcore_flows.losses import chi_square, forward_kl, reverse_kl
from ppcore_flows.neutra import NeuTra
from ppcore_flows.pathfinder import Pathfinder
from ppcore_flows.start import explore
from ppcore_flows.training import Training, train
from ppcore_flows.variational import Variational

from ppcore import contract as rules
from ppcore import precision, registry
from ppcore.errors import CompositionError, SettingsError, UnsupportedError
from ppcore.paths import Between
from ppcore.population import Population
from ppcore.target import DensityTarget
from ppcore.testing.checks import transport
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def silent(_: Any) -> None:
    """Takes reports."""


def two_modes(x: Any, data: Any) -> Any:
    """0.7 N((3, 3), 0.25 I) + 0.3 N((−3, −3), I), times exp(1.5)."""
    a = -0.5 * jnp.sum((x - 3.0) ** 2) / 0.25 - jnp.log(0.25)
    b = -0.5 * jnp.sum((x + 3.0) ** 2)
    log_mixture = jnp.logaddexp(jnp.log(0.7) + a, jnp.log(0.3) + b)
    return log_mixture - jnp.log(2 * jnp.pi) + 1.5


def correlated(x: Any, data: Any) -> Any:
    """N((1, −2), [[4, 1.8], [1.8, 1]]) without its constant."""
    off = x - jnp.array([1.0, -2.0])
    return -0.5 * off @ jnp.linalg.solve(COVARIANCE, off)


COVARIANCE = np.array([[4.0, 1.8], [1.8, 1.0]])
CORRELATED_Z = np.log(2 * np.pi) + 0.5 * np.log(np.linalg.det(COVARIANCE))


def shaken(tree: Any, size: float = 0.2) -> Any:
    """``tree`` with noise on every leaf, so that nothing is the identity."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(len(leaves))
    moved = [leaf + size * rng.standard_normal(np.shape(leaf)) for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def made_map(name: str) -> Any:
    key = jax.random.key(0)
    makers = {
        "affine_coupling": lambda: maps.affine_coupling(key, 3, layers=2, width=8),
        "spline_coupling": lambda: maps.spline_coupling(key, 3, layers=2, width=8, bins=4),
        "maf": lambda: maps.autoregressive(key, 3, layers=2, width=8),
        "iaf": lambda: maps.autoregressive(key, 3, layers=2, width=8, fast_inverse=False),
        "triangular": lambda: maps.triangular(key, 1, layers=2, bins=4),
        "diagonal": lambda: linear.diagonal(3, float),
        "lower_triangular": lambda: linear.lower_triangular(3, float),
        "low_rank": lambda: linear.low_rank(key, 3, 2, float),
        "row": lambda: linear.Row((linear.diagonal(2, float), linear.lower_triangular(2, float))),
    }
    return shaken(makers[name]())


MAPS = (
    "affine_coupling",
    "spline_coupling",
    "maf",
    "iaf",
    "triangular",
    "diagonal",
    "lower_triangular",
    "low_rank",
    "row",
)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_inverts_and_its_log_determinant_is_that_of_its_jacobian(name: str) -> None:
    made = made_map(name)
    # One program for each direction compiles faster than all of its operations one by one.
    compiled = SimpleNamespace(
        dim=made.dim, forward=jax.jit(made.forward), inverse=jax.jit(made.inverse)
    )
    subject = Subject(name, rules.Transport(), map=compiled)
    findings = list(transport.run(Session(subject, (), 1, 1e-3, 100, True)))
    assert all(found.ok for found in findings), [found.message for found in findings]


def test_equal_architectures_share_one_program() -> None:
    first = maps.affine_coupling(jax.random.key(1), 2, layers=1, width=4)
    second = maps.affine_coupling(jax.random.key(2), 2, layers=1, width=4)
    assert jax.tree.structure(first) == jax.tree.structure(second)
    assert not np.array_equal(first.leaves[0], second.leaves[0])


def grid(low: float, high: float, n: int) -> tuple[np.ndarray, float]:
    points = np.linspace(low, high, n)
    both = np.stack(np.meshgrid(points, points, indexing="ij"), -1).reshape(-1, 2)
    return both, float(points[1] - points[0]) ** 2


def some_mixture() -> Any:
    factors = np.array([[[1.0, 0.0], [0.5, 0.7]], [[0.6, 0.2], [0.0, 1.1]]])
    means = np.array([[1.5, 0.0], [-2.0, 1.0]])
    return mixture(np.array([0.3, -0.4]), means, factors, float)


def densities() -> dict[str, Any]:
    whiten = linear.Whiten(jnp.array([0.5, -0.5]), jnp.array([[1.2, 0.0], [0.4, 0.8]]))
    spline = shaken(maps.spline_coupling(jax.random.key(0), 2, layers=2, width=8, bins=4))
    flow = Flow(some_mixture(), linear.Row((spline, whiten)))
    tight = linear.Whiten(jnp.zeros(2), 0.2 * jnp.eye(2))
    guard = Flow(StudentT(2, jnp.log(jnp.asarray(8.0))), tight)
    return {
        "mixture": some_mixture(),
        "flow": flow,
        "student_t": guard,
        "defended": Defended(flow, guard, jnp.asarray(0.2)),
    }


@pytest.mark.parametrize("name", ("mixture", "flow", "student_t", "defended"))
def test_densities_are_normalised_and_their_draws_follow_them(name: str) -> None:
    """∫q = 1 by quadrature; means of tanh features by draws within five standard errors of it."""
    density = densities()[name]
    x, cell = grid(-15.0, 15.0, 601)
    q = np.exp(np.asarray(jax.jit(jax.vmap(density.log_prob))(x))) * cell
    assert abs(q.sum() - 1) < 2e-3
    drawn = np.asarray(jax.jit(lambda: density.sample(jax.random.key(3), 20_000))())
    for f in (lambda v: np.tanh(v), lambda v: np.tanh(v[:, :1] * v[:, 1:])):
        truth, seen = q @ f(x) / q.sum(), f(drawn)
        error = seen.std(0) / np.sqrt(len(seen))
        assert (np.abs(seen.mean(0) - truth) < 5 * error).all()


def test_strata_of_a_mixture_estimate_its_mean() -> None:
    base = some_mixture()
    x, share = base.strata(jax.random.key(0), 20_001)
    assert float(share.sum()) == pytest.approx(1.0)
    truth = jax.nn.softmax(base.logits) @ base.means
    assert np.allclose(share @ x, truth, atol=0.05)


def test_the_path_gradient_vanishes_where_the_flow_is_the_target() -> None:
    """q = γ/Z: every draw's gradient is zero, not only their mean."""
    target = DensityTarget(correlated, 2)
    factor = np.linalg.cholesky(COVARIANCE)
    whiten = linear.Whiten(jnp.array([1.0, -2.0]), jnp.asarray(factor))
    flow = Flow(Gaussian(2), linear.Row((linear.lower_triangular(2, float), whiten)))
    run = jax.grad(lambda q: reverse_kl(q, jax.random.key(0), target, 16), has_aux=True)
    gradient, (loss, spread) = run(flow)
    inner = jax.tree.leaves(gradient.map.maps[0])
    assert max(float(jnp.abs(g).max()) for g in inner) < 1e-9
    assert float(loss) == pytest.approx(-CORRELATED_Z) and float(spread) < 1e-9


def test_the_path_gradient_is_that_of_the_divergence() -> None:
    """Against KL(N(m, 1) ‖ N(0, 1)) = m²/2 in closed form, within five standard errors."""

    def normal(x: Any, data: Any) -> Any:
        return -0.5 * jnp.sum(x**2)

    flow = Flow(Gaussian(1), linear.Diagonal(jnp.array([0.7]), jnp.array([0.3])))
    run = jax.grad(lambda q: reverse_kl(q, jax.random.key(1), DensityTarget(normal, 1), 20_000)[0])
    gradient = run(flow).map
    # KL = (m² + s²)/2 − log s, so ∂m = m and ∂ log s = s² − 1.
    assert float(gradient.shift[0]) == pytest.approx(0.7, abs=0.05)
    assert float(gradient.log_scale[0]) == pytest.approx(np.exp(0.6) - 1, abs=0.1)


@pytest.mark.parametrize("fn, log_z", [(two_modes, 1.5), (correlated, CORRELATED_Z)])
def test_weights_are_unbiased_before_training_and_after(fn: Any, log_z: float) -> None:
    """E[w] = Z whatever the flow: log Ẑ within five of its own standard errors, and by quadrature
    ∫ q (γ/q) = Z where the draws go."""
    target = DensityTarget(fn, 2)
    design = Design("affine_coupling", "gaussian", layers=2, width=8)
    found = explore(jax.random.key(0), target)
    before = design.beginning(jax.random.key(1), found)
    short = Training(50, 64, 5e-3, 0.5)
    after = train(jax.random.key(2), before, target, chi_square, short, silent, 64).density
    for flow in (before, after):
        made = weighed(jax.random.key(3), flow, target, 40_000)
        error = np.sqrt(1 / float(made.ess) - 1 / 40_000)
        assert error < 0.05
        assert abs(float(made.log_z) - log_z) < 5 * error


def test_a_flow_covers_two_modes_and_finds_the_evidence() -> None:
    # One architecture and batch here and in the chains' test, so that one program serves both.
    engine = FlowImportance(map="triangular", layers=1, bins=4, steps=100, polish=0)
    target = DensityTarget(two_modes, 2)
    made = engine.populate(jax.random.key(0), target, 4096, silent)
    weights, x = np.asarray(made.population.weights), np.asarray(made.population.x)
    assert abs(float(made.population.log_z) - 1.5) < 0.02
    assert float(made.population.ess) > 0.8 * 4096
    assert weights[x[:, 0] > 0].sum() == pytest.approx(0.7, abs=0.04)
    assert made.gradients > 100 * 256 + 4096
    assert any("2 modes" in note for note in made.notes)


def test_training_that_diverges_keeps_the_last_good_parameters() -> None:
    target = DensityTarget(correlated, 2)
    flow = Design("triangular", "gaussian", layers=1, bins=4).beginning(
        jax.random.key(0), explore(jax.random.key(1), target)
    )
    law, plan = Between(flow, target), Training(200, 64, 1e5, 0.0)
    wild = train(jax.random.key(2), flow, law, reverse_kl, plan, silent, 64, annealed=True)
    assert "diverged" in wild.notes[0] and "Lower the learning rate" in wild.notes[0]
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(wild.density))
    same = jax.tree.map(np.array_equal, wild.density, flow)
    assert all(jax.tree.leaves(same))
    assert wild.evaluations < 200 * 64


def test_forward_kl_fits_weighted_points() -> None:
    """A Gaussian fitted to a weighted population has its moments."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.standard_normal((4000, 1)) * 2 + 1)
    law = Population(x, 0.5 * x[:, 0], jnp.zeros(()))
    flow = Flow(Gaussian(1), linear.diagonal(1, float))
    plan = Training(600, 256, 0.1, 0.0)
    made = train(jax.random.key(0), flow, law, forward_kl, plan, silent, 0)
    mean = float(law.weights @ x[:, 0])
    assert float(made.density.map.shift[0]) == pytest.approx(mean, abs=0.3)
    assert made.evaluations == 0


@pytest.mark.parametrize(
    "engine",
    [
        Variational("full_rank", steps=100),
        Variational("low_rank", rank=1, steps=150),
        Laplace(),
        Pathfinder(paths=4),
    ],
    ids=lambda e: getattr(e, "family", type(e).__name__),
)
def test_gaussian_families_find_the_evidence_of_a_gaussian(engine: Any) -> None:
    made = engine.populate(jax.random.key(0), DensityTarget(correlated, 2), 2048, silent)
    assert abs(float(made.population.log_z) - CORRELATED_Z) < 0.05
    assert float(made.population.ess) > 0.8 * 2048
    assert engine.contract == rules.ProperlyWeighted()


def test_mean_field_of_a_correlated_gaussian_has_the_conditional_scales() -> None:
    """The reverse KL of a diagonal Gaussian is least at the precision's diagonal."""
    target = DensityTarget(correlated, 2)
    engine = Variational("mean_field", steps=150)
    found = explore(jax.random.key(0), target)
    flow = engine.beginning(jax.random.key(1), found)
    made = train(jax.random.key(2), flow, target, reverse_kl, engine.training, silent, 64)
    x = np.asarray(made.density.sample(jax.random.key(3), 20_000))
    truth = np.diag(np.linalg.inv(COVARIANCE)) ** -0.5
    assert np.allclose(x.std(0), truth, rtol=0.05)


def test_chains_with_flow_proposals_cross_between_modes() -> None:
    engine = FlowMCMC(
        local="random_walk", map="triangular", layers=1, bins=4, steps=50, rounds=1, round_steps=50
    )
    target = DensityTarget(two_modes, 2)
    warm = engine.warmup(jax.random.key(0), target, 32, silent)
    carry = engine.init(jax.random.key(1), target, warm.tuned, warm.x)
    _, x, _ = engine.block(jax.random.key(2), target, warm.tuned, carry, 128)
    right = np.asarray(x)[..., 0] > 0
    crossings = (right[:, 1:] != right[:, :-1]).mean()
    assert crossings > 0.05
    assert right.mean() == pytest.approx(0.7, abs=0.06)
    assert warm.gradients > 50 * 256


def test_neutra_runs_in_the_coordinates_of_its_flow() -> None:
    engine = NeuTra(map="triangular", layers=1, bins=4, steps=50, batch=64)
    target = DensityTarget(correlated, 2)
    warm = engine.warmup(jax.random.key(0), target, 16, silent)
    carry = engine.init(jax.random.key(1), target, warm.tuned, warm.x)
    _, x, stats = engine.block(jax.random.key(2), target, warm.tuned, carry, 128)
    flat = np.asarray(x).reshape(-1, 2)
    exact = jax.vmap(lambda v: target.log_density(v))(jnp.asarray(flat))
    assert np.allclose(np.asarray(stats["log_density"]).ravel(), exact)
    assert np.allclose(flat.mean(0), [1.0, -2.0], atol=0.25)
    assert np.allclose(np.cov(flat.T), COVARIANCE, rtol=0.25)


class Rough(DensityTarget):
    """A target that says it cannot be differentiated."""

    has_gradient = False
    finite_sites = ("k",)


def test_bad_input_is_refused() -> None:
    design = Design()
    rough = Rough(correlated, 2)
    with pytest.raises(UnsupportedError, match="finite sites 'k' are kept"):
        learn(jax.random.key(0), rough, design, silent, "flow")
    for engine in (Laplace(), Pathfinder(), Variational()):
        with pytest.raises(UnsupportedError, match="by the gradient"):
            engine.populate(jax.random.key(0), rough, 64, silent)
    with pytest.raises(SettingsError, match="only one. Use map='triangular'"):
        Design("affine_coupling").architecture(1)
    assert Design().architecture(1).kind == "triangular"
    with pytest.raises(SettingsError, match="Did you mean 'spline_coupling'"):
        FlowImportance(map="spline_couplin")
    with pytest.raises(SettingsError, match="base='mixtur'"):
        FlowImportance(base="mixtur")
    with pytest.raises(SettingsError, match="rate"):
        FlowImportance(rate=-1.0)
    with pytest.raises(CompositionError, match="no engine that runs one invariant kernel"):
        FlowMCMC(local="smc")._local  # noqa: B018


@pytest.mark.parametrize("name", ("flow", "flow_mcmc", "neutra", "laplace", "full_rank"))
def test_engines_are_registered_with_the_contracts_they_derive(name: str) -> None:
    assert registry.engine(name).contract == registry.spec(name).contract
