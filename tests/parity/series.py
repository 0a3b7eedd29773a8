"""Scans, sub-models, indexing, masks and lifted functions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
from jax.nn import logsumexp
from numpyro import sample
from numpyro.contrib.control_flow import scan

import ppcore as pp
from ppcore import dist

from .case import Case

rng = np.random.default_rng(20240603)
Y = rng.normal(size=15)


def state_space() -> Case:
    def ours(x):
        drift = pp.sample("drift", dist.Normal(0, 0.3))
        q = pp.sample("q", dist.HalfNormal(1))
        start = pp.sample("start", dist.Normal(0, 1))

        def step(z, x):
            z = pp.sample("z", dist.Normal(z + drift * x, q))
            pp.sample("y", dist.Normal(z, 0.5))
            return z, z**2

        _, squares = pp.scan(step, start, x)
        pp.deterministic("energy", squares.mean())

    def theirs(x, y=None):
        drift = sample("drift", nd.Normal(0, 0.3))
        q = sample("q", nd.HalfNormal(1))
        start = sample("start", nd.Normal(0, 1))

        def step(z, element):
            x, y = element
            z = sample("z", nd.Normal(z + drift * x, q))
            sample("y", nd.Normal(z, 0.5), obs=y)
            return z, z**2

        _, squares = scan(step, start, (x, y), length=15)
        numpyro.deterministic("energy", squares.mean())

    return Case("state_space", ours, theirs, (np.linspace(-1, 1, 15),), {"y": Y})


def vector_states() -> Case:
    def ours():
        A = pp.sample("A", dist.Normal(0, 0.4).expand([2, 2]).to_event(2))
        scale = pp.sample("scale", dist.LogNormal(-1, 0.5))

        def step(carry, _):
            z, k = carry
            z = pp.sample("z", dist.Normal(A @ z, scale).to_event(1))
            pp.sample("y", dist.Poisson(np.exp(z[0] - 0.1 * k)))
            return (z, k + 1), None

        pp.scan(step, (np.ones(2), 0), length=8)

    def theirs(y=None):
        A = sample("A", nd.Normal(0, 0.4).expand([2, 2]).to_event(2))
        scale = sample("scale", nd.LogNormal(-1, 0.5))

        def step(carry, y):
            z, k = carry
            z = sample("z", nd.Normal(A @ z, scale).to_event(1))
            sample("y", nd.Poisson(jnp.exp(z[0] - 0.1 * k)), obs=y)
            return (z, k + 1), None

        scan(step, (jnp.ones(2), 0), y, length=8)

    return Case("vector_states", ours, theirs, (), {"y": rng.poisson(1.0, 8)})


def autoregression() -> Case:
    def ours(y):
        alpha = pp.sample("alpha", dist.Normal(0, 1))
        beta = pp.sample("beta", dist.Normal(0, 0.5).expand([2]).to_event(1))
        sigma = pp.sample("sigma", dist.HalfCauchy(1))
        lags = np.stack([y[1:-1], y[:-2]])
        pp.sample("ahead", dist.Normal(alpha + beta @ lags, sigma))

    def theirs(y, ahead=None):
        alpha = sample("alpha", nd.Normal(0, 1))
        beta = sample("beta", nd.Normal(0, 0.5).expand([2]).to_event(1))
        sigma = sample("sigma", nd.HalfCauchy(1))
        mean = [alpha + beta[0] * y[t - 1] + beta[1] * y[t - 2] for t in range(2, 15)]
        sample("ahead", nd.Normal(jnp.stack(mean), sigma), obs=ahead)

    return Case("autoregression", ours, theirs, (Y,), {"ahead": Y[2:]})


def garch() -> Case:
    def ours(y):
        mu = pp.sample("mu", dist.Normal(0, 1))
        a0 = pp.sample("a0", dist.HalfNormal(1))
        a1 = pp.sample("a1", dist.Uniform(0, 1))
        b1 = pp.sample("b1", dist.Uniform(0, 1 - a1))

        def step(variance, y):
            variance = a0 + a1 * (y - mu) ** 2 + b1 * variance
            return variance, variance

        _, variance = pp.scan(step, 1.0, y[:-1])
        pp.sample("ahead", dist.Normal(mu, np.sqrt(variance)))

    def theirs(y, ahead=None):
        mu = sample("mu", nd.Normal(0, 1))
        a0 = sample("a0", nd.HalfNormal(1))
        a1 = sample("a1", nd.Uniform(0, 1))
        b1 = sample("b1", nd.Uniform(0, 1 - a1))
        variance, path = 1.0, []
        for t in range(14):
            variance = a0 + a1 * (y[t] - mu) ** 2 + b1 * variance
            path.append(variance)
        sample("ahead", nd.Normal(mu, jnp.sqrt(jnp.stack(path))), obs=ahead)

    return Case("garch", ours, theirs, (Y,), {"ahead": Y[1:]})


def hidden_markov() -> Case:
    def ours(y):
        transition = pp.sample("transition", dist.Dirichlet(np.ones((3, 3))).to_event(1))
        mu = pp.sample("mu", dist.Normal(np.array([-1.0, 0, 1]), 1).to_event(1))

        def forward(log_alpha, y):
            emitted = -0.5 * (y - mu) ** 2
            ahead = pp.math.logsumexp(log_alpha[:, None] + np.log(transition), axis=0)
            return ahead + emitted, None

        last, _ = pp.scan(forward, np.full(3, -np.log(3)), y)
        pp.factor("likelihood", pp.math.logsumexp(last))

    def theirs(y):
        transition = sample("transition", nd.Dirichlet(jnp.ones((3, 3))).to_event(1))
        mu = sample("mu", nd.Normal(jnp.array([-1.0, 0, 1]), 1).to_event(1))
        log_alpha = jnp.full(3, -jnp.log(3))
        for t in range(15):
            moved = logsumexp(log_alpha[:, None] + jnp.log(transition), axis=0)
            log_alpha = moved - 0.5 * (y[t] - mu) ** 2
        numpyro.factor("likelihood", logsumexp(log_alpha))

    return Case("hidden_markov", ours, theirs, (Y,))


def random_walk() -> Case:
    def ours(n):
        scale = pp.sample("scale", dist.HalfNormal(1))
        level = pp.sample("level", dist.GaussianRandomWalk(scale, num_steps=n))
        pp.sample("y", dist.StudentT(3.0, level, 0.5).to_event(1))

    def theirs(n, y=None):
        scale = sample("scale", nd.HalfNormal(1))
        level = sample("level", nd.GaussianRandomWalk(scale, num_steps=n))
        sample("y", nd.StudentT(3.0, level, 0.5).to_event(1), obs=y)

    return Case("random_walk", ours, theirs, (15,), {"y": Y})


def predator_and_prey() -> Case:
    y = np.exp(rng.normal(0, 0.3, size=(2, 2)))

    def slopes(np_, z, a, b):
        return np_.stack([z[0] * (a - 0.5 * z[1]), z[1] * (b * z[0] - 0.8)])

    def advance(np_, z, a, b, h=0.05):
        k1 = slopes(np_, z, a, b)
        k2 = slopes(np_, z + h / 2 * k1, a, b)
        k3 = slopes(np_, z + h / 2 * k2, a, b)
        k4 = slopes(np_, z + h * k3, a, b)
        return z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    def ours():
        a = pp.sample("a", dist.LogNormal(0, 0.3))
        b = pp.sample("b", dist.LogNormal(-1, 0.3))
        sigma = pp.sample("sigma", dist.LogNormal(-1, 0.5))

        def step(z, _):
            z = advance(np, z, a, b)
            return z, z

        _, path = pp.scan(step, np.array([1.0, 1.2]), length=4)
        pp.sample("y", dist.LogNormal(np.log(path[::2]), sigma).to_event(1))

    def theirs(y=None):
        a = sample("a", nd.LogNormal(0, 0.3))
        b = sample("b", nd.LogNormal(-1, 0.3))
        sigma = sample("sigma", nd.LogNormal(-1, 0.5))
        z, path = jnp.array([1.0, 1.2]), []
        for _ in range(4):
            z = advance(jnp, z, a, b)
            path.append(z)
        sample("y", nd.LogNormal(jnp.log(jnp.stack(path)[::2]), sigma).to_event(1), obs=y)

    return Case("predator_and_prey", ours, theirs, (), {"y": y})


def scan_in_plate() -> Case:
    y = rng.normal(size=(4, 6))

    def ours():
        with pp.plate("series", 4):
            phi = pp.sample("phi", dist.Beta(3, 2))

            def step(z, _):
                z = pp.sample("z", dist.Normal(phi * z, 0.7))
                return z, None

            pp.scan(step, np.zeros(4), length=6, reverse=True)
            pp.sample("last", dist.Normal(phi, 1))

    def theirs(z=None, last=None):
        with numpyro.plate("series", 4):
            phi = sample("phi", nd.Beta(3, 2))

        def step(state, z):
            with numpyro.plate("series", 4):
                state = sample("z", nd.Normal(phi * state, 0.7), obs=z)
            return state, None

        scan(step, jnp.zeros(4), z, length=6, reverse=True)
        with numpyro.plate("series", 4):
            sample("last", nd.Normal(phi, 1), obs=last)

    return Case("scan_in_plate", ours, theirs, (), {"z": y.T, "last": y[:, 0]})


def sub_models() -> Case:
    x = rng.normal(size=(15, 2))

    @pp.model
    def regression(x, scale):
        b = pp.sample("b", dist.Normal(0, scale).expand([2]).to_event(1))
        return x @ b

    def ours(x):
        with pp.prefix("mean"):
            mean = regression(x, 2.0)
        with pp.prefix("spread"):
            with pp.prefix("log"):
                spread = regression(x, 0.3)
            pp.deterministic("largest", spread.max())
        pp.sample("y", dist.Normal(mean, np.exp(spread)))

    def theirs(x, y=None):
        b = sample("mean.b", nd.Normal(0, 2.0).expand([2]).to_event(1))
        c = sample("spread.log.b", nd.Normal(0, 0.3).expand([2]).to_event(1))
        numpyro.deterministic("spread.largest", (x @ c).max())
        sample("y", nd.Normal(x @ b, jnp.exp(x @ c)), obs=y)

    return Case("sub_models", ours, theirs, (x,), {"y": Y})


def indexing() -> Case:
    seen = rng.random(15) < 0.7
    where = rng.integers(0, 15, 10)

    def ours(seen, where):
        z = pp.sample("z", dist.Normal(0, 1).expand([15]))
        w = pp.sample("w", dist.Gamma(2, 2).expand([3, 5]))
        pp.sample("kept", dist.Normal(z[seen], 1))
        pp.sample("taken", dist.Normal(np.take(z, where) + z[where], 1))
        pp.sample("cut", dist.Normal(z[2:11:3] + w[1, ::2], 1))
        pp.sample("grid", dist.Normal(w[np.array([0, 2])][:, None, 1:] + z[None, -4:], 1))

    def theirs(seen, where, kept=None, taken=None, cut=None, grid=None):
        z = sample("z", nd.Normal(0, 1).expand([15]))
        w = sample("w", nd.Gamma(2, 2).expand([3, 5]))
        sample("kept", nd.Normal(z[np.nonzero(seen)[0]], 1), obs=kept)
        sample("taken", nd.Normal(2 * z[where], 1), obs=taken)
        sample("cut", nd.Normal(z[jnp.array([2, 5, 8])] + w[1, jnp.array([0, 2, 4])], 1), obs=cut)
        rows = jnp.stack([w[0, 1:], w[2, 1:]])[:, None]
        sample("grid", nd.Normal(rows + z[11:], 1), obs=grid)

    observed = {
        "kept": Y[seen], "taken": Y[:10], "cut": Y[:3], "grid": Y[:8].reshape(2, 1, 4),
    }  # fmt: skip
    return Case("indexing", ours, theirs, (seen, where), observed)


def masked() -> Case:
    y = rng.normal(size=(5, 3))
    seen = rng.random(5) < 0.5

    def ours(seen):
        mu = pp.sample("mu", dist.Normal(0, 1).expand([5, 3]).to_event(1))
        pp.sample("y", dist.Normal(mu, 1).to_event(1).mask(seen))
        pp.sample("w", dist.Normal(0, 1).expand([2]).mask(False))

    def theirs(seen, y=None):
        mu = sample("mu", nd.Normal(0, 1).expand([5, 3]).to_event(1))
        sample("y", nd.Normal(mu, 1).to_event(1).mask(seen), obs=y)
        sample("w", nd.Normal(0, 1).expand([2]).mask(False))

    return Case("masked", ours, theirs, (seen,), {"y": y})


def lifted() -> Case:
    def kernel(x, t):
        return jax.vmap(lambda s: jnp.tanh(x * s))(t)

    def ours(t):
        x = pp.sample("x", dist.Normal(0, 1))
        curve = pp.lift(kernel)(x, t)
        pp.sample("y", dist.Normal(curve, 1))

    def theirs(t, y=None):
        x = sample("x", nd.Normal(0, 1))
        sample("y", nd.Normal(kernel(x, t), 1), obs=y)

    return Case("lifted", ours, theirs, (np.linspace(0, 1, 15),), {"y": Y})


def lifted_on_the_host() -> Case:
    def count(x):
        return np.floor(np.abs(x))

    def ours():
        x = pp.sample("x", dist.Normal(0, 3).expand([4]))
        pp.sample("y", dist.Normal(pp.lift(count, result=((4,), "float64"))(x), 1))

    def theirs(y=None):
        x = sample("x", nd.Normal(0, 3).expand([4]))
        sample("y", nd.Normal(jnp.floor(jnp.abs(x)), 1), obs=y)

    return Case("lifted_on_the_host", ours, theirs, (), {"y": Y[:4]}, gradient=False)


def change_point() -> Case:
    y = np.concatenate([rng.poisson(3.0, 8), rng.poisson(1.0, 7)])

    def ours(y):
        early, late = (pp.sample(n, dist.Exponential(1.0)) for n in ("early", "late"))
        t = np.arange(len(y))
        rate = np.where(t[None, :] < t[:, None], early, late)
        log_likelihood = (y * np.log(rate) - rate).sum(axis=1)
        pp.factor("y", pp.math.logsumexp(log_likelihood))

    def theirs(y):
        early, late = (sample(n, nd.Exponential(1.0)) for n in ("early", "late"))
        terms = []
        for s in range(15):
            rate = jnp.concatenate([jnp.full(s, early), jnp.full(15 - s, late)])
            terms.append((y * jnp.log(rate) - rate).sum())
        numpyro.factor("y", logsumexp(jnp.stack(terms)))

    return Case("change_point", ours, theirs, (y,))


CASES = (
    state_space, vector_states, autoregression, garch, hidden_markov, random_walk,
    predator_and_prey, scan_in_plate, sub_models, indexing, masked, lifted, lifted_on_the_host,
    change_point,
)  # fmt: skip
