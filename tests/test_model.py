"""Recording: NumPy's protocols on random values, and data as inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest
import scipy.linalg
import scipy.special
import scipy.stats

import ppcore as pp
from ppcore import dist
from ppcore.precision import scope
from ppcore.recording.wire import Wire

RNG = np.random.default_rng(5)
V = RNG.uniform(0.1, 0.9, 6)
M = RNG.normal(size=(3, 4))
S = np.cov(RNG.normal(size=(3, 20)))


def value_of(fn: Callable[..., Any], *at: np.ndarray) -> np.ndarray:
    """What ``fn`` of random values gives, through a model, where they take the values ``at``."""

    def declared():
        names = [f"x{i}" for i in range(len(at))]
        wires = [
            pp.sample(n, dist.Normal(np.zeros(np.shape(a)), 1))
            for n, a in zip(names, at, strict=True)
        ]
        out = fn(*wires)
        assert isinstance(out, Wire)
        pp.deterministic("out", out)

    given = {f"x{i}": np.asarray(a, float)[None] for i, a in enumerate(at)}
    return pp.model(declared)().simulate_given(0, given)["out"][0]


def agree(fn: Callable[..., Any], *at: np.ndarray) -> None:
    """``fn`` of random values is what it is of numbers: value, shape and kind of dtype."""
    found, wanted = value_of(fn, *at), np.asarray(fn(*at))
    assert found.shape == wanted.shape
    assert found.dtype.kind == wanted.dtype.kind
    np.testing.assert_allclose(found, wanted, rtol=1e-10, atol=1e-12)


OF_A_VECTOR = {
    "arithmetic": lambda v: (2 * v + 1) / (v - 3) - v**2 + 7 // (1 + v) - v % 0.3,
    "reflected": lambda v: 1 - (2.0 ** (3 / v)),
    "unary": lambda v: -v + abs(-v) + +v,
    "comparison": lambda v: (v > 0.5) & (v <= 0.8) | (v == v[0]) ^ (v != 0.2),
    "not": lambda v: ~(v < 0.5),
    "with arrays": lambda v: V[::-1] * v + v * np.arange(6),
    "ufuncs": lambda v: np.exp(v) + np.log1p(v) + np.tanh(v) + np.arctan2(v, 2) + np.hypot(v, 1),
    "maximum": lambda v: np.maximum(v, 0.5) - np.minimum(0.3, v) + np.sign(v - 0.5),
    "reductions": lambda v: v.sum() + v.mean() + v.prod() + v.max() - v.min() + v.var() + v.std(),
    "functions": lambda v: np.sum(v) + np.median(v) + np.ptp(v) + np.quantile(v, 0.3),
    "boolean reductions": lambda v: np.any(v > 0.5) & np.all(v > 0),
    "ufunc reduce": lambda v: np.add.reduce(v) + np.maximum.reduce(v),
    "reduce where": lambda v: np.add.reduce(v, where=np.arange(6) % 2 == 0),
    "accumulate": lambda v: np.add.accumulate(v) + np.multiply.accumulate(v),
    "cumulative": lambda v: v.cumsum() + np.cumprod(v) + np.diff(v, prepend=0.0),
    "outer": lambda v: np.multiply.outer(v, V) + np.subtract.outer(np.arange(6), v),
    "argsort": lambda v: np.argsort(v),
    "sorting": lambda v: np.sort(v)[::-1] + v.max() * v.argmin(),
    "indexing": lambda v: v[2] + v[-1] + v[1:5:2].sum() + v[[0, 3]].sum() + v[V > 0.4].sum(),
    "int64 index": lambda v: v[np.int64(2)] * v[np.array(3)],
    "new axes": lambda v: v[:, None] * v[None, :] + v[..., np.newaxis],
    "take": lambda v: np.take(v, [0, 0, 5]) + v.take(np.array([1, 2, 3])),
    "iteration": lambda v: sum(x * k for k, x in enumerate(v)),
    "unpacking": lambda v: (lambda a, b, *rest: a - b + rest[0])(*v),
    "len": lambda v: v * len(v) + v.size + v.ndim + np.shape(v)[0] + np.size(v),
    "where": lambda v: np.where(v > 0.5, v, np.log(v)),
    "clip": lambda v: np.clip(v, 0.3, 0.6) + v.clip(0.2, 0.5),
    "stack": lambda v: (
        np.stack([v, V]) + np.concatenate([v[:3], [1.0, 2.0, 3.0]]) + np.r_[1.0, np.zeros(5)]
    ),
    "stack of lists": lambda v: (
        np.concatenate([v, [1, 2]]) + np.vstack([v[:4], [1, 2, 3, 4]]).sum()
    ),
    "stack of scalars": lambda v: np.stack([v[0], 2.0, v[1]]),
    "hstack": lambda v: np.hstack([v, 1.0]),
    "reshape": lambda v: v.reshape(2, 3) + v.reshape((2, -1)) + np.reshape(v, (2, 3)),
    "flat": lambda v: v.reshape(3, 2).flatten() + v.reshape(2, 3).T.ravel(),
    "repeat": lambda v: np.repeat(v, 2) + np.tile(v, 2),
    "repeat by counts": lambda v: np.repeat(v, np.array([0, 1, 2, 0, 3, 1])),
    "pad and roll": lambda v: np.roll(v, 1) + np.pad(v, 1)[1:-1] + np.flip(v),
    "dot": lambda v: v @ V + np.dot(v, v) + V @ v + np.inner(v, v) + np.vdot(v, V),
    "convolve": lambda v: np.convolve(v, [0.2, 0.5, 0.3], mode="same"),
    "interp": lambda v: np.interp(v, np.linspace(0, 1, 5), np.arange(5.0) ** 2),
    "trapezoid": lambda v: np.trapezoid(v, dx=0.1),
    "augmented": lambda v: augmented(v),
    "round": lambda v: v.round(1) + np.round(v, 2) + np.floor(v * 5) + np.rint(v),
    "astype": lambda v: (v * 10).astype(int),
    "of the shape": lambda v: np.zeros_like(v) + np.ones_like(v) + np.full_like(v, 2.0),
    "select": lambda v: np.select([v < 0.3, v < 0.6], [v, 2 * v], 0.0),
    "special": lambda v: scipy.special.expit(v) + scipy.special.logit(v) + scipy.special.gammaln(v),
    "erf": lambda v: scipy.special.erf(v) + scipy.special.erfc(v) + scipy.special.erfinv(v),
    "normal": lambda v: scipy.special.ndtr(v) + scipy.special.ndtri(v) + scipy.special.log_ndtr(-v),
    "beta": lambda v: scipy.special.betaln(20 * v, 9.0) + scipy.special.betainc(v, 2.0, 0.3),
    "digamma": lambda v: scipy.special.digamma(v) + scipy.special.xlogy(v, v),
    "gamma": lambda v: scipy.special.gammainc(v, 2.0) + scipy.special.entr(v),
}


def augmented(v):
    total = v * 0.0
    total += v
    total -= 0.5
    total *= v
    total /= 2
    return total


@pytest.mark.parametrize("name", OF_A_VECTOR)
def test_numpy_on_a_random_vector(name: str) -> None:
    agree(OF_A_VECTOR[name], V)


OF_A_MATRIX = {
    "transpose": lambda m: m.T + m.transpose() + np.transpose(m) + m.swapaxes(0, 1) + m.mT,
    "axes": lambda m: m.sum(axis=0) + np.mean(m, axis=0) + m.max(0) + np.linalg.norm(m, axis=0),
    "keepdims": lambda m: m - m.mean(axis=1, keepdims=True),
    "reduce over axes": lambda m: np.add.reduce(m, axis=(0, 1)) + np.add.reduce(m, axis=None),
    "matmul": lambda m: m @ m.T + M @ M.T @ np.matmul(m, m.T) + np.dot(m, M.T),
    "einsum": lambda m: np.einsum("ij,kj->ik", m, M) + np.einsum("ij,ij->i", m, m),
    "tensordot": lambda m: np.tensordot(m, M, axes=([1], [1])) + np.kron(m[:1, :1], np.eye(3)),
    "outer": lambda m: np.outer(m[0], m[:, 0]),
    "rows": lambda m: sum(row * k for k, row in enumerate(m)),
    "fancy": lambda m: m[np.array([0, 2, 2]), np.array([1, 0, 3])] + m[:, 1] + m[1:, 2:].sum(),
    "masked": lambda m: m[M > 0],
    "mixed": lambda m: m[np.array([True, False, True])][:, [0, 1]] + m[None, ..., 0].T[:2],
    "triangles": lambda m: np.tril(m) + np.triu(m, 1) + np.diag(np.diag(m[:, :3])).sum(),
    "broadcast": lambda m: np.broadcast_to(m[0], (3, 4)) + m * np.expand_dims(m[:, 0], 1),
    "squeeze": lambda m: np.squeeze(m[:1]) + np.atleast_1d(m[0, 0]),
    "moveaxis": lambda m: np.moveaxis(m[None], 0, -1),
    "split": lambda m: np.split(m, 2, axis=1)[1] + np.array_split(m, 2, axis=1)[0],
    "cumulative": lambda m: np.cumsum(m, axis=1) + m.cumprod(axis=0),
    "trace": lambda m: np.trace(m) + m.diagonal().sum() + m.trace(),
    "average": lambda m: np.average(m, axis=1, weights=[1.0, 2.0, 3.0, 4.0]),
}


@pytest.mark.parametrize("name", OF_A_MATRIX)
def test_numpy_on_a_random_matrix(name: str) -> None:
    agree(OF_A_MATRIX[name], M)


LINALG = {
    "solve": lambda s: np.linalg.solve(s, M),
    "inv": lambda s: np.linalg.inv(s) + np.linalg.pinv(s),
    "cholesky": lambda s: np.linalg.cholesky(s),
    "slogdet": lambda s: np.linalg.slogdet(s)[1] + np.linalg.slogdet(s).logabsdet,
    "det": lambda s: np.linalg.det(s),
    "eigh": lambda s: np.linalg.eigh(s)[0] + np.linalg.eigh(s).eigenvalues + np.linalg.eigvalsh(s),
    "svd": lambda s: np.linalg.svd(s, compute_uv=False),
    "qr": lambda s: np.abs(np.linalg.qr(s).R),
    "matrix_power": lambda s: np.linalg.matrix_power(s, 3),
}


@pytest.mark.parametrize("name", LINALG)
def test_numpy_linalg(name: str) -> None:
    agree(LINALG[name], S)


MATH = {
    "softmax": (lambda v: pp.math.softmax(v), scipy.special.softmax),
    "log_softmax": (lambda v: pp.math.log_softmax(v), scipy.special.log_softmax),
    "logsumexp": (lambda v: pp.math.logsumexp(v), scipy.special.logsumexp),
    "sigmoid": (lambda v: pp.math.sigmoid(v), scipy.special.expit),
    "log_sigmoid": (lambda v: pp.math.log_sigmoid(v), lambda v: np.log(scipy.special.expit(v))),
    "softplus": (lambda v: pp.math.softplus(v), lambda v: np.log1p(np.exp(v))),
    "relu": (lambda v: pp.math.relu(v - 0.5), lambda v: np.maximum(v - 0.5, 0)),
    "one_hot": (
        lambda v: pp.math.one_hot((v * 3).astype(int), 3),
        lambda v: np.eye(3)[(v * 3).astype(int)],
    ),
    "set_at": (lambda v: pp.math.set_at(v, 2, 9.0), lambda v: np.r_[v[:2], 9.0, v[3:]]),
    "add_at": (
        lambda v: pp.math.add_at(v, np.array([1, 1]), v[:2]),
        lambda v: np.r_[v[0], v[1] + v[0] + v[1], v[2:]],
    ),
    "get_at": (
        lambda v: pp.math.get_at(V, (v * 3).astype(int)),
        lambda v: V[(v * 3).astype(int)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MATH)
def test_math(name: str) -> None:
    ours, theirs = MATH[name]
    np.testing.assert_allclose(value_of(ours, V), theirs(V), rtol=1e-12)


def test_math_of_matrices() -> None:
    chol = np.linalg.cholesky(S)
    triangular = value_of(lambda c: pp.math.solve_triangular(c, M, lower=True), chol)
    np.testing.assert_allclose(triangular, scipy.linalg.solve_triangular(chol, M, lower=True))
    np.testing.assert_allclose(
        value_of(lambda c: pp.math.cho_solve(c, M), chol), np.linalg.solve(S, M)
    )
    axis = value_of(lambda m: pp.math.logsumexp(m, axis=1, keepdims=True), M)
    np.testing.assert_allclose(axis, scipy.special.logsumexp(M, axis=1, keepdims=True))


def test_math_outside_models_computes() -> None:
    np.testing.assert_allclose(pp.math.softmax(V), scipy.special.softmax(V), rtol=1e-14)
    assert isinstance(pp.math.logsumexp(V), np.ndarray)


def test_each_operation_is_one_box() -> None:
    def declared():
        x = pp.sample("x", dist.Normal(np.zeros(3), 1))
        np.exp(x)
        x @ x
        x[0]

    boxes = [b.op for b in pp.model(declared)().diagram.boxes()]
    assert boxes == ["sample", "numpy.exp", "numpy.matmul", "getitem"]


def regression(x, group, n):
    with pp.plate("group", n):
        a = pp.sample("a", dist.Normal(0, 1))
    b = pp.sample("b", dist.Normal(0, 1))
    with pp.plate("row", len(x)):
        mean = pp.deterministic("mean", a[group] + b * x)
        pp.sample("y", dist.Normal(mean, 1))


def other_data(seed: int) -> pp.Model:
    rng = np.random.default_rng(seed)
    made = pp.model(regression)(rng.normal(size=8), rng.integers(0, 3, 8), 3)
    return made.observe(y=rng.normal(size=8))


def test_data_are_inputs_never_constants() -> None:
    one, two = other_data(1), other_data(2)
    assert one.diagram == two.diagram
    assert hash(one.diagram) == hash(two.diagram)
    assert one.diagram is not two.diagram
    assert not np.array_equal(one.data[0], two.data[0])
    assert [a.shape for a in one.data] == [(8,), (8,)]


def test_other_data_of_the_same_shape_do_not_retrace() -> None:
    traces = []

    @jax.jit
    def log_density(target, x):
        traces.append(1)
        return target.log_density(x)

    with scope("float64"):
        values = {float(log_density(other_data(k).target(), np.ones(4))) for k in range(3)}
    assert len(values) == 3
    assert len(traces) == 1
    assert log_density._cache_size() == 1


def test_one_array_is_one_input() -> None:
    def declared(x):
        b = pp.sample("b", dist.Normal(0, 1))
        pp.sample("y", dist.Normal(b * x + (b - 1) * x, np.exp(b) + x))

    model = pp.model(declared)(np.ones(3))
    assert len(model.data) == 1
    assert len(model.diagram.dom) == 1
    assert model.input_names == ("x",)


def test_the_process_keeps_its_precision() -> None:
    before = jax.config.jax_enable_x64
    model = other_data(0)
    model.simulate(n=2)
    model.target()
    assert jax.config.jax_enable_x64 == before
    assert jax.numpy.zeros(1).dtype == (np.float64 if before else np.float32)


def test_single_precision() -> None:
    model = other_data(0)
    x = np.linspace(-1, 1, 4)
    with scope("float64"):
        double = model.target().log_density(jax.numpy.asarray(x))
    with scope("float32"):
        target = model.target("float32")
        single = jax.jit(lambda t, x: t.log_density(x))(target, x.astype("float32"))
        gradient = jax.grad(target.log_density)(jax.numpy.asarray(x, "float32"))
    assert double.dtype == np.float64
    assert single.dtype == gradient.dtype == np.float32
    assert {np.asarray(a).dtype.name for a in target.data} == {"float32", "int64"}
    np.testing.assert_allclose(single, double, rtol=1e-5)


def test_names_under_prefixes() -> None:
    @pp.model
    def part(n):
        with pp.plate("i", n):
            return pp.sample("z", dist.Normal(0, 1)).sum()

    def whole():
        with pp.prefix("left"):
            left = part(2)
        with pp.prefix("right"), pp.prefix("far"):
            right = part(3)
        pp.sample("y", dist.Normal(left + right, 1))

    model = pp.model(whole)()
    assert model.latents == ("left.z", "right.far.z", "y")
    assert model.dims["left.z"] == ("left.i",)
    assert model.dims["right.far.z"] == ("right.far.i",)
    assert model.observe({"left.z": [0, 1]}).observed == ("left.z",)


def test_dimensions_are_named_by_plates() -> None:
    def declared():
        with pp.plate("county", 3):
            a = pp.sample("a", dist.Normal(0, 1))
            with pp.plate("year", 2):
                b = pp.sample("b", dist.MultivariateNormal(np.zeros(4), np.eye(4)))
                pp.deterministic("c", b.sum(-1) + a)

        def step(carry, _):
            return pp.sample("z", dist.Normal(np.zeros(2), 1)), None

        pp.scan(step, np.zeros(2), length=5)

    dims = pp.model(declared)().dims
    assert dims["a"] == ("county",)
    assert dims["b"] == ("year", "county", "b_dim_2")
    assert dims["c"] == ("year", "county")
    assert dims["z"] == ("z_dim_0", "z_dim_1")


def test_lists_and_scalars_as_parameters() -> None:
    def declared():
        w = pp.sample("w", dist.Beta(2, 2))
        pp.sample("k", dist.Categorical(probs=[w, 1 - w]))
        pp.sample("p", dist.Dirichlet([1, 2, 3]))
        pp.sample("m", dist.MultivariateNormal([0, 1], [[1, 0.5], [0.5, 2]]))

    model = pp.model(declared)()
    assert {n: s.shape for n, s in model.spaces.items()} == {"w": (), "k": (), "p": (3,), "m": (2,)}
    assert model.simulate(n=3)["m"].shape == (3, 2)


def test_columns_of_a_data_frame_are_arguments() -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 4.0], "g": pd.Series([0, 1, 1], dtype="int64")})
    frame.index = [7, 3, 5]
    model = pp.model(regression)(frame.x, frame.g, n=2).observe(y=frame["x"])
    arrays = pp.model(regression)(frame.x.to_numpy(), frame.g.to_numpy(), n=2)
    assert model.diagram == arrays.diagram
    np.testing.assert_array_equal(model.evidence["y"], [1, 2, 4])
    np.testing.assert_array_equal(model.data[0], [0, 1, 1])


def test_a_model_is_not_changed_by_what_is_made_from_it() -> None:
    x, y = np.ones(3), np.zeros(3)

    def declared(x):
        pp.sample("y", dist.Normal(pp.sample("b", dist.Normal(0, 1)) * x, 1))

    model = pp.model(declared)(x)
    posterior = model.observe(y=y)
    y[:] = np.nan
    assert np.isfinite(posterior.evidence["y"]).all()
    assert model.latents == ("b", "y")
    assert posterior.latents == ("b",)
    assert posterior.observed == ("y",)
    assert repr(posterior) == "<model declared: b | y>"
