"""Programs of other libraries: read as diagrams, written from diagrams, refused with reasons."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as nd
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer.util import log_density

import ppcore as pp
from ppcore import dist, precision
from ppcore.errors import EvidenceError, ModelError, SettingsError, UnsupportedError
from ppcore.foreign_model import ForeignModel
from ppcore.recording.from_jaxpr import Replay
from ppcore.recording.recorder import Recorder, recording
from ppcore.semantics.interpret import Handler, interpret
from ppcore.space import Space

RNG = np.random.default_rng(0)
X = RNG.normal(size=(20, 3))
Y = RNG.normal(size=20)
COUNTY = RNG.integers(0, 4, 20)
COUNTS = RNG.poisson(3.0, 20)


def schools(n: int, sigma: Any, y: Any = None) -> None:
    mu = numpyro.sample("mu", nd.Normal(0, 5))
    tau = numpyro.sample("tau", nd.HalfCauchy(5))
    with numpyro.plate("school", n):
        z = numpyro.sample("z", nd.Normal(0, 1))
        theta = numpyro.deterministic("theta", mu + tau * z)
        numpyro.sample("y", nd.Normal(theta, sigma), obs=y)


def varying(x: Any, county: Any, n: int, y: Any) -> None:
    mu = numpyro.sample("mu", nd.Normal(0, 5))
    tau = numpyro.sample("tau", nd.HalfNormal(1))
    slope = numpyro.sample("slope", nd.Normal(0, 2).expand([3]).to_event(1))
    with numpyro.plate("county", n):
        a = numpyro.sample("a", nd.Normal(mu, tau))
    sigma = numpyro.sample("sigma", nd.LogNormal(0, 1))
    with numpyro.plate("home", len(x)):
        numpyro.sample("y", nd.StudentT(4.0, a[county] + x @ slope, sigma), obs=y)


def counts(x: Any, y: Any) -> None:
    beta = numpyro.sample("beta", nd.MultivariateNormal(jnp.zeros(3), jnp.eye(3) + 0.1))
    phi = numpyro.sample("phi", nd.Gamma(2.0, 1.0))
    numpyro.sample("y", nd.NegativeBinomial2(jnp.exp(x @ beta), phi), obs=y)


def classes(x: Any, y: Any) -> None:
    w = numpyro.sample("w", nd.Normal(0, 1).expand([3, 2]).to_event(2))
    numpyro.sample("y", nd.Categorical(logits=jax.nn.log_softmax(x @ w)), obs=y)


def covariance(y: Any) -> None:
    scale = numpyro.sample("scale", nd.HalfNormal(jnp.ones(3)).to_event(1))
    corr = numpyro.sample("corr", nd.LKJCholesky(3, 2.0))
    numpyro.sample("y", nd.MultivariateNormal(0.0, scale_tril=scale[:, None] * corr), obs=y)


def bounded(y: Any) -> None:
    low = numpyro.sample("low", nd.Uniform(-1, 1))
    high = numpyro.sample("high", nd.Uniform(low, 5.0))
    numpyro.factor("weight", -0.5 * (high - low) ** 2)
    numpyro.sample("y", nd.TruncatedNormal(low, 1.0, low=-4.0), obs=y)


def cube(y: Any) -> None:
    base = nd.TransformedDistribution(
        nd.Normal(0, 1), [nd.transforms.AffineTransform(1.0, 2.0), nd.transforms.ExpTransform()]
    )
    s = numpyro.sample("s", base)
    numpyro.sample("y", nd.Normal(0, jnp.logaddexp(s, 0.0)).mask(y > 0), obs=y)


def mixture(y: Any) -> None:
    w = numpyro.sample("w", nd.Dirichlet(jnp.ones(2)))
    mu = numpyro.sample("mu", nd.Normal(0, 5).expand([2]).to_event(1))
    parts = nd.MixtureSameFamily(nd.Categorical(w), nd.Normal(mu, 1.0))
    numpyro.sample("y", parts, obs=y)


PROGRAMS = {
    "schools": (schools, (8, np.full(8, 12.0)), {"y": np.arange(8.0)}),
    "varying": (varying, (X, COUNTY, 4, Y), {}),
    "counts": (counts, (X, COUNTS), {}),
    "classes": (classes, (X, COUNTY % 2), {}),
    "covariance": (covariance, (X,), {}),
    "bounded": (bounded, (np.abs(Y),), {}),
    "cube": (cube, (Y,), {}),
    "mixture": (mixture, (Y,), {}),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_numpyro_program_becomes_a_diagram_and_back(name: str) -> None:
    fn, args, kwargs = PROGRAMS[name]
    model = pp.from_numpyro(fn, *args, **kwargs)
    assert isinstance(model, pp.Model), model.notes
    assert model.observed == ("y",)
    with precision.scope("float64"):
        target = model.target()
        x = np.random.default_rng(3).normal(size=target.dim)
        values = target.constrain(x)
        latent = {site: values[site] for site in target.latents}
        theirs, trace = log_density(fn, args, kwargs, latent)
        again, _ = log_density(model.to_numpyro(), (), {}, latent)
        ours = target.log_density(x) - target.log_jacobian(x)
    # NumPyro's negative binomial inherits six digits from JAX's betaln; ours has all.
    rtol = 1e-6 if name == "counts" else 1e-9
    np.testing.assert_allclose(ours, theirs, rtol=rtol)
    np.testing.assert_allclose(again, theirs, rtol=rtol)
    plates = {s["name"] for s in trace.values() if s["type"] == "plate"}
    assert plates == {p.name for b in model.diagram.boxes() for p in b.plates}


def test_structure_survives() -> None:
    fn, args, kwargs = PROGRAMS["varying"]
    model = pp.from_numpyro(fn, *args, **kwargs)
    assert set(model.site_graph().predecessors("a")) == {"mu", "tau"}
    assert model.infer("ensemble", seed=1, draws=20, chains=8).sites["a"] == (4,)
    assert model.simulate(seed=0)["y"].shape == (1, 20)


def test_a_conjugate_program_is_solved_exactly() -> None:
    def coin(flips: Any) -> None:
        p = numpyro.sample("p", nd.Beta(1, 1))
        with numpyro.plate("flip", len(flips)):
            numpyro.sample("flips", nd.Bernoulli(p), obs=flips)

    fit = pp.from_numpyro(coin, np.array([1, 1, 0])).infer("exact", seed=0)
    np.testing.assert_allclose(fit.solution.log_evidence, np.log(1 / 12), rtol=1e-12)


def test_labels_are_summed_out() -> None:
    def labelled(y: Any) -> None:
        mu = numpyro.sample("mu", nd.Normal(0, 5).expand([2]).to_event(1))
        with numpyro.plate("N", len(y)):
            z = numpyro.sample("z", nd.Bernoulli(0.3))
            numpyro.sample("y", nd.Normal(mu[z], 1.0), obs=y)

    model = pp.from_numpyro(labelled, Y)
    with precision.scope("float64"):
        target = model.target()
        x = np.array([0.5, -1.0])
        a, b = (jax.scipy.stats.norm.logpdf(Y, m) for m in x)
        expected = jnp.logaddexp(jnp.log(0.7) + a, jnp.log(0.3) + b).sum()
        np.testing.assert_allclose(target.log_likelihood(x), expected, rtol=1e-12)


def test_sites_in_control_flow_stay_a_density() -> None:
    def walk(y: Any) -> None:
        phi = numpyro.sample("phi", nd.Uniform(-1, 1))

        def step(last: Any, now: Any) -> Any:
            numpyro.sample("y", nd.Normal(phi * last, 1.0), obs=now)
            return now, None

        scan(step, 0.0, y)

    model = pp.from_numpyro(walk, Y)
    assert isinstance(model, ForeignModel) and "control flow" in model.notes[0]
    with precision.scope("float64"):
        target = model.target()
        phi = 0.3
        x = nd.biject_to(nd.constraints.interval(-1.0, 1.0)).inv(phi).reshape(1)
        expected = jax.scipy.stats.norm.logpdf(Y, phi * np.r_[0.0, Y[:-1]]).sum()
        np.testing.assert_allclose(target.log_likelihood(x), expected, rtol=1e-12)
    assert model.capabilities == {"gradient", "reference"}


def test_other_data_of_the_same_shape_are_the_same_program() -> None:
    fn, args, kwargs = PROGRAMS["varying"]
    first = pp.from_numpyro(fn, *args, **kwargs)
    second = pp.from_numpyro(fn, X + 1, COUNTY[::-1].copy(), 4, Y - 1)
    assert first.diagram == second.diagram


def branch(y: Any) -> None:
    a = numpyro.sample("a", nd.Normal(0, 1))
    if a > 0:
        numpyro.sample("y", nd.Normal(a, 1), obs=y)


def subsampled(y: Any) -> None:
    a = numpyro.sample("a", nd.Normal(0, 1))
    with numpyro.plate("N", 20, subsample_size=5) as i:
        numpyro.sample("y", nd.Normal(a, 1), obs=jnp.asarray(y)[i])


def parameter(y: Any) -> None:
    numpyro.sample("y", nd.Normal(numpyro.param("a", 0.0), 1), obs=y)


def scaled(y: Any) -> None:
    a = numpyro.sample("a", nd.Normal(0, 1))
    with numpyro.handlers.scale(scale=2.0):
        numpyro.sample("y", nd.Normal(a, 1), obs=y)


def nothing_latent(y: Any) -> None:
    numpyro.sample("y", nd.Normal(0, 1), obs=y)


@pytest.mark.parametrize(
    ("program", "error", "said"),
    [
        (branch, UnsupportedError, "depends on random values"),
        (subsampled, UnsupportedError, "subsample_size"),
        (parameter, UnsupportedError, "Give it a prior"),
        (nothing_latent, ModelError, "no latent site"),
    ],
)
def test_bad_programs(program: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        pp.from_numpyro(program, Y)


def test_scaled_sites_keep_their_scale() -> None:
    model = pp.from_numpyro(scaled, Y)
    assert isinstance(model, ForeignModel)
    with precision.scope("float64"):
        likelihood = model.target().log_likelihood(jnp.zeros(1))
    np.testing.assert_allclose(likelihood, 2 * jax.scipy.stats.norm.logpdf(Y).sum(), rtol=1e-6)


def test_nan_data_are_refused() -> None:
    bad = np.where(np.arange(20) == 3, np.nan, Y)
    with pytest.raises(EvidenceError, match="NaN"):
        pp.from_numpyro(varying, X, COUNTY, 4, bad)


@pp.model
def chain(n: int) -> None:
    phi = pp.sample("phi", dist.Normal(0, 1))

    def step(last: Any, _: Any) -> Any:
        v = pp.sample("v", dist.Normal(phi * last, 1))
        pp.sample("y", dist.Normal(v, 1))
        return v, v

    pp.scan(step, 0.0, np.zeros(n))


def test_scans_are_written_as_scans() -> None:
    model = chain(6).observe(y=Y[:6])
    with precision.scope("float64"):
        target = model.target()
        x = np.random.default_rng(0).normal(size=target.dim)
        values = {n: target.constrain(x)[n] for n in target.latents}
        theirs, _ = log_density(model.to_numpyro(), (), {}, values)
        np.testing.assert_allclose(target.log_density(x), theirs, rtol=1e-12)


class _Nothing(Handler):
    """Array boxes only."""


def functions() -> dict[str, Any]:
    index = np.array([2, 0, 1, 1])
    return {
        "elementwise": lambda a, b: jnp.exp(a) / (1 + b**2) - jnp.sqrt(jnp.abs(a)) * jnp.tanh(b),
        "integer power": lambda a, b: a**3 + jnp.square(b),
        "gather": lambda a, b: a[index] + b[index, 0],
        "negative index": lambda a, b: a[-1] + b[:, -1],
        "matmul": lambda a, b: a @ b + (b.T @ a) @ b,
        "outer": lambda a, b: a[:, None] * a[None, :] + jnp.eye(3),
        "reductions": lambda a, b: a.sum() + b.max(axis=1) + b.prod(axis=0).min(),
        "where": lambda a, b: jnp.where(a > 0, a, -b.sum(axis=1)),
        "softmax": lambda a, b: jax.nn.softmax(b, axis=1) @ a,
        "logsumexp": lambda a, b: jax.scipy.special.logsumexp(b, axis=1) + a,
        "custom gradients": lambda a, b: jnp.logaddexp(a, 0.0) + jax.nn.relu(a),
        "special": lambda a, b: jax.scipy.special.gammaln(jnp.abs(a) + 1) + jax.lax.erf(a),
        "cholesky": lambda a, b: jnp.linalg.cholesky(b @ b.T + 4 * jnp.eye(3)) @ a,
        "slices": lambda a, b: jnp.concatenate([a[1:], b[0, ::2]]),
        "loop": lambda a, b: jax.lax.fori_loop(0, 3, lambda i, c: c * a, a),
        "cumsum": lambda a, b: jnp.cumsum(b, axis=0) + jnp.sort(a),
    }


@pytest.mark.parametrize("name", functions())
def test_replayed_functions_are_the_functions(name: str) -> None:
    fn = functions()[name]
    a, b = np.array([0.3, -1.2, 2.0]), np.random.default_rng(5).normal(size=(3, 3))
    with precision.scope("float64"):
        closed = jax.make_jaxpr(fn)(a, b)
        recorder, replay = Recorder(), Replay(closed)
        with recording(recorder):
            for i, shape in enumerate([(3,), (3, 3)]):
                replay.give(i, recorder.add_input(Space(shape)))
            out = replay.output(0)
            diagram = recorder.freeze([out.ref], ("out",))
        given = [a, b, *recorder.data]

        def value(*first: Any) -> Any:
            return interpret(diagram, (*first, *given[2:]), _Nothing(), {})[0][0]

        np.testing.assert_allclose(value(a, b), fn(a, b), rtol=1e-12)
        slopes = [jax.grad(lambda *v, f=f: f(*v).sum(), (0, 1))(a, b) for f in (value, fn)]
        for ours, theirs in zip(*slopes, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def ring(x: Any, data: Any) -> Any:
    return -0.5 * (jnp.sqrt(jnp.sum(x**2)) - data) ** 2


def test_a_log_density_runs() -> None:
    model = pp.from_log_density(ring, 2, data=3.0)
    fit = model.infer("ensemble", seed=1, draws=10, chains=8)
    assert fit.draws("x").shape == (8, 10, 2)
    assert model.capabilities == {"gradient"}


@pytest.mark.parametrize(
    ("fn", "dim", "error", "said"),
    [
        (ring, 0, SettingsError, "positive integer"),
        (lambda x, data: x, 2, ModelError, "one number"),
        (lambda x, data: jnp.nan * x.sum(), 2, ModelError, "nan at all"),
        (lambda x, data: 0.0 if x[0] > 0 else -1.0, 2, UnsupportedError, "cannot trace"),
    ],
)
def test_bad_log_densities(fn: Any, dim: int, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        pp.from_log_density(fn, dim, data=1.0)
