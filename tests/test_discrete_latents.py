"""Finite latent sites summed out: against enumeration, in linear time, recovered afterwards."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import quietly

import ppcore as pp
from ppcore import dist, precision
from ppcore.errors import UnsupportedError
from ppcore.model_target import ModelTarget
from ppcore.semantics.finite_dist import finite_values
from ppcore.semantics.mixed import NotSummable
from ppcore.semantics.sum_product import Batch, Cliques, Paths, sum_out

rng = np.random.default_rng(0)


def enumerated(model, target, x):
    """All settings of the labels; log γ of each; log γ and its gradient with them summed out."""
    names = target.labels
    evidence = dict(zip(target.observed, target.evidence, strict=True))
    order = model.diagram.named("sample")
    seen = tuple(n for n in order if n in evidence or n in names)
    grids = []
    for space in (model.spaces[n] for n in names):
        values = itertools.product(finite_values(space), repeat=space.size)
        grids.append([np.array(v).reshape(space.shape) for v in values])
    settings = list(itertools.product(*grids))
    stacked = [jnp.asarray(np.stack([s[i] for s in settings])) for i in range(len(names))]

    def log_density(x, labels):
        values = {**evidence, **dict(zip(names, labels, strict=True))}
        given = tuple(values[n] for n in seen)
        return ModelTarget(model.diagram, seen, tuple(model.data), given).log_density(x)

    @jax.jit
    def everything(x):
        logs = jax.vmap(lambda *labels: log_density(x, labels))(*stacked)
        return jax.nn.logsumexp(logs), logs

    total, logs = everything(x)
    gradient = jax.grad(lambda x: everything(x)[0])(x)
    return settings, np.asarray(logs), float(total), np.asarray(gradient)


@pp.model
def mixture(n):
    p = pp.sample("p", dist.Dirichlet(np.ones(3)))
    mu = pp.sample("mu", dist.Normal(0, 5).expand([3]))
    s = pp.sample("s", dist.HalfNormal(1).expand([3]))
    with pp.plate("i", n):
        z = pp.sample("z", dist.Categorical(p))
        pp.deterministic("m", mu[z])
        pp.sample("y", dist.Normal(mu[z], s[z]))


@pp.model
def hmm(length):
    mu = pp.sample("mu", dist.Normal(0, 5).expand([2]))
    p = pp.sample("p", dist.Dirichlet(np.ones((2, 2))).to_event(1))

    def step(z, _):
        z = pp.sample("z", dist.Categorical(p[z]))
        pp.sample("y", dist.Normal(mu[z], 1.0))
        return z, None

    pp.scan(step, 0, length=length)


@pp.model
def hmm_from_outside(length):
    mu = pp.sample("mu", dist.Normal(0, 5).expand([2]))
    p = pp.sample("p", dist.Dirichlet(np.ones((2, 2))).to_event(1))
    z0 = pp.sample("z0", dist.Categorical(np.ones(2) / 2))
    pp.sample("y0", dist.Normal(mu[z0], 1))

    def step(z, _):
        z = pp.sample("z", dist.Categorical(p[z]))
        return z, z

    last, states = pp.scan(step, z0, length=length)
    with pp.plate("t", length):
        pp.sample("y", dist.Normal(mu[states], 1.0))
    after = pp.sample("after", dist.Categorical(p[last]))
    pp.sample("y_after", dist.Normal(mu[after], 1))


@pp.model
def switching_chains(length, n):
    mu = pp.sample("mu", dist.Normal(0, 5).expand([2]))
    g = pp.sample("g", dist.Bernoulli(0.3))
    a = pp.sample("a", dist.Beta(1, 1).expand([2]))

    def step(carry, x):
        z, u = carry
        with pp.plate("n", n):
            z = pp.sample("z", dist.Bernoulli(np.where(z > 0, a[g], a[1 - g])))
            v = pp.sample("v", dist.Normal(0.5 * u + mu[z], 1))
            pp.sample("y", dist.Normal(v, 1.0 + g * x))
        return (z, v), None

    pp.scan(step, (np.zeros(n, int), np.zeros(n)), np.arange(1.0, length + 1))


@pp.model
def grouped(index):
    mu = pp.sample("mu", dist.Normal(0, 5).expand([2]))
    w = pp.sample("w", dist.Normal(0, 1).expand([2, 3]))
    with pp.plate("g", 3):
        z = pp.sample("z", dist.Categorical(np.array([0.2, 0.8])))
        b = pp.sample("b", dist.Normal(mu[z], 1))
    with pp.plate("i", len(index)):
        k = pp.sample("k", dist.Categorical(logits=w[z[index]]))
        pp.sample("y", dist.Normal(b[index] + k * mu[z[index]], 0.5))
    pp.factor("f", -0.1 * np.sum(z * b))
    pp.deterministic("d", z * b)


@pp.model
def several():
    a = pp.sample("a", dist.Bernoulli(0.3))
    b = pp.sample("b", dist.Categorical(np.array([0.2, 0.5, 0.3])))
    e = pp.sample("e", dist.Bernoulli(np.array([0.3, 0.6])).to_event(1))
    pp.sample("y_event", dist.Normal(1.5 * e, 1.0).to_event(1))
    n = pp.sample("n", dist.Binomial(3, 0.4))
    t = pp.sample("t", dist.Normal(a + b, 1 + n))
    c = pp.sample("c", dist.Bernoulli(logits=t * b - a))
    pp.sample("y", dist.MultivariateNormal(np.stack([t * a, t * b]), np.eye(2) * (1.0 + c)))


@pp.model
def second_order(length):
    mu = pp.sample("mu", dist.Normal(0, 5).expand([2]))
    p = pp.sample("p", dist.Beta(1, 1).expand([2, 2]))

    def step(carry, _):
        one, two = carry
        z = pp.sample("z", dist.Bernoulli(p[one, two]))
        pp.sample("y", dist.Normal(mu[z], 1))
        return (two, z), None

    pp.scan(step, (0, 1), length=length, reverse=True)


@pp.model
def left_to_right(length):
    mu = pp.sample("mu", dist.Normal(0, 5).expand([3]))
    p = np.array([[0.9, 0.1, 0.0], [0.0, 0.8, 0.2], [0.0, 0.0, 1.0]])

    def step(z, _):
        z = pp.sample("z", dist.Categorical(pp.math.get_at(p, z)))
        pp.sample("y", dist.Normal(mu[z], 1.0))
        return z, None

    pp.scan(step, 0, length=length)


MODELS = {
    "mixture": mixture(4).observe(y=rng.normal(size=4)),
    "hmm": hmm(9).observe(y=rng.normal(size=9)),
    "hmm_from_outside": hmm_from_outside(4).observe(y=rng.normal(size=4), y0=0.3, y_after=0.1),
    "switching_chains": switching_chains(3, 2).observe(y=rng.normal(size=(3, 2))),
    "grouped": grouped(np.array([0, 1, 1, 2])).observe(y=rng.normal(size=4)),
    "several": several().observe(y=np.array([0.1, 0.2]), y_event=np.array([0.5, 1.2])),
    "left_to_right": left_to_right(4).observe(y=rng.normal(size=4)),
    "second_order": second_order(6).observe(y=rng.normal(size=6)),
}


@pytest.mark.parametrize("name", MODELS)
def test_density_gradient_and_labels_agree_with_enumeration(name):
    model = MODELS[name]
    with precision.scope("float64"):
        target = model.target()
        x = jnp.asarray(rng.normal(size=target.dim))
        value, gradient = jax.jit(jax.value_and_grad(lambda x, t: t.log_density(x)))(x, target)
        settings, logs, total, want = enumerated(model, target, x)
        assert float(value) == pytest.approx(total, abs=1e-10)
        np.testing.assert_allclose(gradient, want, rtol=0, atol=1e-10)

        @jax.jit
        def draws(target, x, keys):
            found = target.mixed(x)
            states = jax.vmap(found.summed.draw)(keys)
            return jax.vmap(lambda s: (found.values_at(s), found.summed.log_prob(s)))(states)

        # The recovered labels' probabilities: log q of a draw is log p(labels | x, y).
        drawn, log_q = draws(target, x, jax.random.split(jax.random.key(1), 8))
        for i in range(8):
            at = next(
                j
                for j, s in enumerate(settings)
                if all((drawn[n][i] == v).all() for n, v in zip(target.labels, s, strict=True))
            )
            assert float(log_q[i]) == pytest.approx(logs[at] - total, abs=1e-10)


def test_prior_and_likelihood_add_up_and_temper():
    """γ_β = prior · likelihood^β, the labels summed out of each."""
    from dataclasses import replace

    for name in ("grouped", "several", "mixture"):
        target = MODELS[name].target()
        with precision.scope("float64"):
            x = jnp.asarray(rng.normal(size=target.dim))
            prior, likelihood, density, by_site = jax.jit(
                lambda t, x: (
                    t.log_prior(x),
                    t.log_likelihood(x),
                    replace(t, beta=0.3).log_density(x),
                    t.log_density_by_site(x),
                )
            )(target, x)
            assert float(density) == pytest.approx(float(prior + 0.3 * likelihood), abs=1e-10)
            total = sum(float(v) for v in by_site.values())
            assert total == pytest.approx(float(prior + likelihood), abs=1e-10)


def test_draws_of_labels_follow_their_conditional():
    """Frequencies of 20000 draws, within five standard errors of enumeration."""
    model = MODELS["several"]
    with precision.scope("float64"):
        target = model.target()
        x = jnp.asarray(rng.normal(size=target.dim))
        settings, logs, total, _ = enumerated(model, target, x)
        keys = jax.random.split(jax.random.key(1), 20000)
        drawn = jax.jit(jax.vmap(lambda k: target.complete(k, x)))(keys)
        rows = np.concatenate([np.asarray(drawn[n]).reshape(20000, -1) for n in target.labels], 1)
        codes = rows @ 10 ** np.arange(rows.shape[1])
        for setting, log in zip(settings, logs, strict=True):
            p = np.exp(log - total)
            code = np.concatenate([v.ravel() for v in setting]) @ 10 ** np.arange(rows.shape[1])
            share = (codes == code).mean()
            assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / 20000) + 1e-4


def test_a_mixture_with_labels_is_the_mixture_without():
    @pp.model
    def unlabelled(n):
        p = pp.sample("p", dist.Dirichlet(np.ones(3)))
        mu = pp.sample("mu", dist.Normal(0, 5).expand([3]))
        s = pp.sample("s", dist.HalfNormal(1).expand([3]))
        with pp.plate("i", n):
            pp.sample("y", dist.MixtureSameFamily(dist.Categorical(p), dist.Normal(mu, s)))

    y = rng.normal(size=1000)
    ours, theirs = mixture(1000).observe(y=y).target(), unlabelled(1000).observe(y=y).target()
    with precision.scope("float64"):
        x = jnp.asarray(rng.normal(size=ours.dim))
        both = jax.jit(jax.value_and_grad(lambda x, t: t.log_density(x)))
        for a, b in zip(both(x, ours), both(x, theirs), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)


def test_a_hidden_chain_is_one_scan_whatever_its_length():
    """The program has the same size for 100 and for 10⁴ steps."""
    sizes = []
    with precision.scope("float64"):
        for length in (100, 10_000):
            target = hmm(length).observe(y=rng.normal(size=length)).target()
            made = jax.make_jaxpr(lambda t, x: t.log_density(x))(target, jnp.zeros(target.dim))
            sizes.append(len(made.jaxpr.eqns))
            steps = target.mixed(jnp.zeros(target.dim)).summed.steps
            assert any(isinstance(s, Paths) for s in steps)
    assert sizes[0] == sizes[1]


def test_steps_of_a_chain_written_as_a_loop_share_their_tables():
    """A step adds what its observation needs, and no table of transitions."""

    def unrolled(length):
        @pp.model
        def chain():
            rows = pp.sample("rows", dist.Dirichlet(np.ones((2, 2))).to_event(1))
            x = 0
            for t in range(length):
                x = pp.sample(f"x{t}", dist.Categorical(rows[x] / np.sum(rows[x])))
                pp.sample(f"y{t}", dist.Normal(1.0 * x, 1.0))

        return chain().observe(**{f"y{t}": 0.1 * t for t in range(length)}).target()

    sizes = []
    with precision.scope("float64"):
        for target in (unrolled(8), unrolled(9)):
            made = jax.make_jaxpr(lambda t, x: t.log_density(x))(target, jnp.zeros(target.dim))
            sizes.append(len(made.jaxpr.eqns))
    assert sizes[1] - sizes[0] <= 20


def test_chains_in_a_plate_are_the_chains_one_by_one():
    @pp.model
    def chains(length, n):
        mu = pp.sample("mu", dist.Normal(0, 5).expand([2]))
        p = pp.sample("p", dist.Dirichlet(np.ones((2, 2))).to_event(1))

        def step(z, _):
            with pp.plate("n", n):
                z = pp.sample("z", dist.Categorical(p[z]))
                pp.sample("y", dist.Normal(mu[z], 1.0))
            return z, None

        pp.scan(step, np.zeros(n, int), length=length)

    y = rng.normal(size=(9, 3))
    with precision.scope("float64"):
        together = chains(9, 3).observe(y=y).target()
        x = jnp.asarray(rng.normal(size=together.dim))
        alone = jax.jit(lambda t, x: t.log_likelihood(x))
        want = sum(float(alone(hmm(9).observe(y=y[:, i]).target(), x)) for i in range(3))
        assert float(alone(together, x)) == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("shape", ["tree", "grid", "cycle", "star"])
def test_elimination_agrees_with_brute_force(shape):
    edges = {
        "tree": [(0, 1), (1, 2), (1, 3), (3, 4), (3, 5)],
        "grid": [(0, 1), (1, 2), (3, 4), (4, 5), (0, 3), (1, 4), (2, 5)],
        "cycle": [(i, (i + 1) % 6) for i in range(6)],
        "star": [(0, i) for i in range(1, 6)],
    }[shape]
    cards = [2, 3, 2, 2, 3, 2]
    logs = [rng.normal(size=(cards[a], cards[b])) for a, b in edges]
    full = np.zeros(cards)
    for (a, b), log in zip(edges, logs, strict=True):
        aligned = log if a < b else log.T
        full = full + aligned.reshape([c if i in (a, b) else 1 for i, c in enumerate(cards)])
    with precision.scope("float64"):
        found = sum_out(
            [Batch(np.array([e]), log[..., None]) for e, log in zip(edges, logs, strict=True)],
            cards,
        )
        total = np.log(np.exp(full).sum())
        assert float(found.log_total) == pytest.approx(total, abs=1e-10)
        assert all(isinstance(s, Cliques) for s in found.steps)
        for i in range(4):
            state = found.draw(jax.random.key(i))
            want = full[tuple(np.asarray(state))] - total
            assert float(found.log_prob(state)) == pytest.approx(want, abs=1e-10)


@pytest.mark.parametrize("engine", ["nuts", "ensemble"])
def test_engines_just_work_and_labels_come_back(engine):
    y = np.concatenate([rng.normal(size=15) - 3, rng.normal(size=35) + 3])

    @pp.model
    def two(n):
        mu = pp.sample("mu", dist.Normal(np.array([-2.0, 2.0]), 1.0))
        with pp.plate("i", n):
            z = pp.sample("z", dist.Categorical(np.array([0.3, 0.7])))
            pp.deterministic("m", mu[z])
            pp.sample("y", dist.Normal(mu[z], 1.0))

    fit = quietly(two(50).observe(y=y), engine, draws=200, chains=None)
    z = fit.draws("z")
    assert z.dtype.kind == "i"
    assert (z[..., :15].mean() < 0.05) and (z[..., 15:].mean() > 0.95)
    picked = np.take_along_axis(fit.draws("mu"), z, axis=-1)
    np.testing.assert_array_equal(fit.draws("m"), picked)
    again = quietly(two(50).observe(y=y), engine, draws=200, chains=None)
    np.testing.assert_array_equal(again.draws("z"), z)
    assert fit.predict("y").shape[-1] == 50


def test_what_cannot_be_summed_out_is_refused_with_a_reason():
    @pp.model
    def poisson():
        k = pp.sample("k", dist.Poisson(3.0))
        pp.sample("y", dist.Normal(k, 1.0))

    @pp.model
    def bounded():
        z = pp.sample("z", dist.Bernoulli(0.5))
        x = pp.sample("x", dist.Uniform(0.0, 1.0 + z))
        pp.sample("y", dist.Normal(x, 1.0))

    @pp.model
    def coupled(n):
        w = pp.sample("w", dist.Normal(0, 1))
        with pp.plate("i", n):
            z = pp.sample("z", dist.Bernoulli(0.5))
        pp.sample("y", dist.Normal(np.sum(w * z), 1.0))

    @pp.model
    def filtered(n):
        a = pp.sample("a", dist.Normal(0, 1).expand([2]))

        def step(x, _):
            z = pp.sample("z", dist.Bernoulli(0.5))
            x = a[z] * x
            pp.sample("y", dist.Normal(x, 1.0))
            return x, None

        pp.scan(step, 1.0, length=n)

    @pp.model
    def lattice(n):
        w = pp.sample("w", dist.Normal(0, 1))
        with pp.plate("row", n), pp.plate("column", n):
            z = pp.sample("z", dist.Bernoulli(0.5))
        pp.sample("y", dist.Normal(w * z[1:] * z[:-1], 1.0))
        pp.factor("across", w * z[:, 1:] * z[:, :-1])

    for model, value, site, why in (
        (lattice(40), np.zeros((39, 40)), "z", "tables of"),
        (poisson(), 1.0, "k", "GammaPoisson"),
        (bounded(), 1.0, "x", "support that depends"),
        (coupled(40), 1.0, "sum", "40 finite variables at once"),
        (filtered(3), np.ones(3), "scan", "Carry the"),
    ):
        with pytest.raises(UnsupportedError, match=why) as error:
            with precision.scope("float64"):
                target = model.observe(y=value).target()
                jax.eval_shape(target.log_density, jnp.zeros(target.dim))
        assert isinstance(error.value, NotSummable)
        assert site in error.value.box
