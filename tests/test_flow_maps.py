"""More maps and trainings of flows: Jacobians, inverses, circles, bootstrap, boosting."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("flowjax")

from ppcore_flows import linear
from ppcore_flows.bases import Gaussian
from ppcore_flows.boosted import Boosted
from ppcore_flows.bootstrap import Bootstrap, bootstrapped, search
from ppcore_flows.bures_wasserstein import forward_backward
from ppcore_flows.circle import Recut, angles, circle
from ppcore_flows.density import Flow, weighed
from ppcore_flows.flow import Design, FlowImportance, begun
from ppcore_flows.learned import Learned
from ppcore_flows.losses import importance_kl
from ppcore_flows.maps import enough_layers, permutations
from ppcore_flows.residual import residual
from ppcore_flows.start import explore
from ppcore_flows.sylvester import sylvester
from ppcore_flows.training import Training, train
from ppcore_flows.variational import Variational, full_rank

import ppcore as pp
from ppcore import contract as rules
from ppcore import dist, precision
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.target import DensityTarget
from ppcore.testing.checks import evidence, transport
from ppcore.testing.models import pool
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def silent(_: Any) -> None:
    """Takes reports."""


def shaken(tree: Any, size: float = 0.2) -> Any:
    """``tree`` with noise on every leaf, so that nothing is the identity."""
    leaves, structure = jax.tree.flatten(tree)
    rng = np.random.default_rng(len(leaves))
    moved = [leaf + size * rng.standard_normal(np.shape(leaf)) for leaf in leaves]
    return jax.tree.unflatten(structure, moved)


def made_map(name: str) -> Any:
    key = jax.random.key(0)
    if name == "residual":
        return shaken(residual(key, 3, layers=2, width=8))
    if name == "sylvester":
        return shaken(sylvester(key, 3, layers=2, reflections=2))
    if name == "circle":
        return shaken(circle(key, 3, layers=2, width=8, bins=4), 0.5)
    if name == "recut":
        return Recut(jnp.array([2.0, -1.0]), (0, 2), 3)
    pytest.importorskip("diffrax")
    from ppcore_flows.continuous import continuous

    return shaken(continuous(key, 2, width=4))


@pytest.mark.parametrize("name", ("residual", "sylvester", "circle", "recut", "continuous"))
def test_a_map_inverts_and_its_log_determinant_is_that_of_its_jacobian(name: str) -> None:
    made = made_map(name)
    compiled = SimpleNamespace(
        dim=made.dim, forward=jax.jit(made.forward), inverse=jax.jit(made.inverse)
    )
    subject = Subject(name, rules.Transport(), map=compiled)
    findings = list(transport.run(Session(subject, (), 1, 1e-3, 100, True)))
    assert all(found.ok for found in findings), [found.message for found in findings]


@pytest.mark.parametrize("name", ("residual", "sylvester"))
def test_an_inverse_by_iteration_has_the_derivative_of_the_inverse(name: str) -> None:
    """In the parameters, which no identity in x sees: against central differences."""
    made, y = made_map(name), jnp.array([0.3, -0.2, 0.5])
    leaves, structure = jax.tree.flatten(made)
    rng = np.random.default_rng(3)
    way = [rng.standard_normal(leaf.shape) for leaf in leaves]

    @jax.jit
    def value(step: Any) -> Any:
        moved = [leaf + step * w for leaf, w in zip(leaves, way, strict=True)]
        x, log_det = jax.tree.unflatten(structure, moved).inverse(y)
        return jnp.sum(jnp.sin(x)) + log_det

    slope = jax.jit(jax.grad(value))(0.0)
    assert float(slope) == pytest.approx(float(value(1e-5) - value(-1e-5)) / 2e-5, rel=1e-6)


def test_the_roulette_of_a_residual_flow_is_unbiased() -> None:
    made, x = made_map("residual"), jnp.array([0.3, -0.2, 0.5])
    exact, log_det = made.forward(x)
    keys = jax.random.split(jax.random.key(1), 20_000)
    y, seen = jax.jit(jax.vmap(made.roulette, (0, None)))(keys, x)
    assert np.allclose(y, exact)
    error = float(jnp.std(seen)) / np.sqrt(len(keys))
    assert 0 < error < 0.01
    assert abs(float(jnp.mean(seen) - log_det)) < 5 * error


def test_a_map_of_the_circle_has_no_seam() -> None:
    made = shaken(circle(jax.random.key(0), 1, layers=2, bins=4), 0.5)
    forward = jax.jit(made.forward)
    (low, slope), (high, same) = forward(jnp.array([-np.pi])), forward(jnp.array([np.pi - 1e-12]))
    assert float(high[0] - low[0]) == pytest.approx(2 * np.pi, abs=1e-9)
    assert float(slope) == pytest.approx(float(same), abs=1e-9)
    far, _ = forward(jnp.array([1.0 + 6 * np.pi]))
    assert float(far[0]) == pytest.approx(float(forward(jnp.array([1.0]))[0][0]) + 6 * np.pi)


@pp.model
def heading() -> None:
    """An angle whose mass lies around ±π, where its coordinate is cut open."""
    a = pp.sample("a", dist.VonMises(np.pi, 2.0))
    pp.sample("y", dist.Normal(np.cos(a), 0.5))


def test_an_angle_is_cut_open_where_its_mass_is_not() -> None:
    target = heading().observe(y=-0.8).target()
    assert angles(target) == (0,)
    design = Design(map="triangular", layers=1, bins=4)
    flow, found = begun(*jax.random.split(jax.random.key(0), 3), target, design)
    made = weighed(jax.random.key(1), flow, target, 20_000)
    a = np.linspace(-np.pi, np.pi, 4001)[:-1]
    density = np.exp(2.0 * np.cos(a - np.pi) - 2.0 * (-0.8 - np.cos(a)) ** 2)
    density /= 2 * np.pi * np.i0(2.0) * np.sqrt(2 * np.pi * 0.25)
    truth = np.log(density.mean() * 2 * np.pi)
    assert float(made.log_z) == pytest.approx(truth, abs=0.03)
    assert float(made.ess) > 0.5 * 20_000 and found.modes


@pytest.mark.parametrize("dim", (2, 3, 10, 33))
def test_every_coordinate_moves_given_every_other(dim: int) -> None:
    turns = permutations(dim, enough_layers(dim))
    order, met = np.arange(dim), np.eye(dim, dtype=bool)
    for turn in turns:
        met[np.ix_(order[: dim // 2], order[dim // 2 :])] = True
        order = order[turn]
    assert (order == np.arange(dim)).all()
    assert met.mean() > 0.95


def narrow(x: Any, data: Any) -> Any:
    """exp(0.7) N((1, …), 0.6² I)."""
    d = x.shape[0]
    return 0.7 - 0.5 * jnp.sum((x - 1.0) ** 2) / 0.36 - 0.5 * d * jnp.log(2 * jnp.pi * 0.36)


def standard() -> Flow:
    return Flow(Gaussian(1), linear.diagonal(1, float))


def test_annealing_to_the_square_of_the_weights_is_properly_weighted() -> None:
    """E[w] = ∫ γ²/q in closed form, q = N(0, 1) and γ = e^0.7 N(1, 0.36), for any step size."""
    # γ²/q is Gaussian with precision 2/0.36 − 1 and linear term 2/0.36.
    precision_, linear_ = 2 / 0.36 - 1, 2 / 0.36
    truth = 1.4 - np.log(0.36) - 1 / 0.36 - 0.5 * np.log(precision_) + 0.5 * linear_**2 / precision_
    find = jax.jit(search, static_argnums=5)
    law = DensityTarget(narrow, 1)
    made, _, _ = find(
        jax.random.key(0), standard(), law, 2.0, jnp.log(jnp.full(3, 0.4)), (4, 3, 20_000)
    )
    w = np.exp(np.asarray(made.log_weight) - truth)
    assert abs(w.mean() - 1) < 5 * w.std() / np.sqrt(len(w)) < 0.1
    assert np.allclose(made.log_q, -0.5 * np.asarray(made.x)[:, 0] ** 2 - 0.5 * np.log(2 * np.pi))


@pytest.mark.parametrize("alpha", (1.0, 2.0))
def test_the_bootstrap_reaches_the_target(alpha: float) -> None:
    plan = Training(200, 64, 5e-2, 0.0)
    law = DensityTarget(narrow, 1)
    how = Bootstrap(alpha, kept=10)
    made = bootstrapped(jax.random.key(0), standard(), law, how, plan, silent)
    assert float(made.density.map.shift[0]) == pytest.approx(1.0, abs=0.1)
    assert float(jnp.exp(made.density.map.log_scale[0])) == pytest.approx(0.6, abs=0.1)
    assert made.evaluations == 200 * -(-13 * 64 // 5) and not made.notes
    assert made.spreads[-1] < 0.5 * made.spreads[0]


def test_weighted_draws_fit_by_forward_kl() -> None:
    plan = Training(200, 128, 3e-2, 0.0)
    made = train(
        jax.random.key(0), standard(), DensityTarget(narrow, 1), importance_kl, plan, silent, 128
    )
    assert float(made.density.map.shift[0]) == pytest.approx(1.0, abs=0.1)


COVARIANCE = np.array([[4.0, 1.8], [1.8, 1.0]])


def correlated(x: Any, data: Any) -> Any:
    """N((1, −2), [[4, 1.8], [1.8, 1]]) without its constant."""
    off = x - jnp.array([1.0, -2.0])
    return -0.5 * off @ jnp.linalg.solve(COVARIANCE, off)


def test_bures_wasserstein_steps_reach_a_gaussian_from_afar() -> None:
    """To more digits than any batch has: near the optimum the steps have no noise."""
    axes = linear.Whiten(jnp.array([3.0, 3.0]), jnp.eye(2))
    flow = Flow(Gaussian(2), linear.Row((linear.lower_triangular(2, float), axes)))
    plan = Training(1000, 16, 0.7, 0.0)
    made = forward_backward(jax.random.key(0), flow, DensityTarget(correlated, 2), plan, silent)
    gaussian = made.density.map.maps[0]
    factor = np.asarray(jnp.exp(gaussian.log_scale)[:, None] * gaussian.units)
    assert np.allclose(factor @ factor.T, COVARIANCE, atol=1e-3)
    assert np.allclose(gaussian.shift + 3.0, [1.0, -2.0], atol=1e-3)
    with pytest.raises(SettingsError, match="needs full_rank"):
        Variational("mean_field", optimiser="bures_wasserstein")
    assert full_rank(optimiser="bures_wasserstein").training.rate == 0.5


def bent(x: Any, data: Any) -> Any:
    return -0.5 * x[0] ** 2 - 2.0 * (x[1] - x[0] ** 2) ** 2


def test_boosting_adds_parts_where_weights_are_large() -> None:
    engine = Boosted(parts=3, steps=300, batch=96)
    made = engine.populate(jax.random.key(0), DensityTarget(bent, 2), 4096, silent)
    assert made.notes[-1] == "The mixture has 3 of at most 3 parts."
    # One Gaussian by reverse KL has 5 %.
    assert float(made.population.ess) > 0.1 * 4096
    error = made.log_z_error or np.inf
    assert abs(float(made.population.log_z) - np.log(np.pi)) < 5 * error < 0.2


def test_a_stage_that_trains_is_properly_weighted() -> None:
    """E[Ẑ ΣWf] = Z π(f) by bets over joint draws, as ``ppcore check`` does."""
    model = pool(("gamma_scale",))["gamma_scale"]
    stage = Learned(Variational("full_rank"), steps=10)
    subject = Subject("learned", stage.contract, stage=stage, finite=())
    session = Session(subject, (model,), 1, 1e-4, 800, False)
    found = list(evidence.run(session))
    assert len(found) == 1 and found[0].ok, found


def rounded(x: Any, data: Any) -> Any:
    return -jnp.sum(jnp.abs(jnp.round(x)))


def detached(x: Any, data: Any) -> Any:
    return -0.5 * jnp.sum(jax.lax.stop_gradient(x) ** 2) - 0.01 * jnp.sum(x)


def half(x: Any, data: Any) -> Any:
    """N(0, I) cut off at x₀ = 0."""
    return jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), -jnp.inf)


def test_densities_that_cannot_be_differentiated_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="gradient is zero at"):
        explore(jax.random.key(0), DensityTarget(rounded, 2))
    with pytest.raises(UnsupportedError, match="disagrees with its differences"):
        explore(jax.random.key(0), DensityTarget(detached, 2))


def test_an_edge_that_no_map_reaches_is_named() -> None:
    engine = Variational("full_rank", steps=50)
    try:
        made = engine.populate(jax.random.key(0), DensityTarget(half, 2), 2048, silent)
    except UnsupportedError as error:
        said = str(error)
    else:
        said = " ".join(made.notes)
        assert float(made.population.log_z) == pytest.approx(np.log(np.pi), abs=0.1)
    assert "the posterior ends at an edge" in said and "dist.TruncatedNormal" in said


@pp.model
def direction() -> None:
    """A point on the sphere, which has no coordinates without a seam."""
    pp.sample("way", dist.ProjectedNormal(np.ones(3)))


def test_a_support_without_coordinates_is_named() -> None:
    with pytest.raises(UnsupportedError, match="ProjectedNormal cannot be a latent site"):
        _ = direction().target().dim


def test_settings_of_trainings_are_checked() -> None:
    with pytest.raises(SettingsError, match="Did you mean 'fab'"):
        FlowImportance(loss="fabb")
    with pytest.raises(SettingsError, match="must divide 50"):
        FlowImportance(reuse=7)
    with pytest.raises(SettingsError, match="loss='reverse'"):
        Variational(loss="reverse")
    assert Design(map="residual").architecture(1).kind == "residual"
