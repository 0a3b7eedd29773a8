"""Pyro programs read as diagrams, run by torch where they cannot be, refused with reasons."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ppcore as pp
from ppcore import precision
from ppcore.errors import ModelError, UnsupportedError
from ppcore.foreign_model import ForeignModel
from ppcore.frontends import DensityOnlyWarning

torch = pytest.importorskip("torch")
pyro = pytest.importorskip("pyro")
pd = pytest.importorskip("pyro.distributions")

RNG = np.random.default_rng(0)
X = torch.tensor(RNG.normal(size=(12, 3)))
Y = torch.tensor(RNG.normal(size=12))
COUNTY = torch.tensor(RNG.integers(0, 4, 12))
COUNTS = torch.tensor(RNG.poisson(3.0, 12)).double()


def schools(sigma: Any, y: Any = None) -> None:
    mu = pyro.sample("mu", pd.Normal(0.0, 5.0))
    tau = pyro.sample("tau", pd.HalfCauchy(5.0))
    with pyro.plate("school", len(sigma)):
        z = pyro.sample("z", pd.Normal(0.0, 1.0))
        theta = pyro.deterministic("theta", mu + tau * z, event_dim=0)
        pyro.sample("y", pd.Normal(theta, sigma), obs=y)


def logistic(x: Any, y: Any) -> None:
    beta = pyro.sample("beta", pd.Normal(torch.zeros(3), 1.0).to_event(1))
    a = pyro.sample("a", pd.StudentT(3.0, 0.0, 2.5))
    with pyro.plate("row", len(x)):
        pyro.sample("y", pd.Bernoulli(logits=a + x @ beta), obs=(y > 0).double())


def varying(x: Any, county: Any, n: int, y: Any) -> None:
    mu = pyro.sample("mu", pd.Normal(0.0, 5.0))
    tau = pyro.sample("tau", pd.HalfNormal(1.0))
    sigma = pyro.sample("sigma", pd.LogNormal(0.0, 1.0))
    with pyro.plate("county", n):
        a = pyro.sample("a", pd.Normal(mu, tau))
    with pyro.plate("home", len(x)):
        pyro.sample("y", pd.Normal(a[county] + torch.logsumexp(x, -1), sigma), obs=y)


def counts(x: Any, y: Any) -> None:
    beta = pyro.sample("beta", pd.MultivariateNormal(torch.zeros(3), torch.eye(3) + 0.1))
    shape = pyro.sample("shape", pd.Gamma(2.0, 1.0))
    rate = shape / torch.nn.functional.softplus(x @ beta)
    with pyro.plate("row", len(x)):
        pyro.sample("y", pd.GammaPoisson(shape, rate), obs=y)


def classes(x: Any, county: Any) -> None:
    w = pyro.sample("w", pd.Normal(0.0, 1.0).expand([3, 4]).to_event(2))
    with pyro.plate("row", len(x)):
        pyro.sample("y", pd.Categorical(logits=torch.log_softmax(x @ w, -1)), obs=county)


def covariance(y: Any) -> None:
    scale = pyro.sample("scale", pd.HalfNormal(torch.ones(3)).to_event(1))
    corr = pyro.sample("corr", pd.LKJCholesky(3, 2.0))
    pyro.factor("weight", -0.1 * scale.sum())
    with pyro.plate("row", len(y)):
        law = pd.MultivariateNormal(torch.zeros(3), scale_tril=scale.unsqueeze(-1) * corr)
        pyro.sample("y", law, obs=y)


def mixture(y: Any) -> None:
    w = pyro.sample("w", pd.Dirichlet(torch.ones(2)))
    mu = pyro.sample("mu", pd.Normal(0.0, 5.0).expand([2]).to_event(1))
    law = pd.MixtureSameFamily(pd.Categorical(w), pd.Normal(mu, 1.0))
    with pyro.plate("row", len(y)):
        pyro.sample("y", law, obs=y)


def moved(y: Any) -> None:
    steps = [pd.transforms.AffineTransform(1.0, 2.0), pd.transforms.ExpTransform()]
    s = pyro.sample("s", pd.TransformedDistribution(pd.Normal(0.0, 1.0), steps))
    with pyro.plate("row", len(y)), pyro.poutine.mask(mask=y > 0):
        pyro.sample("y", pd.Laplace(0.0, s), obs=y)


PROGRAMS = {
    "schools": (schools, (torch.full((5,), 12.0).double(), torch.arange(5.0).double())),
    "logistic": (logistic, (X, Y)),
    "varying": (varying, (X, COUNTY, 4, Y)),
    "counts": (counts, (X, COUNTS)),
    "classes": (classes, (X, COUNTY)),
    "covariance": (covariance, (X,)),
    "mixture": (mixture, (Y,)),
    "moved": (moved, (Y,)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_pyro_program_becomes_a_diagram(name: str) -> None:
    fn, args = PROGRAMS[name]
    model = pp.from_pyro(fn, *args)
    assert isinstance(model, pp.Model), model.notes
    with precision.scope("float64"):
        target = model.target()
        x = np.random.default_rng(3).normal(size=target.dim)
        values = target.constrain(x)
        given = {n: torch.tensor(np.asarray(values[n])) for n in target.latents}
        ours = float(target.log_density(x) - target.log_jacobian(x))
    torch.set_default_dtype(torch.float64)
    try:
        conditioned = pyro.poutine.condition(fn, data=given)
        theirs = float(pyro.poutine.trace(conditioned).get_trace(*args).log_prob_sum())
    finally:
        torch.set_default_dtype(torch.float32)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_plates_and_parents_survive() -> None:
    model = pp.from_pyro(varying, X, COUNTY, 4, Y)
    assert set(model.site_graph().predecessors("a")) == {"mu", "tau"}
    plates = {b.name: [p.name for p in b.plates] for b in model.diagram.boxes() if b.name}
    assert plates["a"] == ["county"] and plates["y"] == ["home"]
    # Copies that Pyro makes for its plates are not in the diagram.
    assert "numpy.broadcast_to" not in [b.op for b in model.diagram.boxes()]


def test_a_hidden_markov_model_is_summed_out() -> None:
    def hidden(y: Any) -> None:
        p = pyro.sample("p", pd.Dirichlet(torch.ones(2, 2)).to_event(1))
        mu = pyro.sample("mu", pd.Normal(torch.zeros(2), 5.0).to_event(1))
        x: Any = 0
        for t in pyro.markov(range(len(y))):
            x = pyro.sample(f"x{t}", pd.Categorical(p[x]), infer={"enumerate": "parallel"})
            pyro.sample(f"y{t}", pd.Normal(mu[x], 1.0), obs=y[t])

    y = Y[:4]
    model = pp.from_pyro(hidden, y)
    assert isinstance(model, pp.Model)
    with precision.scope("float64"):
        target = model.target()
        x = np.random.default_rng(1).normal(size=target.dim)
        values = target.constrain(x)
        p, mu = np.asarray(values["p"]), np.asarray(values["mu"])
        emit = np.exp(-0.5 * (y.numpy()[:, None] - mu) ** 2) / np.sqrt(2 * np.pi)
        alpha = p[0] * emit[0]
        for t in range(1, 4):
            alpha = (alpha @ p) * emit[t]
        np.testing.assert_allclose(target.log_likelihood(x), np.log(alpha.sum()), rtol=1e-10)


def test_what_cannot_be_read_is_run_by_torch() -> None:
    def bessel(y: Any) -> None:
        a = pyro.sample("a", pd.HalfNormal(1.0))
        pyro.sample("y", pd.Normal(torch.special.i0(a), 1.0).expand([3]).to_event(1), obs=y)

    with pytest.warns(DensityOnlyWarning, match="torch.i0"):
        model = pp.from_pyro(bessel, Y[:3])
    assert isinstance(model, ForeignModel)
    fit = model.infer("ensemble", seed=1, chains=2, draws=20)
    assert fit.sites == {"a": ()}
    import jax

    with precision.scope("float64"):
        target, x = model.target(), np.array([0.3])
        value, slope = jax.vmap(jax.value_and_grad(target.log_density))(x[None])
        a = np.exp(0.3)
        i0 = float(torch.special.i0(torch.tensor(a)))
        expected = 0.5 * np.log(2 / np.pi) - 0.5 * a**2 + 0.3
        expected += float(pd.Normal(i0, 1.0).log_prob(Y[:3]).sum())
        np.testing.assert_allclose(value[0], expected, rtol=1e-6)
        ahead, behind = (float(target.log_density(x + e)) for e in (1e-5, -1e-5))
        np.testing.assert_allclose(slope[0, 0], (ahead - behind) / 2e-5, rtol=1e-6)


def test_python_control_flow_on_random_values_is_named() -> None:
    """The sites are the same in all runs, so that torch itself can still compute the density."""

    def branches(y: Any) -> None:
        a = pyro.sample("a", pd.Normal(0.0, 1.0))
        pyro.sample("y", pd.Normal(a if a > 0 else 0.5 * a, 1.0), obs=y[0])

    with pytest.warns(DensityOnlyWarning, match="torch.where for if"):
        model = pp.from_pyro(branches, Y)
    assert isinstance(model, ForeignModel)
    with precision.scope("float64"):
        target = model.target()
        for a, mean in ((0.8, 0.8), (-0.8, -0.4)):
            expected = -0.5 * (float(Y[0]) - mean) ** 2 - 0.5 * np.log(2 * np.pi)
            found = float(target.log_likelihood(np.array([a])))
            np.testing.assert_allclose(found, expected, rtol=1e-12)


def comes_and_goes(y: Any) -> None:
    a = pyro.sample("a", pd.Normal(0.0, 1.0))
    if a > 0:
        pyro.sample("b", pd.Normal(0.0, 1.0))
    pyro.sample("y", pd.Normal(a, 1.0), obs=y[0])


def grows(y: Any) -> None:
    n = pyro.sample("n", pd.Poisson(3.0))
    b = pyro.sample("b", pd.Normal(0.0, 1.0).expand([int(n)]).to_event(1))
    pyro.sample("y", pd.Normal(b.sum(), 1.0), obs=y[0])


def parameter(y: Any) -> None:
    pyro.sample("y", pd.Normal(pyro.param("a", torch.tensor(0.0)), 1.0), obs=y[0])


def subsampled(y: Any) -> None:
    a = pyro.sample("a", pd.Normal(0.0, 1.0))
    with pyro.plate("row", len(y), subsample_size=5) as i:
        pyro.sample("y", pd.Normal(a, 1.0), obs=y[i])


def unreadable_label(y: Any) -> None:
    z = pyro.sample("z", pd.Bernoulli(0.5))
    pyro.sample("y", pd.Normal(torch.special.i0(z), 1.0), obs=y[0])


def endless_label(y: Any) -> None:
    n = pyro.sample("n", pd.Poisson(3.0))
    pyro.sample("y", pd.Normal(n, 1.0), obs=y[0])


def nothing_latent(y: Any) -> None:
    pyro.sample("y", pd.Normal(0.0, 1.0), obs=y[0])


def not_a_number(y: Any) -> None:
    a = pyro.sample("a", pd.Normal(0.0, 1.0))
    pyro.factor("f", torch.log(-1 - a**2))


@pytest.mark.parametrize(
    ("program", "error", "said"),
    [
        (comes_and_goes, UnsupportedError, "'b' is there in some runs"),
        (grows, UnsupportedError, "'b' has shape"),
        (parameter, UnsupportedError, "Give it a prior"),
        (subsampled, UnsupportedError, "subsample_size"),
        (unreadable_label, UnsupportedError, "'z' of unreadable_label is discrete"),
        (nothing_latent, ModelError, "no latent site"),
        (not_a_number, ModelError, "wherever it was tried"),
    ],
)
def test_bad_programs(program: Any, error: type[Exception], said: str) -> None:
    pyro.clear_param_store()
    with pytest.raises(error, match=said):
        pp.from_pyro(program, Y)


def test_labels_without_end_are_refused() -> None:
    """They are a diagram, to be drawn and simulated from, but there is no sum over them."""
    model = pp.from_pyro(endless_label, Y)
    with pytest.raises(UnsupportedError, match="'n'.*not in a finite set"):
        model.infer("ensemble", progress="off")
