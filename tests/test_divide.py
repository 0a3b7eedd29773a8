"""Divided problems: shards and their products, trees of blocks, mixtures that learn."""

from __future__ import annotations

import warnings
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_smc.adaptive_importance import AMIS, _controlled
from ppcore_smc.consensus import Consensus, averaged, moments
from ppcore_smc.divide_conquer import DivideConquer, Node, leaves_of
from ppcore_smc.fusion import Fusion, _fused
from ppcore_smc.mixture import Mixture, fitted
from ppcore_smc.shards import Shard, pick, shards_of

import ppcore as pp
from ppcore import dist, precision
from ppcore.contract import Biased, ProperlyWeighted
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.population import equally_weighted
from ppcore.report import SamplingWarning
from ppcore.target import DensityTarget

SIGMAS = 4.5
X = np.random.default_rng(0).normal(size=(24, 2))
Y = X @ np.array([1.0, -1.0]) + np.random.default_rng(1).normal(size=24)


@pp.model
def line(x):
    b = pp.sample("b", dist.Normal(np.zeros(2), 2.0).to_event(1))
    scale = pp.sample("scale", dist.HalfNormal(1))
    with pp.plate("i", len(x)):
        pp.sample("y", dist.Normal(x @ b, scale))


@pp.model
def straight(x):
    b = pp.sample("b", dist.Normal(np.zeros(2), 2.0).to_event(1))
    with pp.plate("i", len(x)):
        pp.sample("y", dist.Normal(x @ b, 1.0))


def quietly(model, engine, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        return model.infer(engine, progress="off", rewrites=False, **settings)


def normal(x, data):
    """Two correlated normals with mass exp(data)."""
    z = jnp.stack([x[0], (x[1] - 0.5 * x[0]) / 0.8])
    return -0.5 * z @ z - jnp.log(2 * jnp.pi) - jnp.log(0.8) + data


def wide(x, data):
    return jnp.sum(-0.125 * x**2 - jnp.log(2.0) - 0.5 * jnp.log(2 * jnp.pi))


def draw_wide(key, data):
    return 2.0 * jax.random.normal(key, (2,))


def target(log_mass=0.3):
    return DensityTarget(normal, 2, np.asarray(log_mass), wide, draw_wide)


# -- shards --------------------------------------------------------------------------------------


def test_shards_multiply_to_the_whole_exactly() -> None:
    whole = line(X).observe(y=Y).target()
    with precision.scope("float64"):
        shards = shards_of(whole, 3)
        x = jnp.array([0.3, -0.2, 0.1])
        total = sum(pick(shards, c).log_density(x) for c in range(3))
        assert float(total) == pytest.approx(float(whole.log_density(x)), abs=1e-10)
        parts = shards_of(target(), 4)
        total = sum(pick(parts, c).log_density(x[:2]) for c in range(4))
        assert float(total) == pytest.approx(float(target().log_density(x[:2])), abs=1e-12)


def test_what_cannot_be_split_is_refused() -> None:
    @pp.model
    def chain():
        def step(x, _):
            x = pp.sample("x", dist.Normal(x, 1))
            pp.sample("y", dist.Normal(x, 1))
            return x, None

        pp.scan(step, 0.0, length=3)

    with pytest.raises(UnsupportedError, match="lies in a scan"):
        shards_of(chain().observe(y=[0.1, 0.2, 0.3]).target(), 2)

    @pp.model
    def mixed():
        z = pp.sample("z", dist.Bernoulli(0.5))
        pp.sample("y", dist.Normal(pp.sample("mu", dist.Normal(0, 1)) + z, 1))

    with pytest.raises(UnsupportedError, match="'z' is discrete"):
        shards_of(mixed().observe(y=0.3).target(), 2)


def test_consensus_of_gaussians_is_their_product() -> None:
    """The averages have the product's moments, and the constant is ∫ Π N(x; m_c, S_c) dx."""
    mean, cov = np.array([[0.0], [1.0]]), np.array([[[1.0]], [[0.5]]])
    rng = np.random.default_rng(0)
    x = mean[:, None] + np.sqrt(cov) * rng.normal(size=(2, 20000, 1))
    drawn, log_c = averaged(x, mean, cov)
    assert abs(drawn.mean() - 2 / 3) < SIGMAS * np.sqrt(1 / 3 / 20000)
    assert abs(drawn.var() / (1 / 3) - 1) < SIGMAS * np.sqrt(2 / 20000)
    assert log_c == pytest.approx(-0.5 * np.log(2 * np.pi * 1.5) - 0.5 / 1.5, abs=1e-12)
    assert moments(x)[1].shape == (2, 1, 1)


# -- fusion --------------------------------------------------------------------------------------


def skewed(x, data):
    """A logistic density, far from Gaussian in its tails, with a bounded φ."""
    return jnp.sum(jax.nn.log_sigmoid(3 * x) + jax.nn.log_sigmoid(-3 * x) + data)


def test_fusion_of_exact_draws_has_the_product_law_and_mass() -> None:
    """f_a = f_b = f(x) = 3 σ(3x) σ(−3x), which integrates to one; f² has mass 1/2 and known
    variance. The Poisson estimate is exact; the trapezoidal rule is not far from it."""
    grid = np.linspace(-8, 8, 4001)
    f = 3 / (1 + np.exp(-3 * grid)) / (1 + np.exp(3 * grid))
    step = grid[1] - grid[0]
    mass = np.sum(f**2) * step
    variance = np.sum(grid**2 * f**2) * step / mass
    n = 2500
    rng = np.random.default_rng(4)
    x = (rng.logistic(size=(2, n, 1)) / 3.0).astype(float)
    share = DensityTarget(skewed, 1, np.log(3.0))
    shards = Shard(share, np.ones(2), None)
    scale = np.full((2, 1, 1), x.std())
    # φ = ½ Λ (g² + h): g ∈ (−3, 3), h = −18 σ(1 − σ) ∈ [−4.5, 0).
    width = float(scale[0, 0, 0] ** 2)
    bound = (0.5 * width * -4.5, 0.5 * width * 9.0)
    with precision.scope("float64"):
        for exact, mesh in ((True, 4), (False, 16)):
            y, log_w, log_c, broken, _ = _fused(
                mesh, exact, 0.5, jax.random.key(7), shards, np.eye(2), x, scale, 1.0, bound
            )
            w = np.exp(np.asarray(log_w))
            ess = 1 / np.sum(w**2)
            assert not broken
            assert abs(np.exp(float(log_c)) / mass - 1) < 6 / np.sqrt(n)
            found = w @ np.asarray(y)[:, 0] ** 2
            assert abs(found / variance - 1) < SIGMAS * np.sqrt(2.5 / ess)
        _, _, _, broken, _ = _fused(
            4, True, 0.5, jax.random.key(7), shards, np.eye(2), x, scale, 1.0, (-0.1, 0.1)
        )
        assert broken


def test_fusion_corrects_consensus_on_a_posterior() -> None:
    model = straight(X).observe(y=Y)
    exact = model.solve()
    law = exact.marginal("b")
    fit = quietly(model, Fusion(shards=2, mesh=6), chains=2, draws=512, seed=1)
    gap = abs(fit.draws("b").mean((0, 1)) - law.mean) / np.sqrt(law.variance)
    assert gap.max() < SIGMAS / np.sqrt(300)
    assert abs(fit.log_evidence.value - exact.log_evidence) < 0.5
    assert fit.attrs["contract"] == repr(Biased(order=1, in_="time / mesh"))
    assert Fusion(bound=(-1, 2)).contract == ProperlyWeighted(unbiased_evidence=False)
    base = quietly(model, Consensus(shards=2), chains=2, draws=512, seed=1)
    assert abs(base.log_evidence.value - exact.log_evidence) < 0.5
    with pytest.raises(SettingsError, match="L < U"):
        Fusion(bound=(1.0, -1.0))


# -- trees of blocks -----------------------------------------------------------------------------


def test_a_node_is_a_slice_times_what_is_free() -> None:
    with precision.scope("float64"):
        anchor, scale = jnp.array([0.5, -0.5]), jnp.array([1.0, 2.0])
        x = jnp.array([0.1, 0.7])
        none = jnp.zeros(2)
        leaf = Node(target(), anchor, scale, jnp.stack([jnp.array([1.0, 0.0]), none]))
        free = -0.5 * ((0.7 + 0.5) / 2) ** 2 - np.log(2 * np.sqrt(2 * np.pi))
        want = float(target().log_density(jnp.array([0.1, -0.5]))) + free
        assert float(leaf.log_density(x)) == pytest.approx(want, abs=1e-12)
        root = Node(target(), anchor, scale, jnp.stack([jnp.ones(2), none]))
        assert float(root.log_density(x)) == pytest.approx(float(target().log_density(x)))


def test_blocks_are_named_once_each() -> None:
    bound = line(X).observe(y=Y).target()
    assert [m.tolist() for m in leaves_of(None, bound)] == [[1, 1, 0], [0, 0, 1]]
    assert len(leaves_of(3, target())) == 2
    with pytest.raises(SettingsError, match="Did you mean 'scale'"):
        leaves_of((("b",), ("scal",)), bound)
    with pytest.raises(SettingsError, match="leaves out the site 'scale'"):
        leaves_of((("b",),), bound)
    with pytest.raises(SettingsError, match="stands twice"):
        leaves_of((("b", "scale"), ("b",)), bound)


def test_merged_blocks_have_the_evidence_and_moments() -> None:
    model = straight(X).observe(y=Y)
    exact = model.solve()
    fit = quietly(model, DivideConquer(blocks=2), chains=2, draws=300, seed=2)
    assert abs(fit.log_evidence.value - exact.log_evidence) < max(
        SIGMAS * fit.log_evidence.error, 0.15
    )
    law = exact.marginal("b")
    gap = abs(fit.draws("b").mean((0, 1)) - law.mean) / np.sqrt(law.variance)
    assert gap.max() < SIGMAS / np.sqrt(300)


# -- adaptive importance sampling ----------------------------------------------------------------


def test_a_mixture_is_normalised_and_fits_its_points() -> None:
    with precision.scope("float64"):
        eye = jnp.eye(1)[None]
        one = Mixture(jnp.zeros(1), jnp.zeros((1, 1)), 0.5 * eye, 2.0 * eye)
        grid = jnp.linspace(-60, 60, 12001)[:, None]
        mass = float(jnp.exp(one.log_density(grid)).sum() * (grid[1, 0] - grid[0, 0]))
        assert mass == pytest.approx(1, abs=1e-6)
        rng = np.random.default_rng(0)
        x = jnp.asarray(np.concatenate([rng.normal(-4, 1, 500), rng.normal(4, 1, 500)])[:, None])
        two = fitted(jax.random.key(1), x, jnp.full(1000, 1e-3), 2)
        np.testing.assert_allclose(np.sort(two.mean[:, 0]), [-4, 4], atol=0.3)
        np.testing.assert_allclose(np.exp(two.log_share), 0.5, atol=0.05)


def test_controls_turn_one_sample_into_exact_masses() -> None:
    """Where γ is a mixture of q's own parts, f = 1 is in their span: Ẑ has no error left."""
    rng = np.random.default_rng(3)
    which = rng.random(400) < 0.5
    x = np.where(which, rng.normal(-1, 1, 400), rng.normal(1, 1, 400))
    parts = np.stack([-0.5 * (x + 1) ** 2, -0.5 * (x - 1) ** 2], axis=1) - 0.5 * np.log(2 * np.pi)
    log_q = np.logaddexp.reduce(parts + np.log(0.5), axis=1)
    log_gamma = np.logaddexp(parts[:, 0] + np.log(0.8), parts[:, 1] + np.log(0.2))
    with precision.scope("float64"):
        log_w = _controlled(jnp.asarray(log_gamma - log_q), jnp.asarray(parts - log_q[:, None]))
        plain = np.exp(log_gamma - log_q).mean()
        assert float(jnp.exp(log_w).mean()) == pytest.approx(1, abs=1e-6)
    assert abs(plain - 1) > 1e-3


@lru_cache
def weighed(controlled: bool):
    return AMIS(components=2, rounds=3, pilots=64, control_variates=controlled)


def test_evidence_of_adapted_samples_is_unbiased() -> None:
    """Ẑ of 150 runs of 64 draws has mean Z, though each has learnt its own proposal."""
    engine = weighed(False)
    assert engine.contract == ProperlyWeighted() and not weighed(True).contract.unbiased_evidence
    with precision.scope("float64"):
        law = target(0.3)

        def run(key):
            x = law.sample_reference(key, 64)
            start = equally_weighted(x)
            return engine.stage(key, law.tempered(0.0), law, start).log_z

        log_z = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 150))
    ratio = np.exp(np.asarray(log_z) - 0.3)
    assert abs(ratio.mean() - 1) < SIGMAS * ratio.std() / np.sqrt(150)
    assert ratio.std() < 0.3
