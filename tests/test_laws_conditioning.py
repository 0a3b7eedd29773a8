"""Laws of disintegration and Bayesian inversion, on random finite models, to 1e-10."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ppcore as pp
from ppcore import dist
from ppcore.errors import CompositionError, ModelError, UnsupportedError
from ppcore.exact import NotExact, ZeroEvidenceError
from ppcore.model_kernel import ModelKernel
from tests.finite_diagrams import SEEDS, close, networks, table

laws = settings(settings.get_profile("fixed"), max_examples=40)


def enumerate_joint(model) -> np.ndarray:
    """The joint by the log density of every setting, independently of the tensor semantics."""
    from ppcore import precision
    from ppcore.diagram.condition import condition
    from ppcore.semantics.finite_dist import finite_values
    from ppcore.semantics.log_density import pointwise

    sites = tuple(model.latents)
    cards = [len(finite_values(model.spaces[s])) for s in sites]
    fixed = condition(model.diagram, sites)
    out = np.zeros(cards)
    with precision.scope("float64"):
        for at in np.ndindex(*cards):
            values = [np.asarray(i) for i in at]
            found = pointwise(fixed, (*model.data, *values), {})
            out[at] = np.exp(sum(float(v) for v in found.values()))
    return out


@settings(laws, max_examples=8)
@given(networks(nodes=3))
def test_the_joint_is_the_product_of_its_boxes(drawn) -> None:
    model, _ = drawn
    close(table(model, model.latents), enumerate_joint(model))


@laws
@given(networks(), st.data())
def test_evidence_and_posterior_are_slices_of_the_joint(drawn, data) -> None:
    model, _ = drawn
    joint = table(model, model.latents)
    at = data.draw(st.integers(0, joint.ndim - 1))
    state = data.draw(st.integers(0, joint.shape[at] - 1))
    part = joint.take(state, at)
    given_model = model.observe({f"x{at}": state})
    if part.sum() == 0:
        with pytest.raises(ZeroEvidenceError, match="probability zero"):
            given_model.solve()
        return
    solution = given_model.solve()
    close(np.exp(solution.log_evidence), part.sum())
    rest = [s for s in model.latents if s != f"x{at}"]
    close(solution.table(*rest), part / part.sum())
    for i, site in enumerate(rest):
        others = tuple(j for j in range(len(rest)) if j != i)
        close(solution.marginal(site).probs, part.sum(others) / part.sum())


@laws
@given(networks(), st.data())
def test_disintegration_round_trip(drawn, data) -> None:
    """Marginal, copy, then conditional is the joint: ω = (copy; id ⊗ c) ∘ ω_A."""
    model, _ = drawn
    sites = list(model.latents)
    first = data.draw(
        st.lists(st.sampled_from(sites), min_size=1, max_size=len(sites) - 1, unique=True)
    )
    kernel = model.disintegrate(given=first)
    again = model.marginal(keep=first) >> kernel
    close(table(again, sites), table(model, sites))
    assert all(b.normalized for b in kernel.diagram.boxes())


@laws
@given(networks(nodes=3), SEEDS)
def test_a_kernel_called_with_values_is_the_posterior(drawn, seed) -> None:
    model, _ = drawn
    last = model.latents[-1]
    marginal = table(model, [last])
    state = int(np.random.default_rng(seed).choice(len(marginal), p=marginal))
    rest = [s for s in model.latents if s != last]
    kernel = model.disintegrate(given=last)
    close(table(kernel({last: state}), rest), table(model.observe({last: state}), rest))


def chain(seed: int, positive: bool = True, sizes=(3, 2, 3)):
    """A prior on a and kernels a → b, b → c."""
    rng = np.random.default_rng(seed)

    def rows(*shape):
        t = rng.gamma(1.0, size=shape) + (0.05 if positive else 0.0)
        if not positive:
            t = t * rng.integers(0, 2, shape)
            t[..., int(rng.integers(shape[-1]))] += 0.1
        return t / t.sum(-1, keepdims=True)

    p, q, r = rows(sizes[0]), rows(sizes[0], sizes[1]), rows(sizes[1], sizes[2])

    @pp.model
    def prior():
        pp.sample("a", dist.Categorical(p))

    @pp.model
    def joint():
        a = pp.sample("a", dist.Categorical(np.full(sizes[0], 1 / sizes[0])))
        b = pp.sample("b", dist.Categorical(pp.math.get_at(q, a)))
        pp.sample("c", dist.Categorical(pp.math.get_at(r, b)))

    return prior(), joint().disintegrate("a", "b"), joint().disintegrate("b", "c")


@laws
@given(SEEDS, st.booleans())
def test_inversion_is_an_involution_almost_surely(seed, positive) -> None:
    prior, f, _ = chain(seed, positive)
    back = f.invert(prior)
    pushed = (prior >> f).marginal(keep="b")
    again = back.invert(pushed)
    support = table(prior, ["a"]) > 0
    close(again.tensor()[support], f.tensor()[support])


@laws
@given(SEEDS, st.booleans())
def test_the_inverse_of_a_composite_is_the_composite_of_inverses(seed, positive) -> None:
    """The chain rule of Bayesian lenses: (g ∘ f)† = f† ∘ g†, g inverted at the pushed prior."""
    prior, f, g = chain(seed, positive)
    whole = (f >> g).marginal("c").invert(prior)
    pushed = (prior >> f).marginal(keep="b")
    parts = (g.invert(pushed) >> f.invert(prior)).marginal("a")
    support = table(prior >> f >> g, ["c"]) > 0
    close(whole.tensor()[support], parts.tensor()[support])


def test_inversion_does_not_tensor_under_a_correlated_prior() -> None:
    """(f ⊗ g)† = f† ⊗ g† needs a product prior: with a correlated one it fails."""

    def pair(correlation: float):
        rows = np.array([[0.9, 0.1], [0.2, 0.8]])

        @pp.model
        def prior():
            a = pp.sample("a", dist.Bernoulli(0.5))
            pp.sample("b", dist.Bernoulli(0.5 + correlation * (a - 0.5)))

        @pp.model
        def noisy():
            a = pp.sample("a", dist.Bernoulli(0.5))
            b = pp.sample("b", dist.Bernoulli(0.5))
            pp.sample("y", dist.Bernoulli(pp.math.get_at(rows[:, 1], a)))
            pp.sample("z", dist.Bernoulli(pp.math.get_at(rows[:, 1], b)))

        both = noisy().disintegrate(["a", "b"], ["y", "z"])
        one, two = noisy().disintegrate("a", "y"), noisy().disintegrate("b", "z")
        whole = both.invert(prior()).tensor()  # y, z → a, b
        left = one.invert(prior().marginal(keep="a")).tensor()
        right = two.invert(prior().marginal(keep="b")).tensor()
        return whole, np.einsum("ya,zb->yzab", left, right)

    close(*pair(0.0))
    whole, product = pair(0.9)
    assert np.abs(whole - product).max() > 0.1


def test_sequential_updating_is_updating_at_once() -> None:
    @pp.model
    def tosses():
        bias = pp.sample("bias", dist.Categorical(np.full(5, 0.2)))
        for i in range(3):
            pp.sample(f"y{i}", dist.Bernoulli(bias / 4))

    model = tosses()
    at_once = model.observe(y0=1, y1=0, y2=1).solve().marginal("bias").probs
    step = model.observe(y0=1)
    step = step.observe(y1=0).observe(y2=1)
    close(step.solve().marginal("bias").probs, at_once)


def test_a_forward_kernel_needs_no_inference_even_for_continuous_sites() -> None:
    @pp.model
    def walk():
        a = pp.sample("a", dist.Normal(0, 1))
        b = pp.sample("b", dist.Normal(a, 1))
        pp.sample("c", dist.Normal(b, 0.5))

    model = walk()
    kernel = model.disintegrate(given="a")
    assert isinstance(kernel, ModelKernel) and kernel.outputs == ("b", "c")
    draws = kernel(a=100.0).simulate(0, 100)
    assert abs(draws["b"].mean() - 100) < 1
    with pytest.raises(ModelError, match="Did you mean"):
        model.disintegrate(given="cc")
    with pytest.raises(ModelError, match="both given and kept"):
        model.disintegrate(given="c", keep=["c", "a"])


def test_a_kernel_can_be_called_inside_a_model() -> None:
    @pp.model
    def noise():
        x = pp.sample("x", dist.Bernoulli(0.5))
        pp.sample("y", dist.Bernoulli(np.where(x, 0.9, 0.2)))

    kernel = noise().disintegrate(given="x")

    @pp.model
    def twice():
        x = pp.sample("x", dist.Bernoulli(0.3))
        with pp.prefix("left"):
            left = kernel(x=x)["y"]
        with pp.prefix("right"):
            right = kernel(x=x)["y"]
        pp.deterministic("both", left * right)

    solution = twice().solve()
    assert float(solution.marginal("both").mean) == pytest.approx(
        0.3 * 0.81 + 0.7 * 0.04, abs=1e-12
    )


def test_kernels_that_do_not_meet_are_refused() -> None:
    prior, f, g = chain(0)
    with pytest.raises(ModelError, match="no site 'b'"):
        prior >> g
    with pytest.raises(CompositionError, match="Both kernels make a site 'b'"):
        prior >> f >> f

    @pp.model
    def wide():
        pp.sample("a", dist.Categorical(np.full(7, 1 / 7)))

    with pytest.raises(CompositionError, match=r"integer_interval\[0, 6\].*\[0, 2\] is expected"):
        wide() >> f


def test_marginals_keep_what_evidence_needs() -> None:
    prior, f, g = chain(4)
    model = prior >> f >> g
    hidden = model.marginal(keep=["a", "c"])
    assert hidden.latents == ("a", "c") and "b" not in hidden.spaces
    close(table(hidden, ["a", "c"]), table(model, ["a", "c"]))
    assert [b.name for b in model.marginal(keep="a").diagram.boxes()] == ["a"]
    seen = model.observe(c=1).marginal(keep="a")
    close(seen.solve().marginal("a").probs, model.observe(c=1).solve().marginal("a").probs)
    with pytest.raises(ModelError, match="no site 'q'"):
        model.marginal(keep="q")


def test_a_solver_names_the_box_in_the_way() -> None:
    @pp.model
    def mixed():
        label = pp.sample("label", dist.Bernoulli(0.5))
        pp.sample("weight", dist.Gamma(2.0 + label, 1.0))

    with pytest.raises(NotExact, match="'weight'"):
        mixed().solve(["tensor"])


def gaussian_chain(seed: int):
    """A Gaussian prior on a vector a, and kernels a → b (a scalar) → c (a vector)."""
    rng = np.random.default_rng(seed)
    m, root = (
        rng.normal(size=2),
        np.tril(rng.normal(size=(2, 2)), -1) + np.diag(rng.uniform(0.5, 2, 2)),
    )
    w, v, s = rng.normal(size=2), rng.normal(size=3), rng.uniform(0.5, 2, 4)

    @pp.model
    def walk():
        a = pp.sample("a", dist.MultivariateNormal(m, scale_tril=root))
        b = pp.sample("b", dist.Normal(w @ a + 0.5, s[0]))
        pp.sample("c", dist.Normal(v * b, s[1:]))

    return walk()


def gaussian_joint(model, *sites):
    state = model.solve(["gaussian"]).joint(*sites)
    return state.mean, state.cov


@settings(laws, max_examples=6)
@given(SEEDS)
def test_gaussian_disintegration_and_inversion(seed) -> None:
    """Round trip, involution and the chain rule, for linear-Gaussian kernels."""
    model = gaussian_chain(seed)
    sites = ("a", "b", "c")
    back = model.disintegrate(given="c")
    assert back.diagram is not None and "Normal" in str(back.diagram.nodes[-1].box.spec)
    for x, y in zip(
        gaussian_joint(model.marginal(keep="c") >> back, *sites),
        gaussian_joint(model, *sites),
        strict=True,
    ):
        close(x, y)
    prior = model.marginal(keep="a")
    f, g = model.disintegrate("a", "b"), model.disintegrate("b", "c")
    pushed = (prior >> f).marginal(keep="b")
    again = f.invert(prior).invert(pushed)
    whole = (f >> g).marginal("c").invert(prior)
    parts = (g.invert(pushed) >> f.invert(prior)).marginal("a")
    at = np.random.default_rng(seed).normal(size=3)
    pairs = [
        (gaussian_joint(again(a=at[:2]), "b"), gaussian_joint(f(a=at[:2]), "b")),
        (gaussian_joint(whole(c=at), "a"), gaussian_joint(parts(c=at), "a")),
        (gaussian_joint(whole(c=at), "a"), gaussian_joint(model.observe(c=at), "a")),
    ]
    for left, right in pairs:
        close(left[0], right[0])
        close(left[1], right[1])


def test_other_conditionals_are_inferred_when_they_are_called() -> None:
    @pp.model
    def counts():
        rate = pp.sample("rate", dist.LogNormal(0, 1))
        pp.sample("n", dist.Poisson(rate))

    kernel = counts().disintegrate(given="n")
    assert "by inference" in repr(kernel) and "tensor solver" in kernel.reason
    posterior = kernel(n=3)
    assert posterior.latents == ("rate",) and posterior.observed == ("n",)
    with pytest.raises(UnsupportedError, match="known only through inference"):
        kernel >> kernel


def test_discarded_sites_of_one_name_stay_apart() -> None:
    """Two kernels may both have summed out a site called u; their noise is not shared."""

    @pp.model
    def noisy(source, result):
        x = pp.sample(source, dist.Bernoulli(0.5))
        u = pp.sample("u", dist.Bernoulli(0.3))
        pp.sample(result, dist.Bernoulli(np.where(x != u, 1.0, 0.0)))

    prior = noisy("w", "x").marginal(keep="x")
    kernel = noisy("x", "y").disintegrate(given="x", keep="y")
    joint = prior >> kernel
    assert len({b.name for b in joint.diagram.boxes() if b.op == "sample"}) == 5
    draws = joint.simulate(0, 4000)
    flipped = draws["x"] != draws["y"]
    assert abs(flipped.mean() - 0.3) < 4 * np.sqrt(0.21 / 4000)
    close(joint.solve().marginal("y").mean, 0.5)
    again = (prior >> kernel.marginal("y")) >> noisy("y", "z").disintegrate("y", "z")
    assert len({b.name for b in again.diagram.boxes() if b.op == "sample"}) == 7
