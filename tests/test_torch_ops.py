"""Array functions in torch against NumPy's and SciPy's own, values and indexing rules alike."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.special

torch = pytest.importorskip("torch")
pytest.importorskip("ppcore_pyro.ops")

from ppcore_pyro.bijections import (  # noqa: E402
    LowerCholesky,
    PositiveDefinite,
    ToLowerCholesky,
    ToPositiveDefinite,
    ToZeroSum,
    ZeroSum,
)
from ppcore_pyro.elementwise import ELEMENTWISE  # noqa: E402
from ppcore_pyro.ops import torch_function  # noqa: E402

RNG = np.random.default_rng(5)
UNIT = RNG.uniform(0.05, 0.95, (3, 4))
OTHER = RNG.uniform(0.05, 0.95, (4,))
SPD = UNIT[:, :3] @ UNIT[:, :3].T + np.eye(3)

# What elementwise functions are given, where two numbers in (0, 1) do not do.
BY_NAME: dict[str, tuple[Any, ...]] = {
    "numpy.arccosh": (1 + UNIT,),
    "numpy.invert": (np.array([0, 3, -5]),),
    "numpy.bitwise_not": (np.array([0, 3, -5]),),
    "numpy.nan_to_num": (np.array([np.nan, 1.0]),),
    "numpy.power": (UNIT, 3),
    "numpy.pow": (UNIT, 2.5),
    "numpy.clip": (UNIT, 0.2, 0.6),
    "numpy.where": (UNIT > 0.5, UNIT, 1),
    "numpy.round": (5 * UNIT, 1),
    "scipy.special.polygamma": (1, UNIT),
    "scipy.special.multigammaln": (3 + OTHER[0], 2),
    "scipy.special.zeta": (1 + UNIT, OTHER),
}
WHOLE = {f"numpy.bitwise_{k}" for k in ("and", "or", "xor")}


def _reference(op: str) -> Callable[..., Any] | None:
    module, _, name = op.rpartition(".")
    if module not in ("numpy", "numpy.linalg", "scipy.special"):
        return None
    return getattr(importlib.import_module(module), name, None)


def _arguments(op: str) -> tuple[Any, ...]:
    if op in BY_NAME:
        return BY_NAME[op]
    if op in WHOLE:
        return np.array([1, 6]), np.array([3, 2])
    reference = _reference(op)
    two = getattr(reference, "nin", 1) == 2 or op == "scipy.special.betaln"
    return (UNIT, OTHER) if two else (UNIT,)


def _tensors(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return torch.as_tensor(value)
    return type(value)(map(_tensors, value)) if isinstance(value, list | tuple) else value


@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if _reference(op) is not None])
def test_elementwise(op: str) -> None:
    arguments, reference = _arguments(op), _reference(op)
    assert reference is not None
    found = torch_function(op)(*_tensors(arguments))
    np.testing.assert_allclose(found, reference(*arguments), rtol=1e-11)
    assert found.dtype in (torch.float64, torch.int64, torch.bool)


def test_integers_become_doubles() -> None:
    counts = torch.tensor([1, 2, 3])
    for op in ("numpy.exp", "numpy.sqrt", "numpy.mean", "scipy.special.gammaln"):
        assert torch_function(op)(counts).dtype == torch.float64, op
    assert torch_function("numpy.divide")(counts, 2).dtype == torch.float64
    assert torch_function("numpy.multiply")(counts, 0.5).dtype == torch.float64


ARRAYS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("numpy.sum", (UNIT,), {}),
    ("numpy.sum", (UNIT,), {"axis": (0, 1), "keepdims": True}),
    ("numpy.prod", (UNIT,), {"axis": (0, -1)}),
    ("numpy.mean", (UNIT,), {"axis": -1}),
    ("numpy.std", (UNIT,), {"axis": 0, "ddof": 1}),
    ("numpy.var", (UNIT,), {}),
    ("numpy.max", (UNIT,), {"axis": 1}),
    ("numpy.any", (UNIT > 0.9,), {"axis": 1}),
    ("numpy.argmax", (UNIT,), {"axis": 0}),
    ("numpy.cumsum", (UNIT,), {}),
    ("numpy.cumprod", (UNIT,), {"axis": 1}),
    ("numpy.ptp", (UNIT,), {"axis": 0}),
    ("numpy.sort", (UNIT,), {"axis": 0}),
    ("numpy.argsort", (UNIT,), {}),
    ("numpy.diff", (UNIT,), {}),
    ("numpy.searchsorted", (np.sort(OTHER), UNIT), {}),
    ("numpy.take_along_axis", (UNIT, np.argsort(UNIT, 1)), {"axis": 1}),
    ("numpy.reshape", (UNIT, (2, -1)), {}),
    ("numpy.transpose", (UNIT,), {}),
    ("numpy.moveaxis", (UNIT, 0, 1), {}),
    ("numpy.expand_dims", (UNIT, (0, -1)), {}),
    ("numpy.squeeze", (UNIT[None, :, :1],), {}),
    ("numpy.broadcast_to", (OTHER, (2, 4)), {}),
    ("numpy.concatenate", ([UNIT, np.ones((1, 4), int)],), {}),
    ("numpy.stack", ([OTHER, OTHER],), {"axis": 1}),
    ("numpy.vstack", ([OTHER, UNIT],), {}),
    ("numpy.tile", (OTHER, 2), {}),
    ("numpy.repeat", (UNIT, 2), {"axis": 1}),
    ("numpy.flip", (UNIT,), {"axis": 1}),
    ("numpy.roll", (UNIT, 1), {"axis": 0}),
    ("numpy.pad", (UNIT, ((1, 0), (0, 2))), {}),
    ("numpy.diag", (OTHER,), {}),
    ("numpy.diagonal", (SPD,), {}),
    ("numpy.tril", (SPD,), {}),
    ("numpy.trace", (SPD,), {}),
    ("numpy.dot", (UNIT, OTHER), {}),
    ("numpy.dot", (UNIT, UNIT.reshape(1, 4, 3)), {}),
    ("numpy.inner", (UNIT, OTHER), {}),
    ("numpy.outer", (UNIT, OTHER), {}),
    ("numpy.kron", (UNIT, SPD), {}),
    ("numpy.tensordot", (UNIT, SPD), {"axes": ([0], [1])}),
    ("numpy.einsum", ("ij,j->i", UNIT, OTHER), {}),
    ("numpy.linalg.cholesky", (SPD,), {}),
    ("numpy.linalg.inv", (SPD,), {}),
    ("numpy.linalg.slogdet", (SPD,), {}),
    ("numpy.linalg.solve", (SPD, UNIT), {}),
    ("numpy.linalg.eigvalsh", (SPD,), {}),
    ("numpy.linalg.norm", (UNIT,), {"axis": 1}),
    ("numpy.linalg.matrix_power", (SPD, 3), {}),
    ("scipy.special.logsumexp", (UNIT,), {"axis": 0}),
    ("scipy.special.softmax", (UNIT,), {"axis": 0}),
]


@pytest.mark.parametrize(
    ("op", "args", "kwargs"), ARRAYS, ids=lambda v: v if type(v) is str else ""
)
def test_arrays(op: str, args: Any, kwargs: dict[str, Any]) -> None:
    reference = _reference(op)
    assert reference is not None
    expected, found = reference(*args, **kwargs), torch_function(op)(*_tensors(args), **kwargs)
    pairs = (
        zip(found, expected, strict=True) if isinstance(expected, tuple) else [(found, expected)]
    )
    for a, b in pairs:
        assert a.shape == np.shape(b)
        np.testing.assert_allclose(a, b, rtol=1e-11)


CUBE = RNG.normal(size=(4, 5, 6))
INDICES: list[Any] = [
    1,
    (0, slice(None), np.array([1, 2])),
    (slice(None, None, -1),),
    (slice(3, 0, -2), None, ..., slice(None)),
    (slice(10, 0, -3),),
    (slice(0, 3, -1),),
    (..., np.array([0, 1]), 2),
    (np.array([[0], [1]]), np.array([1, 2])),
    (slice(None), np.array(2), np.array([0, 3, 3])),
    (np.array([1, 1]), slice(4, None, -2), -1),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing(index: Any) -> None:
    whole = torch.tensor(CUBE)
    np.testing.assert_array_equal(torch_function("getitem")(whole, index), CUBE[index])
    added, replaced = CUBE.copy(), CUBE.copy()
    np.add.at(added, index, 2.0)
    replaced[index] = 7.0
    np.testing.assert_array_equal(torch_function("add_at")(whole, index, 2.0), added)
    np.testing.assert_array_equal(torch_function("set_at")(whole, index, 7.0), replaced)


def test_softplus_keeps_its_tail() -> None:
    x = torch.tensor([-40.0, 0.0, 25.0], dtype=torch.float64)
    expected = np.logaddexp(x.numpy(), 0)
    np.testing.assert_array_equal(torch_function("jax.nn.softplus")(x), expected)
    found = torch_function("jax.nn.log_sigmoid")(x)
    np.testing.assert_allclose(found, scipy.special.log_expit(x.numpy()))


@pytest.mark.parametrize(
    ("t", "support", "size"),
    [
        (ToZeroSum(1), ZeroSum(1), (2, 4)),
        (ToZeroSum(2), ZeroSum(2), (3, 4)),
        (ToLowerCholesky(), LowerCholesky(), (2, 6)),
        (ToPositiveDefinite(), PositiveDefinite(), (2, 6)),
    ],
)
def test_bijections(t: Any, support: Any, size: tuple[int, ...]) -> None:
    """Inverse, shapes, support, and the log determinant against the Jacobian by autograd."""
    z = torch.tensor(RNG.normal(size=size))
    x = t(z)
    assert support.check(x).all() and x.shape == t.forward_shape(z.shape)
    assert t.inverse_shape(x.shape) == z.shape
    np.testing.assert_allclose(t.inv(x), z, atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(t, z).reshape(x.numel(), z.numel())
    if isinstance(t, ToZeroSum):
        volume = 0.5 * torch.linalg.slogdet(jacobian.T @ jacobian).logabsdet
    else:  # the free entries: what is on and below the diagonal
        free = torch.tril(torch.ones(x.shape[-2:], dtype=torch.bool)).expand(x.shape).reshape(-1)
        volume = torch.linalg.slogdet(jacobian[free]).logabsdet
    np.testing.assert_allclose(t.log_abs_det_jacobian(z, x).sum(), volume, atol=1e-10)
