"""Learned diffusion samplers: weights exactly unbiased, zero variance at the optimum, losses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ppcore_diffusion import losses, methods, transitions, underdamped
from ppcore_diffusion.drawing import drawn
from ppcore_diffusion.fitting import best, parts
from ppcore_diffusion.frame import Frame, Mixture, Point, pack, standard, unpack
from ppcore_diffusion.network import create
from ppcore_diffusion.prepare import framed
from ppcore_diffusion.training import Training, again, paths, train

from ppcore import precision, registry
from ppcore.errors import PopulationError, SettingsError, StartError, UnsupportedError
from ppcore.target import DensityTarget
from ppcore.tuning.preconditioner import Dense

KINDS = {
    "cmcd": transitions.CMCD,
    "mcd": transitions.MCD,
    "dbs": transitions.DBS,
    "dds": transitions.DDS,
    "dis": transitions.DIS,
    "pis": transitions.PIS,
    "ud_mcd": underdamped.UD_MCD,
    "ud_cmcd": underdamped.UD_CMCD,
    "ud_dbs": underdamped.UD_DBS,
}
STEPS = 4
# Five two-sided z-tests at 4.5 deviations: a false alarm in 3 · 10⁴ sets of seeds.
LIMIT = 4.5


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    with precision.scope("float64"):
        yield


def silent(_: Any) -> None:
    """Takes reports."""


def mixed(x: Any, data: Any) -> Any:
    """0.7 N(1, 0.5²) + 0.3 N(−1.5, 0.7²) in each coordinate, times exp(data)."""
    near = jnp.log(0.7) - 0.5 * ((x - 1.0) / 0.5) ** 2 - jnp.log(0.5)
    far = jnp.log(0.3) - 0.5 * ((x + 1.5) / 0.7) ** 2 - jnp.log(0.7)
    return jnp.sum(jnp.logaddexp(near, far) - 0.5 * jnp.log(2 * jnp.pi)) + data


def normal(x: Any, data: Any) -> Any:
    """N(mean, diag sd²), normalised."""
    z = (x - data["mean"]) / data["sd"]
    return jnp.sum(-0.5 * z**2 - jnp.log(data["sd"]) - 0.5 * jnp.log(2 * jnp.pi))


def plain(target: Any) -> Frame:
    return framed(target, np.zeros(target.dim), Dense(np.eye(target.dim)))


def weights_for(kind: Any, dim: int, steps: int = STEPS, width: int = 4, shake: float = 0.0) -> Any:
    """Weights before training, with noise of size ``shake`` on every leaf."""
    tables = {
        "schedule": jnp.zeros(steps),
        "log_scale": jnp.zeros((steps, dim)) - 0.3,
        "share": jnp.zeros(steps),
        "keep": jnp.zeros(steps),
        "width_ahead": jnp.zeros((steps, dim)),
        "width_back": jnp.zeros((steps, dim)),
    }
    nets = {
        name: create(jax.random.key(i), dim, steps, width, float)
        for i, name in enumerate(kind.controls)
    }
    reference = Mixture(
        jnp.zeros(2), jnp.array([[-0.5], [0.5]]) * jnp.ones(dim), jnp.zeros((2, dim))
    )
    made = {"reference": reference, "level": jnp.zeros(()), "tables": tables, **nets}
    leaves, structure = jax.tree.flatten(made)
    rng = np.random.default_rng(1)
    moved = [v + jnp.asarray(shake * rng.standard_normal(v.shape), v.dtype) for v in leaves]
    return jax.tree.unflatten(structure, moved)


def walked(kind: Any, weights: Any, frame: Frame, noise: Any) -> tuple[Any, Any]:
    """Ends and log weights of paths with given noise: z_0, [v_0,] z_1, …; float[N, ·]."""
    transition, path, betas = transitions.route(kind, weights, frame)
    law = weights["reference"]

    def one(z: Any) -> tuple[Any, Any]:
        u = law.means[0] + jnp.exp(law.log_scales[0]) * z[:1]
        v = z[1:2] if kind.moving else z[:0]
        x, log_w = pack(path.visit(u, jnp.zeros(()), v, v)), jnp.zeros(())
        for k in range(betas.shape[0] - 1):
            own = z[1 + kind.moving + k :][:1]
            x, log_g = transition.moved(own, path, betas[k], betas[k + 1], x, k)
            log_w = log_w + log_g
        return x[:1], log_w

    return jax.jit(jax.vmap(one))(noise)


def one_part(weights: Any) -> Any:
    law = weights["reference"]
    return {**weights, "reference": Mixture(law.logits[:1], law.means[:1], law.log_scales[:1])}


@pytest.mark.parametrize("shake", (0.0, 0.3), ids=("before", "after"))
@pytest.mark.parametrize("name", KINDS)
def test_weights_integrate_to_the_evidence_whatever_was_learned(name: str, shake: float) -> None:
    """E[w] = Z and E[w x²] = Z E[x²] by quadrature over all noise, for a mixture in one dimension.

    Before training, and with noise on everything that is learned. Two steps, or one and a velocity.
    """
    kind = KINDS[name]
    frame = plain(DensityTarget(mixed, 1, jnp.asarray(0.7)))
    weights = one_part(weights_for(kind, 1, steps=1 if kind.moving else 2, shake=shake))
    points = np.linspace(-8.0, 8.0, 81)
    noise = np.stack(np.meshgrid(points, points, points, indexing="ij"), -1).reshape(-1, 3)
    mass = np.exp(-0.5 * (noise**2).sum(1)) / (2 * np.pi) ** 1.5 * (points[1] - points[0]) ** 3
    ends, log_w = walked(kind, weights, frame, noise)
    w = mass * np.exp(np.asarray(log_w))
    truth = 0.7 * (1 + 0.25) + 0.3 * (1.5**2 + 0.49)
    assert abs(w.sum() / np.exp(0.7) - 1) < 2e-3
    assert abs((w * np.asarray(ends[:, 0]) ** 2).sum() / np.exp(0.7) - truth) < 5e-3


def test_resampling_between_segments_keeps_the_evidence() -> None:
    """E[Ẑ] = Z over 32 islands that are resampled each by itself, with controls far from right."""
    frame = plain(DensityTarget(mixed, 1, jnp.asarray(0.7)))
    engine = methods.SCLD(steps=STEPS, segments=2, threshold=0.9)
    weights = weights_for(transitions.CMCD, 1, shake=0.3)
    n = 32768
    population, root = drawn(jax.random.key(5), engine.kind, engine.plan, weights, frame, n)
    share = np.asarray(population.weights).reshape(32, -1).sum(1)
    z = 32 * np.exp(float(population.log_z)) * share
    assert len(np.unique(root)) < n
    assert abs(z.mean() - np.exp(0.7)) < LIMIT * z.std(ddof=1) / 32**0.5
    assert z.std(ddof=1) / 32**0.5 < 0.05


def test_cmcd_carries_a_gaussian_that_only_moves_without_any_variance() -> None:
    """N(0, I) to N(μ, I) with n = Δμ_k (1/τ − ½)√τ: log w = log Z for every path, to 1e-9."""
    mean, tau, steps = np.array([1.5, -0.7]), 0.4, STEPS
    frame = plain(DensityTarget(normal, 2, {"mean": mean, "sd": np.ones(2)}))
    weights = weights_for(transitions.CMCD, 2, steps)
    tables = weights["tables"]
    tables = {**tables, "log_scale": jnp.zeros((steps, 2))}
    tables["share"] = jnp.full(steps, np.log(tau / (1 - tau)))
    control = dict(weights["control"])
    # Temperatures are equally spaced: each step moves by μ/K.
    control["bias"] = jnp.tile(mean / steps * (1 / tau - 0.5) * tau**0.5, (steps, 1))
    exact = {**weights, "reference": standard(2, float), "tables": tables, "control": control}
    log_w = seen(transitions.CMCD, exact, frame)
    assert np.abs(log_w).max() < 1e-9


def test_dds_carries_a_noised_gaussian_without_any_variance() -> None:
    """q_0 = N(ρ_0 μ, I), the noised target, and the exact reversal of each step: log w = 0."""
    mean, tau, steps = np.array([1.0, -2.0]), 0.3, STEPS
    frame = plain(DensityTarget(normal, 2, {"mean": mean, "sd": np.ones(2)}))
    weights = weights_for(transitions.DDS, 2, steps)
    tables = {**weights["tables"], "log_scale": jnp.zeros((steps, 2))}
    tables["share"] = jnp.full(steps, np.log(tau / (1 - tau)))
    left = (1 - tau) ** np.arange(steps, -1, -1)[:, None]
    means = left * mean
    betas = np.linspace(0, 1, steps + 1)
    middle = 0.5 * (betas[:-1] + betas[1:])[:, None]
    # The mean has to rise from (1 − τ) m_k to m_{k+1}; the untrained drift gives 2τ b μ of that.
    lacking = means[1:] - (1 - tau) * means[:-1] - 2 * tau * middle * mean
    control = {**weights["control"], "bias": jnp.asarray(lacking / (2 * tau**0.5))}
    law = standard(2, float)
    law = Mixture(law.logits, jnp.asarray(means[:1]), law.log_scales)
    exact = {**weights, "reference": law, "tables": tables, "control": control}
    assert np.abs(seen(transitions.DDS, exact, frame)).max() < 1e-9


def test_a_bridge_with_its_own_widths_carries_any_gaussian_without_variance() -> None:
    """N(0, 1) to N(m, s²) in one step of DBS: F the exact draw, B the exact draw back."""
    m, s, tau = 0.8, 0.6, 0.5
    frame = plain(DensityTarget(normal, 1, {"mean": np.array([m]), "sd": np.array([s])}))
    kind = transitions.DBS
    weights = one_part(weights_for(kind, 1, 1))
    noise, push = (tau * (2 - tau)) ** 0.5, tau**0.5
    # ∇ log γ_½(x) = −½ x − ½ (x − m)/s², which the control has to undo.
    slope, level = -0.5 * (1 + s**-2), 0.5 * m / s**2
    ahead, back = dict(weights["ahead"]), dict(weights["back"])
    ahead["linear"] = jnp.full((1, 1), -(1 + tau * slope) / push)
    ahead["bias"] = jnp.full((1, 1), (m - tau * level) / push)
    back["linear"] = jnp.full((1, 1), -(1 + tau * slope) / push)
    back["bias"] = jnp.full((1, 1), -tau * level / push)
    tables = {**weights["tables"], "log_scale": jnp.zeros((1, 1))}
    tables["width_ahead"] = jnp.full((1, 1), np.log(s / noise))
    tables["width_back"] = jnp.full((1, 1), -np.log(noise))
    made = {"reference": standard(1, float), "tables": tables, "ahead": ahead, "back": back}
    assert np.abs(seen(kind, {**weights, **made}, frame)).max() < 1e-9


def seen(kind: Any, weights: Any, frame: Frame, n: int = 64) -> np.ndarray:
    """log w of ``n`` paths."""
    plan = Training("log_variance", 0, n, 1e-3)
    return np.asarray(paths(jax.random.key(2), kind, weights, frame, n, plan)[2].sum(0))


def test_a_step_back_is_the_mirror_image_of_the_step_ahead() -> None:
    """CMCD with n and with −n: log B/F(x, y) = −log B/F(y, x)."""
    frame = plain(DensityTarget(mixed, 2, jnp.asarray(0.0)))
    weights = weights_for(transitions.CMCD, 2, shake=0.3)
    turned = dict(weights["control"])
    for name in ("last", "bias", "linear", "gain"):
        turned[name] = -turned[name]
    transition, path, betas = transitions.route(transitions.CMCD, weights, frame)
    other = transitions.Learned(transitions.CMCD, {**weights, "control": turned})
    rows, _ = path.start(jax.random.key(0), 2, False)
    x, y = (unpack(row, 2) for row in rows)
    step, mirrored = (t.at(path, betas[1], betas[2], 1) for t in (transition, other))
    there, back = transitions.CMCD.ratio(step, x, y), transitions.CMCD.ratio(mirrored, y, x)
    np.testing.assert_allclose(there, -back, rtol=1e-12)
    assert abs(float(there)) > 1e-3


def test_a_leapfrog_step_backwards_ends_where_it_began() -> None:
    """From (y, −w) without refreshment the step leads to (x, −v): volume is kept, log B/F is 0."""
    frame = plain(DensityTarget(mixed, 2, jnp.asarray(0.0)))
    kind = underdamped.UD_MCD
    weights = weights_for(kind, 2, shake=0.1)
    tables = {**weights["tables"], "keep": jnp.full(STEPS, 40.0)}
    transition, path, betas = transitions.route(kind, {**weights, "tables": tables}, frame)
    step = transition.at(path, betas[1], betas[2], 1)
    rows, _ = path.start(jax.random.key(0), 1, True)
    x = unpack(rows[0], 2)
    y = kind.go(jnp.zeros(2), step, x)
    again_x = kind.go(jnp.zeros(2), step, y._replace(v=-y.v))
    np.testing.assert_allclose(again_x.u, x.u, atol=1e-12)
    np.testing.assert_allclose(again_x.v, -x.v, atol=1e-12)


def test_a_point_survives_packing() -> None:
    parts = [jnp.arange(3.0) + i for i in range(2)]
    point = Point(parts[0], parts[1], jnp.asarray(7.0), jnp.asarray(2.0), parts[0], parts[1])
    for left, right in zip(unpack(pack(point), 3), point, strict=True):
        np.testing.assert_array_equal(left, right)


def test_stored_paths_weigh_as_they_did_when_they_were_walked() -> None:
    """Re-evaluated log G equals the walked one, for overdamped and underdamped steps."""
    frame = plain(DensityTarget(mixed, 2, jnp.asarray(0.0)))
    plan = Training("log_variance", 0, 8, 1e-3)
    for kind in (transitions.DIS, underdamped.UD_CMCD):
        weights = weights_for(kind, 2, shake=0.2)
        before, after, log_g = paths(jax.random.key(3), kind, weights, frame, 8, plan)
        found = again(kind, weights, frame, before, after)
        np.testing.assert_allclose(found, log_g, rtol=1e-5, atol=1e-5)


def test_the_gradients_of_log_variance_and_reverse_kl_agree_in_expectation() -> None:
    """Where only F is learned, E[∇ ½ Var(log w)] over paths of F equals ∇ KL; here for the bias."""
    frame = plain(DensityTarget(normal, 1, {"mean": np.array([0.6]), "sd": np.ones(1)}))
    kind, n = transitions.DDS, 4096
    weights = one_part(weights_for(kind, 1, 2))
    plan = Training("log_variance", 0, n, 1e-3)

    def moved(bias: Any) -> Any:
        return {**weights, "control": {**weights["control"], "bias": bias}}

    def kl(bias: Any, key: Any) -> Any:
        log_g = paths(key, kind, moved(bias), frame, n, plan)[2]
        return losses.reverse_kl(log_g, 0.0, 1)

    def variance(bias: Any, key: Any) -> Any:
        fixed = jax.lax.stop_gradient(moved(bias))
        stored = paths(key, kind, fixed, frame, n, plan)[:2]
        log_w = again(kind, moved(bias), frame, *jax.lax.stop_gradient(stored)).sum(0)
        return 0.5 * jnp.var(log_w)

    keys = jax.random.split(jax.random.key(1), 16)
    bias = weights["control"]["bias"]
    found = [jax.jit(jax.vmap(jax.grad(f), (None, 0)))(bias, keys) for f in (kl, variance)]
    mean = [np.asarray(g).mean(0) for g in found]
    error = sum(np.asarray(g).var(0) / 16 for g in found) ** 0.5
    assert np.all(np.abs(mean[0]) > 5 * error)
    assert np.all(np.abs(mean[0] - mean[1]) < LIMIT * error)


def test_losses_vanish_where_they_should() -> None:
    level = jnp.asarray(2.0)
    flat = jnp.ones((4, 8)) * 0.5
    assert float(losses.log_variance(flat, level, 1)) == 0
    assert float(losses.trajectory_balance(flat, level, 1)) == 0
    assert float(losses.sub_trajectory(flat, level, 2)) == 0
    assert float(losses.reverse_kl(flat, level, 1)) == -2
    # Errors that cancel along a path are seen segment by segment.
    rng = np.random.default_rng(0)
    off = rng.standard_normal((1, 8))
    bent = jnp.concatenate([flat[:2].at[0].add(off[0]), flat[2:].at[1].add(-off[0])])
    assert float(losses.log_variance(bent, level, 1)) < 1e-20
    assert float(losses.sub_trajectory(bent, level, 2)) > 0.1


def test_training_improves_and_stops_at_the_last_good_weights() -> None:
    """A few iterations shrink the spread; an absurd rate is noticed and nothing of it is kept."""
    frame = plain(DensityTarget(normal, 1, {"mean": np.array([2.0]), "sd": np.ones(1)}))
    kind = transitions.CMCD
    weights = one_part(weights_for(kind, 1, 2))
    plan = Training("log_variance", 100, 32, 2e-2, replay=2)
    made = train(jax.random.key(0), kind, plan, weights, frame, silent)
    assert made.notes == () and made.evaluations == 100 * 32 * 3
    assert made.spreads[-10:].mean() < 0.6 * made.spreads[:10].mean()
    wild = replace(plan, rate=9e5)
    lost = train(jax.random.key(0), kind, wild, weights, frame, silent)
    assert "diverged after 25" in lost.notes[0] and "rate=900000" in lost.notes[0]
    same = jax.tree.map(lambda a, b: bool(jnp.all(a == b)), lost.weights, weights)
    assert all(jax.tree.leaves(same))


def test_a_mixture_is_fitted_where_the_target_is_one() -> None:
    """KL(γ ‖ q) below a tenth of a nat, on points that were not fitted; one part is far off."""
    rng = np.random.default_rng(3)
    centres = np.array([[4.0, 4.0], [-4.0, 4.0], [0.0, -4.0]])
    u = centres[rng.integers(3, size=1200)] + 0.4 * rng.standard_normal((1200, 2))
    distance = ((u[:, None] - centres) ** 2).sum(-1) / 0.4**2
    values = np.logaddexp.reduce(-0.5 * distance, axis=1) - np.log(3 * 0.4**2)
    seen, fresh = slice(0, 600), slice(600, None)

    def divergence(count: int) -> float:
        made = best(rng, u[seen], values[seen], count)
        return float(np.mean(values[fresh] - np.logaddexp.reduce(parts(u[fresh], *made), axis=1)))

    assert 0 < divergence(0) < 0.1 and divergence(1) > 1.0


class NoGradient:
    """A target of a model whose finite site is kept."""

    dim = 1
    has_gradient = False
    finite_sites = ("state",)


def infinite(x: Any, data: Any) -> Any:
    return jnp.sum(x) * jnp.nan


def test_bad_input() -> None:
    for settings, what in (
        ({"steps": 0}, "steps"),
        ({"loss": "log_varance"}, "log_variance"),
        ({"reference": "priors"}, "prior"),
        ({"replay": 2, "loss": "reverse_kl"}, "replay"),
        ({"metric": "dens"}, "dense"),
    ):
        with pytest.raises(SettingsError, match=what):
            methods.CMCD(**settings)
    with pytest.raises(SettingsError, match="multiple of segments"):
        methods.SCLD(steps=10, segments=4)
    engine = methods.CMCD(iterations=0)
    with pytest.raises(UnsupportedError, match="'state'"):
        engine.populate(jax.random.key(0), NoGradient(), 16, silent)
    with pytest.raises(UnsupportedError, match="reference='prior'"):
        bare = DensityTarget(normal, 1, {"mean": np.zeros(1), "sd": np.ones(1)})
        methods.CMCD(reference="prior").populate(jax.random.key(0), bare, 16, silent)
    with pytest.raises((StartError, PopulationError), match="finite"):
        engine.populate(jax.random.key(0), DensityTarget(infinite, 1), 16, silent)


def test_every_sampler_has_its_transitions_and_a_name() -> None:
    for name in KINDS:
        assert registry.resolve(name).kind is KINDS[name]
        assert registry.resolve(name).name == name
    assert registry.engine("scld").plan.resample == 0.5
