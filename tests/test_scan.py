"""Scans: one box, stacked sites, and the same numbers as the loop written out."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from scipy import stats

import ppcore as pp
from ppcore import dist
from ppcore.precision import scope


@pytest.fixture(autouse=True)
def double():
    with scope("float64"):
        yield


def level(x, steps):
    scale = pp.sample("scale", dist.HalfNormal(1))

    def step(z, x):
        z = pp.sample("z", dist.Normal(0.9 * z + x, scale))
        pp.sample("y", dist.Normal(z, 0.5))
        return z, z * 2

    last, doubled = pp.scan(step, 0.0, x)
    pp.deterministic("last", last)
    pp.deterministic("doubled", doubled)


X = np.linspace(-1, 1, 6)
Y = np.array([0.3, -0.1, 0.6, 0.2, 1.0, 0.7])


@pytest.fixture
def model() -> pp.Model:
    return pp.model(level)(X, 6)


def boxes(model: pp.Model) -> list[str]:
    return [node.box.op for node in model.diagram.nodes]


def test_a_scan_is_one_box_with_a_sub_diagram(model: pp.Model) -> None:
    assert boxes(model).count("scan") == 1
    box = next(n.box for n in model.diagram.nodes if n.box.op == "scan")
    assert box.spec.length == 6
    assert box.body.named("sample") == ("z", "y")
    assert model.spaces["z"].shape == model.spaces["y"].shape == (6,)
    assert model.latents == ("scale", "z", "y")
    longer = pp.model(level)(np.zeros(60), 60).diagram
    assert sum(1 for _ in longer.boxes()) == sum(1 for _ in model.diagram.boxes())


def test_density_is_that_of_the_loop(model: pp.Model) -> None:
    target = model.observe(y=Y).target()
    z = np.array([-0.5, -0.9, -1.2, 0.4, 0.9, 2.0])
    scale = 0.7
    x = np.asarray(target.unconstrain({"scale": scale, "z": z}))
    assert target.dim == 7
    prior = stats.halfnorm.logpdf(scale) + np.log(scale)
    prior += stats.norm.logpdf(z, 0.9 * np.r_[0, z[:-1]] + X, scale).sum()
    np.testing.assert_allclose(target.log_prior(x), prior, rtol=1e-12)
    np.testing.assert_allclose(target.log_likelihood(x), stats.norm.logpdf(Y, z, 0.5).sum())
    values = target.constrain(x)
    np.testing.assert_allclose(values["doubled"], 2 * z)
    np.testing.assert_allclose(values["last"], z[-1])
    by_site = target.log_density_by_site(x)
    np.testing.assert_allclose(sum(by_site.values()), target.log_density(x))


def test_pointwise_log_likelihood_has_one_term_a_step(model: pp.Model) -> None:
    z = np.random.default_rng(0).normal(size=(3, 6))
    found = model.observe(y=Y).pointwise_log_likelihood({"scale": np.ones(3), "z": z})
    np.testing.assert_allclose(found["y"], stats.norm.logpdf(Y, z, 0.5))


def test_observing_the_state_itself(model: pp.Model) -> None:
    z = np.array([-0.5, -0.9, -1.2, 0.4, 0.9, 2.0])
    target = model.observe(y=Y, z=z).target()
    assert target.latents == ("scale",)
    scale = float(np.exp(0.2))
    expected = stats.norm.logpdf(z, 0.9 * np.r_[0, z[:-1]] + X, scale).sum()
    expected += stats.norm.logpdf(Y, z, 0.5).sum()
    np.testing.assert_allclose(target.log_likelihood(np.array([0.2])), expected)


def test_forward_draws(model: pp.Model) -> None:
    draws = model.simulate(seed=1, n=4000)
    assert draws["z"].shape == (4000, 6)
    z, scale = draws["z"], draws["scale"]
    np.testing.assert_allclose(draws["doubled"], 2 * z)
    noise = (z - 0.9 * np.c_[np.zeros(4000), z[:, :-1]] - X) / scale[:, None]
    # Seven tests share an error of 1e-3: each step's innovation, and that no two are related.
    for step in range(6):
        assert stats.kstest(noise[:, step], "norm").pvalue > 1e-3 / 7
    correlations = np.corrcoef(noise.T)[np.triu_indices(6, 1)]
    assert (4000 * correlations**2).sum() < stats.chi2(15).isf(1e-3 / 7)


def test_draws_given_the_states(model: pp.Model) -> None:
    z = np.tile(np.arange(6.0), (2000, 1))
    draws = model.simulate_given(0, {"z": z, "scale": np.ones(2000)})
    np.testing.assert_allclose(draws["last"], 5.0)
    assert stats.kstest((draws["y"] - z).ravel(), stats.norm(0, 0.5).cdf).pvalue > 1e-3


def same_as_loop(ours: Any, theirs: Any, *args: np.ndarray) -> None:
    """A scan and the loop written out give one log density, for the same coordinates."""
    one, other = pp.model(ours)(*args).target(), pp.model(theirs)(*args).target()
    assert one.dim == other.dim
    x = np.random.default_rng(2).normal(size=one.dim)
    found = [jax.jit(jax.value_and_grad(t.log_density))(x) for t in (one, other)]
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-12)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-9, atol=1e-12)


def test_carry_may_be_nested_and_promoted() -> None:
    def ours(x):
        a = pp.sample("a", dist.Normal(0, 1))

        def step(carry, element):
            total, (k, parts) = carry["total"], carry["rest"]
            u, v = element
            total = total + a * u["x"] * k - v
            return {"total": total, "rest": (k + 1, [parts[0] * a])}, (total, k)

        start = {"total": 0, "rest": (1, [np.ones(2)])}
        last, (totals, ks) = pp.scan(step, start, ({"x": x}, x**2))
        pp.factor("f", totals.sum() + ks[-1] * last["rest"][1][0].sum() + last["total"])

    def theirs(x):
        a = pp.sample("a", dist.Normal(0, 1))
        total, k, part, totals = 0.0, 1, np.ones(2), []
        for t in range(len(x)):
            total = total + a * x[t] * k - x[t] ** 2
            totals.append(total)
            k, part = k + 1, part * a
        pp.factor("f", sum(totals) + (k - 1) * part.sum() + total)

    same_as_loop(ours, theirs, X)


def test_reverse() -> None:
    def ours(x):
        a = pp.sample("a", dist.Normal(0, 1))
        last, path = pp.scan(lambda c, x: (a * c + x, c), 1.0, x, reverse=True)
        pp.factor("f", last + (path * np.arange(6)).sum())

    def theirs(x):
        a = pp.sample("a", dist.Normal(0, 1))
        c, path = 1.0, [None] * 6
        for t in reversed(range(6)):
            path[t] = c
            c = a * c + x[t]
        pp.factor("f", c + sum(p * k for k, p in enumerate(path)))

    same_as_loop(ours, theirs, X)


def test_scans_nest() -> None:
    def ours(table):
        a = pp.sample("a", dist.Normal(0, 1))

        def outer(total, row):
            inner, _ = pp.scan(lambda c, x: (c * a + x * total, None), 0.0, row)
            return total + inner, inner

        _, path = pp.scan(outer, 1.0, table)
        pp.factor("f", path.sum())

    def theirs(table):
        a = pp.sample("a", dist.Normal(0, 1))
        total, path = 1.0, []
        for row in table:
            c = 0.0
            for x in row:
                c = c * a + x * total
            total = total + c
            path.append(c)
        pp.factor("f", sum(path))

    same_as_loop(ours, theirs, np.random.default_rng(0).normal(size=(3, 4)))


def test_sites_in_nested_scans_stack_twice() -> None:
    def declared():
        def outer(c, _):
            c, _ = pp.scan(lambda d, _: (pp.sample("z", dist.Normal(d, 1)), None), c, length=2)
            return c, None

        pp.scan(outer, 0.0, length=3)

    model = pp.model(declared)()
    assert model.spaces["z"].shape == (3, 2)
    target = model.target()
    assert target.dim == 6
    z = np.random.default_rng(0).normal(size=6)
    expected = stats.norm.logpdf(np.diff(np.r_[0, z])).sum()
    np.testing.assert_allclose(target.log_density(z), expected)
    assert model.simulate(n=5)["z"].shape == (5, 3, 2)
    flat = model.simulate(seed=0, n=2000)["z"].reshape(2000, 6)
    innovations = np.diff(np.c_[np.zeros(2000), flat], axis=1)
    correlations = np.corrcoef(innovations.T)[np.triu_indices(6, 1)]
    assert (2000 * correlations**2).sum() < stats.chi2(15).isf(1e-3)
    observed = model.observe(z=np.zeros((3, 2))).target()
    np.testing.assert_allclose(observed.log_density(np.zeros(0)), 6 * stats.norm.logpdf(0))


def test_what_a_step_uses_from_outside_is_captured() -> None:
    table = np.arange(12.0).reshape(6, 2)

    def declared(x):
        a = pp.sample("a", dist.Normal(0, 1))
        b = np.exp(a)

        def step(c, t):
            # Data, a random value, and a random index into data made outside.
            return c + b * x.sum() + pp.math.get_at(table, (t, 1)), None

        last, _ = pp.scan(step, 0.0, np.arange(6))
        pp.factor("f", last)

    target = pp.model(declared)(X).target()
    a = 0.4
    expected = stats.norm.logpdf(a) + 6 * np.exp(a) * X.sum() + table[:, 1].sum()
    np.testing.assert_allclose(target.log_density(np.array([a])), expected)


def test_supports_inside_a_scan() -> None:
    def declared():
        def step(c, _):
            s = pp.sample("s", dist.HalfNormal(c))
            w = pp.sample("w", dist.Dirichlet(np.ones(3)))
            return s + w[0], None

        pp.scan(step, 1.0, length=4)

    model = pp.model(declared)()
    target = model.target()
    assert target.dim == 4 * (1 + 2)
    x = np.random.default_rng(0).normal(size=12)
    values = jax.jit(target.constrain)(x)
    assert values["s"].shape == (4,)
    assert values["w"].shape == (4, 3)
    again = jax.jit(target.unconstrain)({n: values[n] for n in target.latents})
    np.testing.assert_allclose(again, x, rtol=1e-9)
    drawn = jax.jit(target.sample_reference, static_argnums=1)(jax.random.key(0), 3)
    assert np.isfinite(jax.jit(jax.vmap(target.log_density))(drawn)).all()


def test_names_in_a_step_take_the_prefix() -> None:
    @pp.model
    def walk():
        return pp.scan(lambda c, _: (pp.sample("z", dist.Normal(c, 1)), None), 0.0, length=2)[0]

    def declared():
        with pp.prefix("a"):
            walk()
        with pp.prefix("b"):
            walk()

    assert pp.model(declared)().latents == ("a.z", "b.z")


def test_evidence_is_checked_step_by_step(model: pp.Model) -> None:
    with pytest.raises(pp.errors.EvidenceError, match=r"'y' have shape \(5,\).*shape \(6,\)"):
        model.observe(y=np.zeros(5))


def test_a_scan_that_draws_nothing_is_deterministic() -> None:
    def declared():
        a = pp.sample("a", dist.Normal(0, 1))
        pp.deterministic("p", pp.scan(lambda c, _: (c * a, None), 1.0, length=5)[0])

    box = next(n.box for n in pp.model(declared)().diagram.nodes if n.box.op == "scan")
    assert box.deterministic
    assert box.normalized
