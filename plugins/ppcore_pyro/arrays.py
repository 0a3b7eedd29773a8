"""NumPy's reductions, shapes and linear algebra in torch, with NumPy's arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ppcore.errors import UnsupportedError
from ppcore_pyro.elementwise import alike, real, tensor
from ppcore_pyro.positions import add_at, getitem, searchsorted, set_at, take_along_axis

Axis = int | Sequence[int] | None


def _axes(x: torch.Tensor, axis: Axis) -> tuple[int, ...]:
    if axis is None:
        return tuple(range(x.ndim))
    return (axis,) if isinstance(axis, int) else tuple(axis)


def sum_(a: Any, axis: Axis = None, *, keepdims: bool = False) -> torch.Tensor:
    """Sum over the axes (all by default)."""
    x = tensor(a)
    axes = _axes(x, axis)
    return torch.sum(x, axes, keepdim=keepdims) if axes else x


def mean(a: Any, axis: Axis = None, *, keepdims: bool = False) -> torch.Tensor:
    """Mean over the axes."""
    x = real(a)
    axes = _axes(x, axis)
    return torch.mean(x, axes, keepdim=keepdims) if axes else x


def prod(a: Any, axis: Axis = None, *, keepdims: bool = False) -> torch.Tensor:
    """Product over the axes."""
    x = tensor(a)
    for one in sorted((k % x.ndim for k in _axes(x, axis)), reverse=True):
        x = torch.prod(x, one, keepdim=keepdims)
    return x


def _spread(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def of(a: Any, axis: Axis = None, *, ddof: int = 0, keepdims: bool = False) -> torch.Tensor:
        x = real(a)
        return f(x, _axes(x, axis), correction=int(ddof), keepdim=keepdims)

    return of


def _extremum(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def of(a: Any, axis: Axis = None, *, keepdims: bool = False) -> torch.Tensor:
        x = tensor(a)
        axes = _axes(x, axis)
        return f(x, axes, keepdim=keepdims) if axes else x

    return of


def _quantified(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def of(a: Any, axis: Axis = None, *, keepdims: bool = False) -> torch.Tensor:
        x = tensor(a).to(torch.bool)
        axes = _axes(x, axis)
        return f(x, axes, keepdim=keepdims) if axes else x

    return of


def _arg_extremum(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def of(a: Any, axis: int | None = None, *, keepdims: bool = False) -> torch.Tensor:
        return f(tensor(a), axis, keepdim=keepdims)

    return of


def _running(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def of(a: Any, axis: int | None = None) -> torch.Tensor:
        x = tensor(a)
        return f(x.reshape(-1), 0) if axis is None else f(x, axis)

    return of


def ptp(a: Any, axis: Axis = None, *, keepdims: bool = False) -> torch.Tensor:
    """Largest minus smallest."""
    x = tensor(a)
    axes = _axes(x, axis)
    return torch.amax(x, axes, keepdim=keepdims) - torch.amin(x, axes, keepdim=keepdims)


def logsumexp(
    a: Any, axis: Axis = None, b: Any = None, keepdims: bool = False, return_sign: bool = False
) -> torch.Tensor:
    """log Σ b exp(a)."""
    if b is not None or return_sign:
        raise UnsupportedError("scipy.special.logsumexp with b or return_sign has no torch form.")
    x = real(a)
    axes = _axes(x, axis)
    return torch.logsumexp(x, axes, keepdim=keepdims) if axes else x


def softmax(x: Any, axis: Axis = -1) -> torch.Tensor:
    """exp(x) normalised along the axis."""
    return torch.exp(log_softmax(x, axis))


def log_softmax(x: Any, axis: Axis = -1) -> torch.Tensor:
    """x less the log of the sum of exp(x) along the axis."""
    found = real(x)
    return found - torch.logsumexp(found, _axes(found, axis), keepdim=True)


def one_hot(x: Any, num_classes: int) -> torch.Tensor:
    """Codes as unit vectors on a new last axis."""
    codes = torch.arange(int(num_classes))
    return (tensor(x).unsqueeze(-1) == codes).to(torch.float64)


def sort(a: Any, axis: int | None = -1) -> torch.Tensor:
    """In increasing order."""
    x = tensor(a)
    return torch.sort(x.reshape(-1) if axis is None else x, -1 if axis is None else axis).values


def argsort(a: Any, axis: int | None = -1) -> torch.Tensor:
    """The positions that put x in increasing order."""
    x = tensor(a)
    flat, along = (x.reshape(-1), -1) if axis is None else (x, axis)
    return torch.argsort(flat, dim=along, stable=True)


def reshape(a: Any, shape: Any = None, order: str = "C", *, newshape: Any = None) -> torch.Tensor:
    """The same elements in another shape."""
    if order != "C":
        raise UnsupportedError(f"numpy.reshape with order={order!r} has no torch form.")
    wanted = newshape if shape is None else shape
    return torch.reshape(tensor(a), (wanted,) if isinstance(wanted, int) else tuple(wanted))


def transpose(a: Any, axes: Sequence[int] | None = None) -> torch.Tensor:
    """Axes permuted, reversed by default."""
    x = tensor(a)
    return x.permute(tuple(reversed(range(x.ndim))) if axes is None else tuple(axes))


def expand_dims(a: Any, axis: int | Sequence[int]) -> torch.Tensor:
    """New axes of length one."""
    x = tensor(a)
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    for one in sorted(k % (x.ndim + len(axes)) for k in axes):
        x = x.unsqueeze(one)
    return x


def squeeze(a: Any, axis: Axis = None) -> torch.Tensor:
    """Without axes of length one."""
    x = tensor(a)
    return torch.squeeze(x) if axis is None else torch.squeeze(x, _axes(x, axis))


def concatenate(arrays: Any, axis: int | None = 0) -> torch.Tensor:
    """Joined along an axis."""
    parts = alike(*arrays)
    if axis is None:
        return torch.cat([p.reshape(-1) for p in parts])
    return torch.cat(parts, axis)


def _joined(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda arrays: f(alike(*arrays))


def repeat(a: Any, repeats: Any, axis: int | None = None) -> torch.Tensor:
    """Each element several times."""
    x = tensor(a)
    return torch.repeat_interleave(x.reshape(-1) if axis is None else x, repeats, axis or 0)


def pad(array: Any, pad_width: Any, mode: str = "constant", *, constant_values: Any = 0) -> Any:
    """With a constant around it."""
    if mode != "constant" or not isinstance(constant_values, int | float):
        raise UnsupportedError("numpy.pad has a torch form for one constant value only.")
    x = tensor(array)
    widths = torch.as_tensor(pad_width).expand(x.ndim, 2).flip(0).reshape(-1).tolist()
    return torch.nn.functional.pad(x, widths, value=constant_values)


def roll(a: Any, shift: Any, axis: Axis = None) -> torch.Tensor:
    """Shifted round."""
    return torch.roll(tensor(a), shift, None if axis is None else _axes(tensor(a), axis))


def trace(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> torch.Tensor:
    """The sum of the diagonal."""
    return torch.diagonal(tensor(a), offset, axis1, axis2).sum(-1)


def dot(a: Any, b: Any) -> torch.Tensor:
    """NumPy's dot: the last axis of a with the last but one of b."""
    x, y = alike(a, b)
    if x.ndim == 0 or y.ndim == 0:
        return x * y
    if y.ndim <= 2:
        return torch.matmul(x, y)
    return torch.tensordot(x, y, ([-1], [y.ndim - 2]))


def tensordot(a: Any, b: Any, axes: Any = 2) -> torch.Tensor:
    """Contraction of the given axes."""
    if isinstance(axes, int):
        return torch.tensordot(*alike(a, b), dims=axes)
    pair = [[k] if isinstance(k, int) else list(k) for k in axes]
    return torch.tensordot(*alike(a, b), dims=pair)


def _bilinear(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda a, b: f(*alike(a, b))


def outer(a: Any, b: Any) -> torch.Tensor:
    """The products of all pairs of elements."""
    x, y = alike(a, b)
    return torch.outer(x.reshape(-1), y.reshape(-1))


def einsum(subscripts: str, *operands: Any) -> torch.Tensor:
    """Einstein's summation."""
    return torch.einsum(subscripts, *alike(*operands))


def symmetric(a: Any) -> torch.Tensor:
    """(a + aᵀ)/2, which JAX's factorisations read."""
    x = real(a)
    return (x + x.mT) / 2


def solve(a: Any, b: Any) -> torch.Tensor:
    """x with a x = b."""
    return torch.linalg.solve(*alike(real(a), real(b)))


def solve_triangular(a: Any, b: Any, trans: Any = 0, lower: bool = False) -> torch.Tensor:
    """x with a x = b for a triangular a."""
    matrix, right = alike(real(a), real(b))
    if trans in (1, "T"):
        matrix, lower = matrix.mT, not lower
    vector = right.ndim == matrix.ndim - 1
    right = right.unsqueeze(-1) if vector else right
    found = torch.linalg.solve_triangular(matrix, right, upper=not lower)
    return found.squeeze(-1) if vector else found


def norm(x: Any, ord: Any = None, axis: Axis = None, keepdims: bool = False) -> torch.Tensor:
    """A norm of a vector or of a matrix."""
    return torch.linalg.norm(real(x), ord, axis, keepdims)


def _matrix(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a: f(real(a))


def diff(a: Any, n: int = 1, axis: int = -1) -> torch.Tensor:
    """Differences of neighbours."""
    return torch.diff(tensor(a), n, axis)


def _of(f: Callable[..., Any]) -> Callable[..., Any]:
    return lambda a, *rest, **named: f(tensor(a), *rest, **named)


ARRAYS: dict[str, Callable[..., Any]] = {
    "getitem": getitem,
    "set_at": set_at,
    "add_at": add_at,
    "scipy.special.logsumexp": logsumexp,
    "jax.nn.logsumexp": logsumexp,
    "jax.nn.softmax": softmax,
    "jax.nn.log_softmax": log_softmax,
    "scipy.special.softmax": softmax,
    "scipy.special.log_softmax": log_softmax,
    "jax.nn.one_hot": one_hot,
    "jax.scipy.linalg.solve_triangular": solve_triangular,
    "jax.scipy.linalg.expm": _matrix(torch.linalg.matrix_exp),
}
_NUMPY: dict[str, Callable[..., Any]] = {
    "sum": sum_,
    "mean": mean,
    "prod": prod,
    "std": _spread(torch.std),
    "var": _spread(torch.var),
    "max": _extremum(torch.amax),
    "amax": _extremum(torch.amax),
    "min": _extremum(torch.amin),
    "amin": _extremum(torch.amin),
    "all": _quantified(torch.all),
    "any": _quantified(torch.any),
    "argmax": _arg_extremum(torch.argmax),
    "argmin": _arg_extremum(torch.argmin),
    "cumsum": _running(torch.cumsum),
    "cumprod": _running(torch.cumprod),
    "ptp": ptp,
    "sort": sort,
    "argsort": argsort,
    "diff": diff,
    "searchsorted": searchsorted,
    "take_along_axis": take_along_axis,
    "reshape": reshape,
    "ravel": _of(lambda a: a.reshape(-1)),
    "transpose": transpose,
    "swapaxes": _of(torch.swapaxes),
    "moveaxis": _of(lambda a, source, destination: torch.movedim(a, source, destination)),
    "expand_dims": expand_dims,
    "squeeze": squeeze,
    "broadcast_to": _of(lambda a, shape: torch.broadcast_to(a, tuple(shape))),
    "concatenate": concatenate,
    "stack": lambda arrays, axis=0: torch.stack(alike(*arrays), axis),
    "hstack": _joined(torch.hstack),
    "vstack": _joined(torch.vstack),
    "column_stack": _joined(torch.column_stack),
    "tile": _of(lambda a, reps: torch.tile(a, (reps,) if isinstance(reps, int) else reps)),
    "repeat": repeat,
    "flip": _of(lambda m, axis=None: torch.flip(m, _axes(m, axis))),
    "roll": roll,
    "pad": pad,
    "diag": _of(lambda v, k=0: torch.diag(v, k)),
    "diagonal": _of(lambda a, offset=0, axis1=0, axis2=1: a.diagonal(offset, axis1, axis2)),
    "tril": _of(lambda m, k=0: torch.tril(m, k)),
    "triu": _of(lambda m, k=0: torch.triu(m, k)),
    "trace": trace,
    "atleast_1d": _of(torch.atleast_1d),
    "atleast_2d": _of(torch.atleast_2d),
    "asarray": tensor,
    "array": tensor,
    "copy": tensor,
    "zeros_like": _of(torch.zeros_like),
    "ones_like": _of(torch.ones_like),
    "dot": dot,
    "matmul": _bilinear(torch.matmul),
    "inner": _bilinear(torch.inner),
    "vdot": lambda a, b: torch.dot(*(v.reshape(-1) for v in alike(a, b))),
    "kron": _bilinear(torch.kron),
    "outer": outer,
    "tensordot": tensordot,
    "einsum": einsum,
    "linalg.cholesky": lambda a: torch.linalg.cholesky(symmetric(a)),
    "linalg.inv": _matrix(torch.linalg.inv),
    "linalg.pinv": _matrix(torch.linalg.pinv),
    "linalg.det": _matrix(torch.linalg.det),
    "linalg.slogdet": _matrix(torch.linalg.slogdet),
    "linalg.eigh": lambda a: torch.linalg.eigh(symmetric(a)),
    "linalg.eigvalsh": lambda a: torch.linalg.eigvalsh(symmetric(a)),
    "linalg.matrix_power": lambda a, n: torch.linalg.matrix_power(real(a), int(n)),
    "linalg.multi_dot": lambda arrays: torch.linalg.multi_dot(alike(*arrays)),
    "linalg.solve": solve,
    "linalg.norm": norm,
    "linalg.trace": lambda a: trace(a, 0, -2, -1),
}
ARRAYS |= {f"numpy.{name}": f for name, f in _NUMPY.items()}
"""Name of an array function -> the same in torch, for those that see more than one element."""
