"""Amortised posteriors: the flow against autodiff, the fits against a conjugate model, refusals."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_amortised import networks, splines
from ppcore_amortised.conditional import ConditionalFlow, Shape, colour, create, whiten
from ppcore_amortised.npe import NPE
from ppcore_amortised.training import Training
from ppcore_amortised.training import train as fit_networks

import ppcore as pp
from ppcore import dist, precision
from ppcore.errors import EvidenceError, ModelError, SettingsError, ShapeError, UnsupportedError
from ppcore.fit.calibration import calibrated
from ppcore.fit.joint import joint_of
from ppcore.fit.store import StoreError
from ppcore.report import SamplingWarning
from ppcore.testing.certify import subject_of

Y = np.array([0.3, 1.1, 0.7])
SMALL = {"members": 2, "layers": 1, "width": 16, "blocks": 1, "bins": 4, "batch": 128, "epochs": 12}


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


@pp.model
def normal_mean() -> None:
    mu = pp.sample("mu", dist.Normal(0, 1))
    with pp.plate("i", 3):
        pp.sample("y", dist.Normal(mu, 1))


def exact(y: np.ndarray) -> tuple[float, float, float]:
    """Mean and standard deviation of mu | y, and log p(y)."""
    n = len(y)
    covariance = np.eye(n) + np.ones((n, n))
    log_z = -0.5 * (
        y @ np.linalg.solve(covariance, y)
        + np.linalg.slogdet(covariance)[1]
        + n * np.log(2 * np.pi)
    )
    return y.sum() / (n + 1), (n + 1) ** -0.5, float(log_z)


@pytest.fixture(scope="module")
def learnt() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SamplingWarning)
        return normal_mean().amortise(
            observe=["y"], simulations=2048, seed=1, progress="off", **SMALL
        )


def some_flow(dim: int, rows: int, row: int) -> ConditionalFlow:
    """Two networks with noise on every weight, in units that are not standard."""
    shape = Shape(dim, rows, row, members=2, layers=2, width=6, blocks=1, bins=3)
    rng = np.random.default_rng(dim)
    made = [
        jax.tree.map(lambda v: v + 0.4 * rng.standard_normal(v.shape), create(rng, shape))
        for _ in range(2)
    ]
    units = {
        "x_mean": rng.standard_normal(dim),
        "x_scale": np.exp(0.3 * rng.standard_normal(dim)),
        "y_mean": np.zeros(shape.data),
        "y_scale": np.ones(shape.data),
    }
    return ConditionalFlow(jax.tree.map(lambda *v: np.stack(v), *made), units, shape)


def test_a_spline_inverts_and_knows_its_slope() -> None:
    rng = np.random.default_rng(0)
    raw, x = rng.standard_normal((40, 14)), np.linspace(-3.5, 3.5, 40)
    y, log_slope = splines.forward(jnp.asarray(raw), jnp.asarray(x), 3.0)
    back = splines.inverse(jnp.asarray(raw), y, 3.0)
    assert np.allclose(back, x, atol=1e-10)
    slope = jax.vmap(jax.grad(lambda v, r: splines.forward(r, v, 3.0)[0]))(jnp.asarray(x), raw)
    assert np.allclose(np.log(slope), log_slope, atol=1e-10)
    same, flat = splines.forward(jnp.zeros((40, 14)), jnp.asarray(x), 3.0)
    assert np.allclose(same, x, atol=1e-12) and np.allclose(flat, 0, atol=1e-12)


def test_the_flow_inverts_and_its_log_determinant_is_that_of_its_jacobian() -> None:
    q, y = some_flow(3, 1, 2), jnp.array([0.4, -1.0])
    net = jax.tree.map(lambda v: jnp.asarray(v[0]), q.networks)
    context = networks.embed(net["embedding"], 1, y)
    x = jnp.array([0.3, -0.8, 1.4])
    u, log_det = whiten(q.shape, net, x, context)
    assert np.allclose(colour(q.shape, net, u, context), x, atol=1e-9)
    jacobian = jax.jacfwd(lambda v: whiten(q.shape, net, v, context)[0])(x)
    assert np.linalg.slogdet(jacobian)[1] == pytest.approx(float(log_det), abs=1e-9)


def test_one_parameter_is_normalised_and_draws_follow_it() -> None:
    """∫q = 1 with x = sinh t; E[tanh x] by draws within five standard errors of the grid's."""
    q, y = some_flow(1, 1, 2), jnp.array([0.4, -1.0])
    t = np.linspace(-12, 12, 24_001)
    grid = np.sinh(t)[:, None]
    log_q = np.asarray(jax.jit(jax.vmap(q.log_prob, (0, None)))(grid, y))
    mass = np.exp(log_q) * np.cosh(t) * (t[1] - t[0])
    assert abs(mass.sum() - 1) < 1e-4
    drawn = np.tanh(np.asarray(q.sample(jax.random.key(1), y, 8000)))
    gap = drawn.mean() - (np.tanh(grid[:, 0]) * mass).sum()
    assert abs(gap) < 5 * drawn.std() / 8000**0.5


def test_rows_that_change_places_change_nothing() -> None:
    q, x = some_flow(2, 3, 2), jnp.array([0.2, 0.1])
    y = np.random.default_rng(0).standard_normal((3, 2))
    log_q = [float(q.log_prob(x, y[order].ravel())) for order in ([0, 1, 2], [2, 0, 1])]
    assert log_q[0] == pytest.approx(log_q[1], abs=1e-12)
    assert log_q[0] != pytest.approx(float(q.log_prob(x, 2 * y.ravel())), abs=1e-3)


def test_exchangeable_data_are_found_and_only_those() -> None:
    @pp.model
    def line() -> None:
        slope = pp.sample("slope", dist.Normal(0, 1))
        with pp.plate("i", 3):
            pp.sample("y", dist.Normal(slope * np.arange(3.0), 1))

    assert joint_of(normal_mean(), ["y"], None, "auto").vector.rows == 3
    assert joint_of(line(), ["y"], None, "auto").vector.rows == 1
    assert joint_of(normal_mean(), ["y"], None, "none").vector.rows == 1
    with pytest.raises(SettingsError, match="no plate"):
        joint_of(line(), ["y"], None, "j")


def test_evidence_and_moments_are_those_of_the_conjugate_model(learnt: Any) -> None:
    """z-tests at five standard errors: weights are unbiased however short the training was."""
    mean, sd, log_z = exact(Y)
    fit = learnt.posterior(y=Y, draws=2000, seed=2)
    found = fit.log_evidence
    assert abs(found.value - log_z) < 5 * found.error + 1e-9 and found.error < 0.05
    estimate = fit.expect("mu", "weights")
    assert abs(float(estimate.value) - mean) < 5 * float(estimate.mcse)
    drawn = fit.draws("mu")
    assert abs(drawn.std() / sd - 1) < 0.1
    assert max(fit.attrs["weights"]["k_hat"][0] or 0, 0) < 0.7


def test_the_learnt_density_itself_is_near(learnt: Any) -> None:
    """Trained for seconds: within 0.15 standard deviations of the posterior's mean."""
    mean, sd, _ = exact(Y)
    drawn = learnt.sample(y=Y, n=4000, seed=3)["mu"]
    assert abs(drawn.mean() - mean) < 0.15 * sd + 5 * sd / 4000**0.5
    log_q = learnt.log_density({"mu": np.array([mean])}, y=Y)
    assert abs(log_q[0] + np.log(sd) + 0.5 * np.log(2 * np.pi)) < 0.3
    plain = learnt.posterior(y=Y, draws=50, refine="none")
    assert plain.draws("mu").shape == (4, 50) and "nothing was corrected" in str(plain)


def test_saved_and_loaded_without_loss(learnt: Any, tmp_path: Any) -> None:
    path = learnt.save(tmp_path / "mean.npz")
    again = pp.Amortised.load(path, normal_mean())
    for a, b in zip(jax.tree.leaves(learnt.density), jax.tree.leaves(again.density), strict=True):
        assert np.array_equal(a, b) and a.dtype == b.dtype
    assert again.attrs == learnt.attrs and repr(again) == repr(learnt)
    with pytest.raises(StoreError, match="exists"):
        learnt.save(path)

    @pp.model
    def wider() -> None:
        mu = pp.sample("mu", dist.Normal(0, 2))
        with pp.plate("i", 3):
            pp.sample("y", dist.Normal(mu, 1))

    with pytest.raises(StoreError, match="another model"):
        pp.Amortised.load(path, wider())
    (tmp_path / "none.npz").write_bytes(b"no archive")
    with pytest.raises(StoreError, match="no saved"):
        pp.Amortised.load(tmp_path / "none.npz", normal_mean())


class Conjugate:
    """The exact posterior of ``normal_mean``, ``narrow`` times as wide."""

    dim, data_dim = 1, 3

    def __init__(self, narrow: float) -> None:
        self.narrow = narrow

    def sample(self, key: Any, y: Any, n: int) -> Any:
        return y.sum() / 4 + 0.5 * self.narrow * jax.random.normal(key, (n, 1))

    def log_prob(self, x: Any, y: Any) -> Any:
        return jax.scipy.stats.norm.logpdf(x[0], y.sum() / 4, 0.5 * self.narrow)


jax.tree_util.register_pytree_node(
    Conjugate, lambda c: ((c.narrow,), None), lambda _, leaves: Conjugate(leaves[0])
)


def test_calibration_passes_what_is_exact_and_sees_what_is_narrow() -> None:
    joint = joint_of(normal_mean(), ["y"], None, "none")
    right = calibrated(joint, Conjugate(1.0), 512, 49, jax.random.key(1))
    narrow = calibrated(joint, Conjugate(0.7), 512, 49, jax.random.key(1))
    assert right.ok and not narrow.ok
    assert right.features == ("x[0]", "log q", "log likelihood")
    assert abs(right.coverage((0.8,))[0, 0] - 0.8) < 5 * 0.4 / 512**0.5
    assert narrow.coverage((0.8,))[0, 1] < 0.72
    assert "ranks are even" in str(right) and "UNEVEN" in str(narrow)


def noisy(rng: np.random.Generator, theta: np.ndarray) -> np.ndarray:
    return np.asarray(theta + rng.normal(size=2) if theta[0] > -2 else [np.nan, 0.0])


@pp.model
def box() -> None:
    theta = pp.sample("theta", dist.Normal(0, 1).expand([2]).to_event(1))
    noise = pp.lift(noisy, result=((2,), "float64"), random=True)
    y = pp.sample("y", noise(theta))
    pp.deterministic("total", np.sum(y))


def test_a_simulator_in_numpy_is_drawn_and_has_no_density() -> None:
    drawn = box().simulate(seed=1, n=400)
    gap = (drawn["y"] - drawn["theta"])[drawn["theta"][:, 0] > -2]
    assert abs(gap.mean()) < 5 / gap.size**0.5 and abs(gap.std() - 1) < 5 / (2 * gap.size) ** 0.5
    assert len(np.unique(gap)) == gap.size
    again = box().simulate(seed=1, n=400)
    assert np.array_equal(drawn["y"], again["y"], equal_nan=True)
    for engine in ("nuts", None, "random_walk"):
        with pytest.raises(UnsupportedError, match="Site 'y'.*'noisy'.*no density"):
            box().observe(y=[0.0, 0.0]).infer(engine, seed=1)


def test_a_simulator_without_density_and_with_failures() -> None:
    with pytest.warns(SamplingWarning, match="not finite and were left out"):
        made = box().amortise(["y"], simulations=300, seed=2, progress="off", **SMALL)
    assert made.joint.vector.rows == 1 and not made.joint.has_density
    fit = made.posterior(y=[0.5, -0.5], draws=20)
    assert fit.draws("theta").shape == (4, 20, 2) and fit.attrs["observed"] == ["y"]
    with pytest.raises(UnsupportedError, match="has none"):
        made.posterior(y=[0.5, -0.5], refine="importance")
    with pytest.warns(SamplingWarning, match="beyond all"):
        far = made.posterior(y=[50.0, 0.0], draws=20)
    assert any("beyond all" in said for said in far.warnings)
    assert made.calibrate(simulations=16, draws=9).ranks.shape[1] == 3


def test_summaries_may_be_observed_and_other_sites_left_out() -> None:
    with pytest.raises(SettingsError, match="say which ones to infer"):
        joint_of(box(), ["total"], None, "auto")
    joint = joint_of(box(), ["total"], ["theta"], "auto")
    x, y = joint.draw(jax.random.key(0), 5)
    assert x.shape == (5, 2) and y.shape == (5, 1) and not joint.has_density
    _, data = joint.given({"total": 1.5})
    assert data.tolist() == [1.5]


def test_wrong_simulators_are_refused() -> None:
    @pp.model
    def short() -> None:
        theta = pp.sample("theta", dist.Normal(0, 1).expand([2]).to_event(1))
        pp.sample("y", pp.lift(noisy, result=((3,), "float64"), random=True)(theta))

    with pytest.raises((ShapeError, Exception), match=r"shape \(2,\)"):
        short().simulate(seed=1)
    with pytest.raises(ModelError, match="one site"):
        pp.lift(noisy, result=[((2,), "float64")], random=True)

    @pp.model
    def untraceable() -> None:
        pp.sample("y", pp.lift(noisy, random=True)(np.zeros(2)))

    with pytest.raises(ModelError, match="cannot trace 'noisy'"):
        untraceable()


def test_bad_requests_are_refused() -> None:
    model = normal_mean()
    for observe, error, said in (
        (["x"], ModelError, "no site 'x'"),
        ([], ModelError, "needs the names"),
        (["mu", "y"], UnsupportedError, "no continuous unobserved"),
    ):
        with pytest.raises(error, match=said):
            model.amortise(observe)
    with pytest.raises(ModelError, match="data already"):
        model.observe(y=Y).amortise(["y"])
    with pytest.raises(SettingsError, match="no setting 'layer'"):
        model.amortise(["y"], layer=3)
    with pytest.raises(SettingsError, match="learns no posteriors"):
        model.amortise(["y"], engine="nuts")
    with pytest.raises(SettingsError, match="learns from simulations"):
        model.observe(y=Y).infer("npe")
    with pytest.raises(SettingsError, match="too few"):
        model.amortise(["y"], simulations=5, progress="off")
    with pytest.raises(SettingsError, match="simulations=0"):
        model.amortise(["y"], simulations=0)
    with pytest.raises(SettingsError, match="rate"):
        NPE(rate=-1.0)

    @pp.model
    def weighed() -> None:
        mu = pp.sample("mu", dist.Normal(0, 1))
        pp.factor("w", -(mu**2))
        pp.sample("y", dist.Normal(mu, 1))

    with pytest.raises(ModelError, match="Factor 'w'"):
        weighed().amortise(["y"])

    @pp.model
    def flat() -> None:
        mu = pp.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        pp.sample("y", dist.Normal(mu, 1))

    with pytest.raises(UnsupportedError, match="improper"):
        flat().amortise(["y"])


def test_bad_data_never_yield_a_posterior(learnt: Any) -> None:
    with pytest.raises(SettingsError, match="'y' are missing"):
        learnt.posterior()
    with pytest.raises(SettingsError, match="'mu' is not what was amortised"):
        learnt.posterior(y=Y, mu=0.0)
    with pytest.raises(EvidenceError, match="shape"):
        learnt.posterior(y=Y[:2])
    with pytest.raises(EvidenceError):
        learnt.posterior(y=[0.0, np.nan, 1.0])
    with pytest.raises(SettingsError, match="refine='exact'"):
        learnt.posterior(y=Y, refine="exact")


def test_training_that_diverges_is_reported_and_the_best_is_kept() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((400, 1)), rng.standard_normal((400, 3))
    x[::7] = np.nan
    shape = Shape(1, 1, 3, members=2, layers=1, width=16, blocks=1, bins=4)
    made = fit_networks(rng, shape, x, y, Training(epochs=4, batch=128), lambda _: None)
    assert any("diverged" in note for note in made.notes)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(made.networks))


def test_the_engine_is_checked_by_its_contract() -> None:
    subject = subject_of("npe", NPE(), NPE().contract)
    assert subject.amortiser.engine == NPE() and subject.engine is None
