"""Langevin engines: ratios against dense Gaussians, orders, exact identities, fixed points."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_langevin.ghmc import GHMC
from ppcore_langevin.hit_and_run import HitAndRun
from ppcore_langevin.in_and_out import InAndOut
from ppcore_langevin.mala import MALA
from ppcore_langevin.mean_field import Crowd
from ppcore_langevin.mirror import MirrorLangevin, log_metric, solved
from ppcore_langevin.moves import Step
from ppcore_langevin.populations import Frame
from ppcore_langevin.proximal import Penalised, ProximalMALA, kinks
from ppcore_langevin.randomized_midpoint import kinetic_noise
from ppcore_langevin.reverse_diffusion import ReverseDiffusion
from ppcore_langevin.riemannian import RiemannianMALA, spread
from ppcore_langevin.sgld import SGLD
from ppcore_langevin.svgd import SVGD
from ppcore_langevin.ula import ULA
from ppcore_langevin.walk_jump import WalkJump
from scipy.stats import multivariate_normal as mvn

import ppcore as pp
from ppcore import dist, precision, random, registry
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.target import DensityTarget
from ppcore.testing.certify import subject_of
from ppcore.testing.suite import Plan, run_suite
from ppcore.tuning.preconditioner import Dense, LowRank

FACTOR = np.array([[0.9, 0.0, 0.0], [0.3, 0.7, 0.0], [-0.2, 0.4, 1.1]])
NAMES = (
    "ula mala tamed mirror_langevin proximal_langevin riemannian_mala baoab obabo ghmc "
    "randomized_midpoint kinetic_midpoint mean_field_langevin in_and_out hit_and_run svgd sgld "
    "sghmc walk_jump reverse_diffusion"
).split()


@pytest.fixture(autouse=True)
def double() -> Any:
    with precision.scope("float64"):
        yield


def bent(x: Any, _: Any) -> Any:
    """A density with curvature that changes from place to place."""
    return -0.5 * x[0] ** 2 - 0.25 * (x[1] - x[0] ** 2) ** 2 - jnp.cosh(x[2]) - 0.1 * x[2] * x[0]


def exponentials(x: Any, _: Any) -> Any:
    """Gamma(2, 1) variables in logarithms."""
    return jnp.sum(2.0 * x - jnp.exp(x))


class Positive(DensityTarget):
    """Says that its coordinates are logarithms."""

    def constrain(self, x: Any) -> dict[str, Any]:
        return {"theta": jnp.exp(x)}


jax.tree_util.register_pytree_node_class(Positive)


def taken(kernel: Any, target: Any, params: Any, seed: int) -> tuple[Any, Any, float]:
    """x, the proposal y, and the acceptance rate that the kernel reports."""
    k_start, k_step = jax.random.split(jax.random.key(seed))
    x = jax.random.normal(k_start, (3,)) * 0.7
    state = kernel.init(k_start, target, x, params)
    rate = float(kernel.step(k_step, target, state, params)[1]["acceptance_rate"])
    z = random.normal(random.split(k_step)[0], (3,), x.dtype)
    return x, z, rate


def rate_of(target: Any, x: Any, z: Any, law: Any) -> float:
    """min(1, γ(y) q(y, x)/γ(x) q(x, y)) with dense Gaussians q; law(x) = (mean, root)."""
    mean, root = law(x)
    y = mean + root @ z
    back, back_root = law(y)
    ratio = float(target.log_density(y) - target.log_density(x))
    ratio += mvn.logpdf(x, back, back_root @ back_root.T)
    ratio -= mvn.logpdf(y, mean, root @ root.T)
    return float(np.exp(min(0.0, ratio)))


@pytest.mark.parametrize("kernel", [MALA(), ProximalMALA()], ids=["mala", "proximal"])
def test_the_langevin_ratio_is_that_of_dense_gaussians(kernel: Any) -> None:
    h, f = 0.4, jnp.asarray(FACTOR)
    target = DensityTarget(bent, 3)
    if isinstance(kernel, ProximalMALA):
        target = Penalised(target, l1, shrink, jnp.asarray(1.5))
    params = Step(Dense(f), jnp.asarray(h))

    def law(x: Any) -> tuple[Any, Any]:
        drift = kernel.drift(target, kernel.score(target, x), params)
        return x + h * f @ drift, np.sqrt(2 * h) * f

    rates = []
    for seed in range(6):
        x, z, rate = taken(kernel, target, params, seed)
        rates.append(rate)
        assert rate == pytest.approx(rate_of(target, x, z, law), rel=1e-9)
    assert min(rates) < 0.999


def l1(x: Any, rate: Any) -> Any:
    return rate * jnp.sum(jnp.abs(x))


def shrink(x: Any, lam: Any, rate: Any) -> Any:
    return jnp.sign(x) * jnp.maximum(jnp.abs(x) - lam * rate, 0.0)


def test_mirror_steps_have_the_metric_of_the_mirror_map() -> None:
    """Against div D by automatic differentiation of D = A F Fᵀ A."""
    kernel, target, f, h = MirrorLangevin(), Positive(exponentials, 3), jnp.asarray(FACTOR), 0.2
    level = jnp.array([0.3, -0.2, 0.5])
    params = kernel.parameters(Dense(f), np.sqrt(2 * h), 1.0)
    params = params._replace(level=level, weight=jnp.ones(()))

    def matrix(x: Any) -> Any:
        a = jnp.exp(0.5 * (level - x))  # log g = x for θ = exp(x)
        return (a[:, None] * f) @ (a[:, None] * f).T

    def law(x: Any) -> tuple[Any, Any]:
        div = jnp.trace(jax.jacfwd(matrix)(x), axis1=1, axis2=2)
        drift = matrix(x) @ jax.grad(target.log_density)(x) + div
        return x + h * drift, np.sqrt(2 * h) * jnp.exp(0.5 * (level - x))[:, None] * f

    for seed in range(4):
        x, z, rate = taken(kernel, target, params, seed)
        assert rate == pytest.approx(rate_of(target, x, z, law), rel=1e-9)


def test_riemannian_steps_have_the_softabs_metric_and_its_divergence() -> None:
    kernel, target, f, h = RiemannianMALA(2.0), DensityTarget(bent, 3), jnp.asarray(FACTOR), 0.3
    params = Step(Dense(f), jnp.asarray(h))

    def matrix(w: Any) -> Any:
        values, vectors = jnp.linalg.eigh(-f.T @ jax.hessian(target.log_density)(f @ w) @ f)
        return (vectors * jnp.tanh(2.0 * values) / values) @ vectors.T

    def law(x: Any) -> tuple[Any, Any]:
        w = jnp.linalg.solve(f, x)
        div = jnp.trace(jax.jacfwd(matrix)(w), axis1=1, axis2=2)
        drift = matrix(w) @ (f.T @ jax.grad(target.log_density)(x)) + div
        values, vectors = jnp.linalg.eigh(matrix(w))
        root = (vectors * jnp.sqrt(values)) @ vectors.T
        return x + f @ (h * drift), np.sqrt(2 * h) * f @ root

    law = jax.jit(law)
    for seed in range(4):
        x, z, rate = taken(kernel, target, params, seed)
        assert rate == pytest.approx(rate_of(target, x, z, law), rel=1e-8)


def test_softabs_is_smooth_through_zero_and_ties() -> None:
    values = jnp.array([-30.0, -1.0, -1e-3, 0.0, 1e-3, 0.02 / 5, 1.0, 500.0])
    phi, slope = spread(values, 5.0)
    auto = jax.vmap(jax.grad(lambda v: jnp.tanh(5 * v) / v))(jnp.where(values == 0, 1e-5, values))
    np.testing.assert_allclose(slope, auto, rtol=1e-5, atol=1e-3)
    assert (phi > 0).all() and float(phi.max()) == 5.0


def test_low_rank_factors_are_solved() -> None:
    basis = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 2)))[0]
    f = LowRank(jnp.array([0.5, 2.0, 1.0]), jnp.asarray(basis), jnp.array([3.0, 0.2]))
    v = jnp.array([1.0, -2.0, 0.5])
    np.testing.assert_allclose(f.push(solved(f, v)), v, rtol=1e-12)


@pytest.mark.parametrize("h", [0.01, 0.5, 3.0])
def test_kinetic_noise_has_the_covariance_of_the_ornstein_uhlenbeck_path(h: float) -> None:
    gamma, part = 1.7, 0.37
    rows = np.stack(kinetic_noise(h, part, gamma, jnp.eye(3)))
    t, w = np.polynomial.legendre.leggauss(40)
    got = rows @ rows.T

    def x_at(end: float, s: Any) -> Any:
        return np.where(s < end, (1 - np.exp(-gamma * (end - s))) / gamma, 0.0)

    want = np.zeros((3, 3))
    for low, high in ((0.0, part * h), (part * h, h)):
        s = low + (high - low) * (t + 1) / 2
        each = np.stack([x_at(part * h, s), x_at(h, s), np.exp(-gamma * (h - s))])
        want += (each * w) @ each.T * (high - low) / 2 * 2 * gamma
    np.testing.assert_allclose(got, want, rtol=1e-7, atol=1e-13)


@pytest.mark.parametrize("name", ["obabo", "randomized_midpoint"])
def test_the_bias_falls_with_the_order_that_is_declared(name: str) -> None:
    subject = subject_of(name, registry.engine(name), registry.spec(name).contract)
    report = run_suite(subject, Plan(replicates=2000, only=("bias_order",), optimise=False))
    assert report.ok, report.results


def moved_from(kernel: Any, target: Any, params: Any, x: Any) -> Any:
    """States after one step from each row of ``x``, all with keys of their own."""

    def one(key: Any, x: Any) -> Any:
        k_init, k_step = jax.random.split(key)
        return kernel.step(k_step, target, kernel.init(k_init, target, x, params), params)[0]

    keys = jax.random.split(jax.random.key(7), len(x))
    return jax.jit(jax.vmap(one))(keys, jnp.asarray(x))


def assert_same_mean(before: Any, after: Any) -> None:
    """Paired means within 4.5 standard errors: a false alarm in 1e5 for each column."""
    d = np.asarray(after, float) - np.asarray(before, float)
    z = d.mean(0) / (d.std(0) / np.sqrt(len(d)) + 1e-300)
    assert np.all(np.abs(z) < 4.5), z


def half_disc(x: Any, _: Any) -> Any:
    """Uniform on the right half of the unit disc."""
    return jnp.where((x @ x < 1) & (x[0] > 0), 0.0, -jnp.inf)


@pytest.mark.parametrize("kernel", [InAndOut(4), HitAndRun()], ids=["in_and_out", "hit_and_run"])
def test_bounded_targets_are_kept(kernel: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (60_000, 2)) * [0.5, 1] + [0.5, 0]
    x = x[(x**2).sum(1) < 1][:40_000]
    params = Step(Dense(jnp.eye(2)), jnp.asarray(0.3))
    y = np.asarray(moved_from(kernel, DensityTarget(half_disc, 2), params, x).x)
    assert ((y**2).sum(1) < 1).all() and (y[:, 0] > 0).all()
    assert np.mean(np.any(y != x, axis=1)) > 0.3
    features = [np.column_stack([v, v**2, v[:, 0] * v[:, 1] ** 2]) for v in (x, y)]
    assert_same_mean(*features)


def test_a_kinked_target_is_kept() -> None:
    x = np.random.default_rng(1).laplace(size=(40_000, 1))
    target = Penalised(DensityTarget(flat, 1), l1, shrink, jnp.asarray(1.0))
    params = Step(Dense(jnp.eye(1)), jnp.asarray(0.5))
    y = np.asarray(moved_from(ProximalMALA(), target, params, x).x)
    assert_same_mean(*(np.column_stack([v, np.abs(v), v**2 < 0.01]) for v in (x, y)))


def flat(x: Any, _: Any) -> Any:
    return jnp.zeros((), x.dtype)


def normal(x: Any, _: Any) -> Any:
    return -0.5 * jnp.sum(x**2)


def test_generalised_hmc_keeps_position_momentum_and_threshold() -> None:
    x = np.random.default_rng(2).normal(size=(40_000, 1))
    kernel = GHMC(slide=0.4)
    params = kernel.parameters(Dense(jnp.eye(1)), 1.6, 1.0)
    end = moved_from(kernel, DensityTarget(normal, 1), params, x)
    y, p, v = (np.asarray(a).reshape(-1) for a in (end.x, end.p, end.v))
    assert_same_mean(x**2, y[:, None] ** 2)
    n = len(y)
    rest = np.stack([(p**2 - 1) / 2**0.5, y * p, 3**0.5 * v, (v**2 - 1 / 3) * 45**0.5 / 2])
    assert np.all(np.abs(rest.mean(1)) * n**0.5 < 4.5)


@pp.model
def kinked(n: int) -> None:
    mu = pp.sample("mu", dist.Normal(0, 1))
    with pp.plate("item", n):
        beta = pp.sample("beta", dist.Laplace(mu, 0.5))
        pp.sample("rate", dist.Gamma(2, 1))
        pp.sample("y", dist.Normal(beta, 1))
    pp.sample("share", dist.Beta(2, 2))


def model_target() -> Any:
    return kinked(4).observe(y=np.arange(4.0)).target()


def test_models_say_where_they_kink_and_what_their_mirror_map_is() -> None:
    target = model_target()
    x = jnp.linspace(-1.0, 1.0, target.dim)
    at = target.site_slices
    loc, rate = jax.jit(kinks)(target, x)
    assert set(np.asarray(rate[at["beta"]]).tolist()) == {2.0}
    assert float(rate.sum()) == 8.0
    np.testing.assert_allclose(loc[at["beta"]], x[at["mu"]][0])
    metric = jax.jit(log_metric)(target, x)
    share = jax.nn.sigmoid(x[at["share"]])
    np.testing.assert_allclose(metric[at["rate"]], x[at["rate"]], rtol=1e-12)
    np.testing.assert_allclose(metric[at["share"]], jnp.log(share * (1 - share)), rtol=1e-12)
    np.testing.assert_allclose(metric[at["mu"]], 0.0, atol=1e-15)


def test_the_gradient_of_a_minibatch_is_unbiased_and_small_plates_are_taken_whole() -> None:
    target, kernel = model_target(), SGLD(size=2)
    x = jnp.full(target.dim, 0.2)
    mean = random.expectation(lambda script: kernel.gradient(script, target, x))
    full = jax.jit(jax.grad(target.log_density))(x)
    np.testing.assert_allclose(mean, full, rtol=1e-10, atol=1e-12)
    assert SGLD(size=4).batched(target) is None
    with pytest.raises(UnsupportedError, match="item"):
        SGLD(plate="itme").check_target(target)


def test_stein_maps_are_bijections_with_the_volume_that_is_counted() -> None:
    frame = Frame(DensityTarget(bent, 3), jnp.zeros(3), jnp.ones(3))
    lead = jax.random.normal(jax.random.key(0), (8, 3))
    kernel = SVGD(leaders=8, steps=12)

    def end(u: Any) -> Any:
        return kernel.flow(frame, lead, (u[None], jnp.zeros(1)))

    u = jnp.array([0.3, -0.8, 1.1])
    jacobian = jax.jit(jax.jacfwd(lambda v: end(v)[0][0]))(u)
    sign, volume = np.linalg.slogdet(jacobian)
    assert sign > 0
    assert float(jax.jit(end)(u)[1][0]) == pytest.approx(volume, rel=1e-9)


def prior(x: Any, _: Any) -> Any:
    return jax.scipy.stats.norm.logpdf(x, 0.5, 2.0).sum()


def draw_prior(key: Any, _: Any) -> Any:
    return 0.5 + 2.0 * jax.random.normal(key, (2,))


def shifted(x: Any, _: Any) -> Any:
    return jax.scipy.stats.norm.logpdf(x, jnp.array([1.5, -0.5]), jnp.array([0.6, 1.2])).sum() + 1.0


@pytest.mark.parametrize(
    "engine",
    [SVGD(leaders=16, steps=20), ReverseDiffusion(steps=6), WalkJump(measurements=3)],
    ids=["svgd", "reverse_diffusion", "walk_jump"],
)
def test_weighted_engines_find_the_evidence_and_the_moments(engine: Any) -> None:
    target = DensityTarget(shifted, 2, (), prior, draw_prior)
    made = engine.populate(jax.random.key(3), target, 4096, lambda _: None)
    population, error = made.population, made.log_z_error
    assert error < 0.1
    assert abs(float(population.log_z) - 1.0) < 4.5 * error
    mean = np.asarray(population.weights @ population.x)
    sd = np.array([0.6, 1.2]) / float(population.ess) ** 0.5
    assert np.all(np.abs(mean - [1.5, -0.5]) < 4.5 * sd)


def attraction(x: Any, y: Any) -> Any:
    return 0.5 * jnp.sum((x - y) ** 2)


def test_particles_pull_each_other_to_their_mean() -> None:
    x = jax.random.normal(jax.random.key(0), (5, 2))
    own, force = Crowd(DensityTarget(normal, 2), jnp.asarray(3.0), attraction).score(x)
    np.testing.assert_allclose(own, -0.5 * (x**2).sum(1), rtol=1e-12)
    np.testing.assert_allclose(force, -x - 3.0 * (x - x.mean(0)), rtol=1e-10, atol=1e-12)


def cliff(x: Any, _: Any) -> Any:
    return jnp.where(x[0] > 0, -0.5 * x @ x, -jnp.inf)


def test_an_unadjusted_chain_stays_where_it_cannot_go() -> None:
    x = np.abs(np.random.default_rng(0).normal(size=(200, 1)))
    params = Step(Dense(jnp.eye(1)), jnp.asarray(1.0))
    y = np.asarray(moved_from(ULA(), DensityTarget(cliff, 1), params, x).x)
    assert (y > 0).all() and np.any(y == x) and np.any(y != x)


def test_every_engine_is_listed_with_the_contract_that_it_has() -> None:
    for name in NAMES:
        assert registry.engine(name).contract == registry.spec(name).contract, name
    with pytest.raises(SettingsError, match="friction"):
        registry.engine("ghmc", {"fricton": 1.0})
    with pytest.raises(SettingsError, match="friction"):
        registry.engine("baoab", {"friction": -1.0})
