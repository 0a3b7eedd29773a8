"""The Gaussian semantics: functoriality, inversion, and models solved exactly."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal

import ppcore as pp
from ppcore import dist, precision
from ppcore.diagram import Diagram
from ppcore.errors import ModelError, ShapeError
from ppcore.exact import NotExact, ZeroEvidenceError, solve
from ppcore.exact.gaussian import solve_gaussian
from ppcore.semantics.gaussian import NotGaussian, gaussian
from ppcore.semantics.gaussian_box import linear_gaussian
from ppcore.semantics.gaussian_kernel import (
    GaussianKernel,
    OffSupport,
    disintegrate,
    invert,
)
from ppcore.space import Space

TOLERANCE = 1e-10


def close(a: GaussianKernel, b: GaussianKernel) -> None:
    np.testing.assert_allclose(a.matrix, b.matrix, atol=TOLERANCE)
    np.testing.assert_allclose(a.offset, b.offset, atol=TOLERANCE)
    np.testing.assert_allclose(a.cov, b.cov, atol=TOLERANCE)


def solved(model: pp.Model):
    return solve_gaussian(model.diagram, model.data, model.evidence)


# -- the functor ---------------------------------------------------------------------------------


@st.composite
def diagrams(draw, dom: tuple[int, ...], tag: str):
    """A random diagram of linear-Gaussian boxes on vectors, its boxes named after ``tag``."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    d = Diagram.id(tuple(Space((n,)) for n in dom))
    for k in range(draw(st.integers(1, 3))):
        sizes = [s.shape[0] for s in d.cod]
        m = draw(st.integers(1, 3))
        taken = draw(st.integers(0, min(2, len(sizes))))
        q = draw(st.integers(0, 2))
        box = linear_gaussian(
            rng.normal(size=(m, sum(sizes[:taken]))),
            rng.normal(size=m),
            rng.normal(size=(m, q)) if q else None,
            sizes[:taken],
            (m,),
            name=f"{tag}{k}",
        )
        rest = Diagram.id(d.cod[taken:])
        copied = box if not taken or draw(st.booleans()) else keep_first(box)
        d = d >> (copied @ rest)
    return d


def keep_first(box: Diagram) -> Diagram:
    """Copy the first input past the box."""
    spaces = box.dom
    wires = tuple(range(len(spaces)))
    copy = Diagram(spaces, (), (*wires, 0))
    return copy >> (box @ Diagram.id((spaces[0],)))


@settings(max_examples=6)
@given(st.data())
def test_sequential_and_parallel_composition(data) -> None:
    f = data.draw(diagrams((2, 1), "f"))
    g = data.draw(diagrams(tuple(s.shape[0] for s in f.cod), "g"))
    h = data.draw(diagrams((1,), "h"))
    close(gaussian(f >> g), gaussian(f).then(gaussian(g)))
    close(gaussian(f @ h), gaussian(f).tensor(gaussian(h)))


def test_structure_is_preserved() -> None:
    two, three = Space((2,)), Space((3,))
    identity = gaussian(Diagram.id((two, three)))
    close(identity, GaussianKernel(np.eye(5), np.zeros(5), np.zeros((5, 0))))
    copy = gaussian(Diagram.copy(two))
    np.testing.assert_array_equal(copy.matrix, np.concatenate([np.eye(2), np.eye(2)]))
    swap = gaussian(Diagram.swap(two, three))
    np.testing.assert_array_equal(swap.matrix @ np.arange(5.0), [2, 3, 4, 0, 1])
    assert gaussian(Diagram.discard(two)).matrix.shape == (0, 2)


def test_copying_commutes_with_functions_only() -> None:
    function = linear_gaussian([[2.0]], [1.0], None, (1,), (1,))
    noise = linear_gaussian([[2.0]], [1.0], [[1.0]], (1,), (1,), name="noise")
    other = linear_gaussian([[2.0]], [1.0], [[1.0]], (1,), (1,), name="other")
    one = Space((1,))
    close(
        gaussian(function >> Diagram.copy(one)),
        gaussian(Diagram.copy(one) >> (function @ function)),
    )
    shared = gaussian(noise >> Diagram.copy(one)).cov
    apart = gaussian(Diagram.copy(one) >> (noise @ other)).cov
    assert shared[0, 1] == pytest.approx(1.0) and apart[0, 1] == pytest.approx(0.0)


def test_a_recorded_model_is_a_kernel_of_its_data() -> None:
    @pp.model
    def line(x):
        slope = pp.sample("slope", dist.Normal(1, 2))
        pp.sample("y", dist.Normal(slope * x, 0.5).to_event(1))

    x = np.array([1.0, -2.0])
    model = line(x)
    state = gaussian(model.diagram, {0: x, **dict(enumerate(model.data))})
    joint = np.concatenate([[1.0], x])
    np.testing.assert_allclose(state.mean, joint, atol=TOLERANCE)
    np.testing.assert_allclose(
        state.cov, 4 * np.outer(joint, joint) + np.diag([0, 0.25, 0.25]), atol=TOLERANCE
    )


# -- inversion -----------------------------------------------------------------------------------


@st.composite
def kernels(draw, n: int, m: int):
    """A random kernel n → m whose noise, and whose matrix, may be short of rank."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    q, rank = draw(st.integers(0, m + 1)), draw(st.integers(0, min(m, n)))
    matrix = rng.normal(size=(m, rank)) @ rng.normal(size=(rank, n))
    return GaussianKernel(matrix, rng.normal(size=m), rng.normal(size=(m, q)))


def joint_of(state: GaussianKernel, kernel: GaussianKernel) -> GaussianKernel:
    return state.then(kernel.graph())


@settings(max_examples=100)
@given(st.data(), st.integers(1, 3), st.integers(1, 3))
def test_disintegration_round_trip(data, n, m) -> None:
    joint = data.draw(kernels(0, n + m))
    close(joint_of(*disintegrate(joint, n)), joint)


@settings(max_examples=100)
@given(st.data(), st.integers(1, 3), st.integers(1, 3))
def test_inversion_is_an_involution_on_the_support(data, n, m) -> None:
    prior, kernel = data.draw(kernels(0, n)), data.draw(kernels(n, m))
    predicted, inverse = invert(kernel, prior)
    again, back = invert(inverse, predicted)
    close(again, prior)
    close(joint_of(prior, back), joint_of(prior, kernel))


@settings(max_examples=100)
@given(st.data(), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))
def test_chain_rule_of_inversion(data, n, m, k) -> None:
    """The inverse of f ; g is the inverse of g, at the prior pushed through f, then that of f."""
    prior, f, g = data.draw(kernels(0, n)), data.draw(kernels(n, m)), data.draw(kernels(m, k))
    whole, inverse = invert(f.then(g), prior)
    middle, inverse_f = invert(f, prior)
    last, inverse_g = invert(g, middle)
    close(last, whole)
    close(joint_of(last, inverse_g.then(inverse_f)), joint_of(whole, inverse))


def test_inversion_does_not_tensor_under_a_correlated_prior() -> None:
    prior = GaussianKernel.state([0.0, 0.0], [[1.0, 0.0], [0.8, 0.6]])
    noise = GaussianKernel(np.eye(1), np.zeros(1), np.eye(1))
    both = invert(noise.tensor(noise), prior)[1]
    alone = GaussianKernel.state([0.0], [[1.0]])
    each = invert(noise, alone)[1]
    assert abs(both.matrix - each.tensor(each).matrix).max() > 0.1


def test_density_on_a_subspace() -> None:
    state = GaussianKernel.state([1.0, 2.0], [[2.0], [4.0]])
    expected = multivariate_normal([1.0], [[4.0]]).logpdf([3.0])
    assert state.log_density([3.0, 6.0]) == pytest.approx(expected)
    with pytest.raises(OffSupport):
        state.log_density([3.0, 6.1])


# -- models --------------------------------------------------------------------------------------


def test_regression_with_a_gaussian_prior() -> None:
    @pp.model
    def regression(x):
        beta = pp.sample("beta", dist.Normal(np.array([1.0, -1, 0]), 2.0).to_event(1))
        with pp.plate("row", len(x)):
            pp.sample("y", dist.Normal(x @ beta, 0.5))

    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    solution = solved(regression(x).observe(y=y))
    precision_ = np.eye(3) / 4 + x.T @ x / 0.25
    mean = np.linalg.solve(precision_, np.array([1.0, -1, 0]) / 4 + x.T @ y / 0.25)
    found = solution.marginal("beta")
    np.testing.assert_allclose(found.mean, mean, atol=TOLERANCE)
    np.testing.assert_allclose(found.cov, np.linalg.inv(precision_), atol=TOLERANCE)
    evidence = multivariate_normal(x @ [1.0, -1, 0], 4 * x @ x.T + 0.25 * np.eye(20)).logpdf(y)
    assert solution.log_evidence == pytest.approx(evidence, abs=TOLERANCE)


def test_precise_data_under_a_vague_prior_lose_no_digits() -> None:
    """A covariance of this model has condition number 1e24; its square root 1e12."""

    @pp.model
    def vague():
        a = pp.sample("a", dist.Normal(0, 1e6))
        b = pp.sample("b", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(a, 1e-6))
        pp.sample("z", dist.Normal(b, 1))

    solution = solved(vague().observe(y=2.0, z=1.0))
    assert float(solution.marginal("a").variance) == pytest.approx(1e-12, rel=1e-9)
    assert float(solution.marginal("b").variance) == pytest.approx(0.5, rel=1e-4)
    assert float(solution.marginal("a").mean) == pytest.approx(2.0, abs=1e-10)


@pp.model
def affine(x, index):
    """Every way of being affine that a model usually needs."""
    mu = pp.sample("mu", dist.Normal(0.5, 1))
    a = pp.sample("a", dist.MultivariateNormal(mu * np.ones(4), np.eye(4) + 0.3))
    w = pp.sample("w", dist.GaussianRandomWalk(0.4, num_steps=5))
    with pp.plate("group", 3):
        g = pp.sample("g", dist.Normal(mu, 0.3))
        pair = pp.sample(
            "pair", dist.MultivariateNormal(np.zeros(2), scale_tril=np.array([[1.0, 0], [0.5, 2]]))
        )
    both = np.concatenate([a, w[1:]])
    mixed = np.linalg.solve(np.eye(4) + 0.1, a) + np.cumsum(w)[:4] - np.diff(w)
    table = np.stack([a, mixed]).reshape(4, 2).T
    pieces = np.where(np.arange(4) > 1, a, 2 * mixed) / 3 + np.einsum("ij,j->i", x, mixed)
    pp.deterministic("total", both.sum() + pair[1, 0] - np.mean(table, axis=1)[0])
    pp.deterministic("curve", np.exp(mu))
    loc = x @ pieces + g[index] + np.dot(np.ones(2), pair[0]) + np.repeat(w[-1:], 4)
    pp.sample("y", dist.Normal(loc, np.array([0.5, 1, 2, 0.1])).to_event(1))
    precision_ = np.array([[2.0, 0.3], [0.3, 1.0]])
    pp.sample("z", dist.MultivariateNormal(a[:2] - g[1], precision_matrix=precision_))
    pp.sample("v", dist.LowRankMultivariateNormal(w[:3], np.ones((3, 1)), np.full(3, 0.2)))


def test_evidence_and_posterior_agree_with_the_log_density() -> None:
    """log p(y) = log p(θ, y) − log p(θ | y) at every θ, whatever the operations."""
    rng = np.random.default_rng(2)
    data = rng.normal(size=(4, 4)), np.array([0, 2, 1, 1])
    given = {"y": rng.normal(size=4), "z": rng.normal(size=2), "v": rng.normal(size=3)}
    model = affine(*data).observe(given)
    solution, target = solved(model), model.target()
    posterior = solution.joint(*target.latents)
    with precision.scope("float64"):
        density = jax.jit(lambda t, x: t.log_density(x))
        for x in rng.normal(size=(3, target.dim)):
            log_joint = float(density(target, x))
            log_posterior = posterior.log_density(x)
            assert log_joint - log_posterior == pytest.approx(solution.log_evidence, abs=1e-9)


def test_draws_follow_the_posterior_and_its_computed_sites() -> None:
    """Means and covariances of 4000 draws; the chance of a false alarm is below 1e-5."""
    rng = np.random.default_rng(3)
    model = affine(rng.normal(size=(4, 4)), np.array([0, 2, 1, 1]))
    solution = solved(model.observe(y=rng.normal(size=4), z=rng.normal(size=2)))
    draws = solution.sample(jax.random.key(0), 4000)
    np.testing.assert_allclose(draws["curve"], np.exp(draws["mu"]))
    for site in ("mu", "a", "w", "pair", "total", "v"):
        law = solution.marginal(site)
        z = (draws[site].mean(0) - law.mean) / np.sqrt(law.variance / 4000)
        assert abs(z).max() < 5.5, site
        ratio = draws[site].var(0) / law.variance
        assert abs(ratio - 1).max() < 5.5 * np.sqrt(2 / 4000), site


def test_a_site_without_noise_restricts() -> None:
    @pp.model
    def parts():
        x = pp.sample("x", dist.Normal(np.zeros(3), np.array([1.0, 2, 3])).to_event(1))
        pp.sample("total", dist.Delta(x.sum()))
        pp.sample("again", dist.Delta(2 * x.sum()))
        pp.sample("seen", dist.Normal(x[0], 1.0))

    solution = solved(parts().observe(total=4.0, again=8.0, seen=0.3))
    found = solution.marginal("x")
    prior = np.diag([1.0, 4, 9])
    rows = np.array([[1.0, 1, 1], [1, 0, 0]])
    s = rows @ prior @ rows.T + np.diag([0.0, 1])
    gain = np.linalg.solve(s, rows @ prior).T
    np.testing.assert_allclose(found.mean, gain @ [4.0, 0.3], atol=TOLERANCE)
    np.testing.assert_allclose(found.cov, prior - gain @ rows @ prior, atol=TOLERANCE)
    expected = multivariate_normal([0, 0], s).logpdf([4.0, 0.3])
    assert solution.log_evidence == pytest.approx(expected, abs=TOLERANCE)
    draws = solution.sample(jax.random.key(0), 5)["x"]
    np.testing.assert_allclose(draws.sum(1), 4.0, atol=TOLERANCE)
    with pytest.raises(ZeroEvidenceError, match="'again' has density zero"):
        solved(parts().observe(total=4.0, again=8.1, seen=0.3))


def test_dependent_noise_of_observed_events_may_be_short_of_rank() -> None:
    """Three coordinates, one source of noise: the first measures, the others must follow."""

    @pp.model
    def event(scale):
        x = pp.sample("x", dist.Normal(0, 1))
        root = pp.math.set_at(np.zeros((3, 3)), (np.arange(3), 0), scale)
        pp.sample("y", dist.MultivariateNormal(x * np.array([1.0, 1, 2]), scale_tril=root))

    scale = np.array([0.5, 0.5, 1.0])
    solution = solved(event(scale).observe(y=np.array([0.4, 0.4, 0.8])))
    assert float(solution.marginal("x").mean) == pytest.approx(0.4 / 1.25)
    assert solution.log_evidence == pytest.approx(multivariate_normal(0, 1.25).logpdf(0.4))
    with pytest.raises(ZeroEvidenceError):
        solved(event(scale).observe(y=np.array([0.4, 0.5, 0.8])))


def test_a_singular_prior_covariance() -> None:
    @pp.model
    def singular(v):
        cov = v[:, None] * v * pp.deterministic("one", np.array(1.0))
        x = pp.sample("x", dist.MultivariateNormal(np.zeros(3), cov))
        pp.sample("y", dist.Normal(x[0], 1.0))

    v = np.array([1.0, -2, 1e-4])
    solution = solved(singular(v).observe(y=1.0))
    np.testing.assert_allclose(solution.marginal("x").mean, v / 2, rtol=1e-9)
    np.testing.assert_allclose(solution.marginal("x").cov, np.outer(v, v) / 2, rtol=1e-9)


def test_masked_observations_say_nothing() -> None:
    @pp.model
    def masked(keep):
        x = pp.sample("x", dist.Normal(0, 1))
        with pp.plate("n", 3):
            pp.sample("y", dist.Normal(x, 1.0).mask(keep))

    some = solved(masked(np.array([True, False, False])).observe(y=np.array([1.0, 50, -70])))
    assert float(some.marginal("x").mean) == pytest.approx(0.5)
    assert some.log_evidence == pytest.approx(multivariate_normal(0, 2).logpdf(1.0))


# -- refusals ------------------------------------------------------------------------------------


def refused(body, **evidence) -> NotExact:
    @pp.model
    def model():
        body()

    with pytest.raises(NotExact) as caught:
        solved(model().observe(evidence) if evidence else model())
    return caught.value


def normal(name="x"):
    return pp.sample(name, dist.Normal(np.zeros(2), 1.0).to_event(1))


@pytest.mark.parametrize(
    ("function", "box", "why"),
    [
        (lambda x: np.exp(x), "exp", "exp"),
        (lambda x: x * x, "multiply", "mul"),
        (lambda x: x[0] / x[1] * np.ones(2), "divide", "div"),
        (lambda x: np.abs(x) + 1, "absolute", "abs"),
        (lambda x: np.where(x > 0, x, 0.0), "greater", "gt"),
        (lambda x: np.sort(x), "sort", "sort"),
        (lambda x: x.astype("float32"), "astype", "convert_element_type"),
        (lambda x: pp.lift(jax.lax.stop_gradient)(x), "lift", "stop_gradient"),
        (lambda x: pp.lift(lambda v: v, result=((2,), "float64"))(x), "lift", "host"),
        (lambda x: pp.lift(jax.nn.relu)(x), "lift", "custom_jvp_call"),
    ],
)
def test_a_box_that_is_not_affine_is_named(function, box, why) -> None:
    def body():
        pp.sample("y", dist.Normal(function(normal()), 1.0).to_event(1))

    error = refused(body, y=np.zeros(2))
    assert error.box == box and why in str(error) and "'y' depends on it" in str(error)
    assert error.solver == "gaussian"


def test_a_site_that_is_not_gaussian_is_named() -> None:
    error = refused(lambda: pp.sample("tau", dist.HalfNormal(1.0)))
    assert error.box == "tau" and "HalfNormal" in error.why


def test_a_random_scale_is_refused() -> None:
    error = refused(lambda: pp.sample("y", dist.Normal(0, np.exp(normal())).to_event(1)))
    assert error.box == "y" and "scale" in error.why


def test_a_random_factor_is_refused_and_a_known_one_counts() -> None:
    assert refused(lambda: pp.factor("weight", normal().sum())).box == "weight"

    @pp.model
    def weighted():
        normal()
        pp.factor("weight", np.array(-1.5))

    assert solved(weighted()).log_evidence == pytest.approx(-1.5)


def test_evidence_with_known_parameters_may_have_any_distribution() -> None:
    @pp.model
    def both():
        normal()
        pp.sample("count", dist.Poisson(3.0))

    assert solved(both().observe(count=2)).log_evidence == pytest.approx(
        2 * np.log(3) - 3 - np.log(2)
    )


def test_a_computed_site_that_is_not_affine_is_drawn_but_has_no_marginal() -> None:
    @pp.model
    def curved():
        pp.deterministic("square", pp.sample("x", dist.Normal(0, 1)) ** 2)

    solution = solved(curved())
    with pytest.raises(NotExact, match="not an affine function"):
        solution.marginal("square")
    draws = solution.sample(jax.random.key(1), 3)
    np.testing.assert_allclose(draws["square"], draws["x"] ** 2)
    with pytest.raises(ModelError, match="Did you mean 'square'"):
        solution.marginal("squares")


def test_all_solvers_are_tried_and_a_fit_comes_out() -> None:
    @pp.model
    def small():
        x = pp.sample("x", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(x, 1))

    model = small().observe(y=2.0)
    assert solve(model.diagram, model.data, model.evidence).solver == "gaussian"
    fit = model.infer("exact", seed=1, draws=500)
    assert abs(float(fit.draws("x").mean()) - 1) < 0.1


def test_boxes_by_hand_are_checked() -> None:
    with pytest.raises(ShapeError, match=r"need A\[2, 1\]"):
        linear_gaussian(np.eye(2), np.zeros(2), None, (1,), (2,))
    with pytest.raises(ModelError, match="name of its own"):
        linear_gaussian(np.eye(1), np.zeros(1), np.eye(1), (1,), (1,))
    twice = linear_gaussian(np.eye(1), np.zeros(1), np.eye(1), (1,), (1,), name="n")
    with pytest.raises(NotGaussian, match="has its name"):
        gaussian(twice >> twice)
