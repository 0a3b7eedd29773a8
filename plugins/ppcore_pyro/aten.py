"""A graph of torch operations replayed on wires: each becomes the NumPy operation that it is.

Torch traces a program into a list of its core operations ("aten"). On plain numbers NumPy computes
them at once; on wires the same NumPy calls record boxes.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.special
import torch

from ppcore import math as ppmath
from ppcore.errors import UnsupportedError
from ppcore.recording.record import has_wire, record


class Replay:
    """The outputs of a traced torch function, each worked out when it is first asked for.

    Parameters
    ----------
    traced : torch.fx.GraphModule
        From ``make_fx``.
    """

    def __init__(self, traced: torch.fx.GraphModule) -> None:
        nodes = list(traced.graph.nodes)
        self.traced = traced
        self.inputs = [node for node in nodes if node.op == "placeholder"]
        (last,) = (node for node in nodes if node.op == "output")
        self.outputs = last.args[0]
        self.known: dict[Any, Any] = {}

    def give(self, index: int, value: Any) -> None:
        """Input ``index`` is ``value``: a wire or an array."""
        self.known[self.inputs[index]] = value

    def output(self, index: int, bare: bool = False) -> Any:
        """Output ``index``: a wire, or an array where no wire had a part in it.

        ``bare``: as it was before the program broadcast it, if that came last.
        """
        wanted = self.outputs[index]
        while bare and str(wanted.target).startswith("aten.expand."):
            wanted = wanted.args[0]
        pending = [wanted]
        while pending:
            node = pending[-1]
            if node in self.known:
                pending.pop()
                continue
            missing = [n for n in node.all_input_nodes if n not in self.known]
            if missing:
                pending.extend(missing)
                continue
            self.known[node] = self._call(node)
        return self.known[wanted]

    def _call(self, node: Any) -> Any:
        if node.op == "get_attr":
            return array(getattr(self.traced, node.target))
        if node.target is operator.getitem:
            return self.known[node.args[0]][node.args[1]]
        args = torch.fx.node.map_aggregate(node.args, self._argument)
        kwargs = torch.fx.node.map_aggregate(node.kwargs, self._argument)
        name = str(node.target).split(".")[1]
        rule = RULES.get(name)
        if rule is None:
            raise UnsupportedError(f"the operation torch.{name} has no name in NumPy here")
        found = rule(*args, **{k: v for k, v in kwargs.items() if k not in _WHERE})
        return found

    def _argument(self, value: Any) -> Any:
        if isinstance(value, torch.fx.Node):
            return self.known[value]
        return array(value) if isinstance(value, torch.Tensor) else value


_WHERE = ("layout", "device", "pin_memory", "memory_format", "non_blocking", "implicit")


def array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's numbers."""
    return tensor.detach().cpu().numpy()


def _dtype(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _scaled(op: Callable[..., Any]) -> Callable[..., Any]:
    def rule(a: Any, b: Any, alpha: Any = 1) -> Any:
        return op(a, b if alpha == 1 else alpha * b)

    return rule


def _divide(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    if rounding_mode == "floor":
        return np.floor_divide(a, b)
    if rounding_mode is not None:
        raise UnsupportedError(f"torch.div with rounding_mode={rounding_mode!r} has no name here")
    return np.divide(a, b)


def _power(a: Any, b: Any) -> Any:
    if isinstance(b, int | float) and b == 2:
        return np.square(a)
    return np.sqrt(a) if isinstance(b, float) and b == 0.5 else np.power(a, b)


def _reduced(op: Callable[..., Any]) -> Callable[..., Any]:
    def rule(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        axes = None if dim is None or dim == [] else dim if isinstance(dim, int) else tuple(dim)
        found = op(x, axis=axes, keepdims=keepdim)
        return found if dtype is None else _cast(found, dtype)

    return rule


def _variance(x: Any, dim: Any = None, correction: Any = 1, keepdim: bool = False) -> Any:
    axes = None if dim is None else tuple(dim)
    return np.var(x, axis=axes, ddof=int(1 if correction is None else correction), keepdims=keepdim)


def _expand(x: Any, sizes: Sequence[int], implicit: bool = False) -> Any:
    lead = len(sizes) - x.ndim
    shape = tuple(x.shape[i - lead] if n == -1 else int(n) for i, n in enumerate(sizes))
    return x if tuple(x.shape) == shape else np.broadcast_to(x, shape)


def _reshape(x: Any, sizes: Sequence[int]) -> Any:
    return np.reshape(x, tuple(int(n) for n in sizes))


def _unsqueeze(x: Any, dim: int) -> Any:
    return np.expand_dims(x, int(dim))


def _squeeze(x: Any, dims: Any = None) -> Any:
    wanted = range(x.ndim) if dims is None else [dims] if isinstance(dims, int) else dims
    axes = tuple(d % x.ndim for d in wanted if x.ndim and x.shape[d] == 1)
    return np.squeeze(x, axis=axes) if axes else x


def _transpose(x: Any, a: int, b: int) -> Any:
    return np.swapaxes(x, a, b)


def _slice(x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Any:
    stop = None if end is None or end >= x.shape[dim] else int(end)
    index = [slice(None)] * x.ndim
    index[dim] = slice(None if start is None else int(start), stop, int(step))
    return x[tuple(index)]


def _select(x: Any, dim: int, index: int) -> Any:
    return x[(slice(None),) * (dim % x.ndim) + (int(index),)]


def _index(x: Any, indices: Sequence[Any]) -> Any:
    """``x[i, :, j]``; positions may be wires, masks may not: the shape would be random."""
    parts = tuple(slice(None) if i is None else i for i in indices)
    if any(np.dtype(p.dtype) == bool for p in parts if hasattr(p, "dtype") and has_wire([p])):
        raise UnsupportedError("a mask that depends on random values picks elements")
    return record("getitem", (x, parts), {}) if has_wire([x, *parts]) else x[parts]


def _gather(x: Any, dim: int, index: Any, sparse_grad: bool = False) -> Any:
    return np.take_along_axis(x, index, axis=dim)


def _index_select(x: Any, dim: int, index: Any) -> Any:
    return _index(x, (None,) * (dim % x.ndim) + (index,))


def _concatenate(parts: Sequence[Any], dim: int = 0) -> Any:
    return np.concatenate(list(parts), axis=dim)


def _cast(x: Any, dtype: Any = None, **_: Any) -> Any:
    if dtype is None:
        return x
    return x.astype(_dtype(dtype))


def _clamp(x: Any, low: Any = None, high: Any = None) -> Any:
    x = x if low is None else np.maximum(x, low)
    return x if high is None else np.minimum(x, high)


def _matmul_add(c: Any, a: Any, b: Any, beta: Any = 1, alpha: Any = 1) -> Any:
    product = np.matmul(a, b)
    return (c if beta == 1 else beta * c) + (product if alpha == 1 else alpha * product)


def _softmax(x: Any, dim: int, half_to_float: bool = False) -> Any:
    return ppmath.softmax(x, axis=dim)


def _log_softmax(x: Any, dim: int, half_to_float: bool = False) -> Any:
    return ppmath.log_softmax(x, axis=dim)


def _log_sum_exp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    axes = [dim] if isinstance(dim, int) else list(dim)
    if len(axes) != 1:
        raise UnsupportedError("torch.logsumexp over several axes has no name here")
    return ppmath.logsumexp(x, axis=int(axes[0]), keepdims=keepdim)


def _full(sizes: Sequence[int], value: Any, dtype: Any = None) -> Any:
    return np.full(tuple(sizes), value, None if dtype is None else _dtype(dtype))


def _full_like(x: Any, value: Any, dtype: Any = None) -> Any:
    return np.full(tuple(x.shape), value, np.dtype(x.dtype) if dtype is None else _dtype(dtype))


def _filled(value: float) -> Callable[..., Any]:
    return lambda sizes, dtype=None: _full(sizes, value, dtype or torch.get_default_dtype())


def _like(value: float) -> Callable[..., Any]:
    return lambda x, dtype=None: _full_like(x, value, dtype)


def _arange(start: Any, end: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    start, end = (0, start) if end is None else (start, end)
    found = np.arange(start, end, step)
    return found if dtype is None else found.astype(_dtype(dtype))


def _scalar(value: Any, dtype: Any = None) -> Any:
    return np.asarray(value, None if dtype is None else _dtype(dtype))


def _lower(x: Any, diagonal: int = 0) -> Any:
    return np.tril(x, diagonal)


def _upper(x: Any, diagonal: int = 0) -> Any:
    return np.triu(x, diagonal)


def _cholesky(x: Any, upper: bool = False, check_errors: bool = False) -> Any:
    return np.linalg.cholesky(x), np.zeros(x.shape[:-2], "int32")


def _softplus(x: Any, beta: float = 1, threshold: float = 20) -> Any:
    return np.logaddexp(beta * x, 0.0) / beta


def _same(x: Any, *_: Any, **__: Any) -> Any:
    return x


_UFUNCS: dict[str, Callable[..., Any]] = {
    "mul": np.multiply,
    "neg": np.negative,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "log2": np.log2,
    "log10": np.log10,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "round": np.round,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "reciprocal": np.reciprocal,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "remainder": np.mod,
    "fmod": np.fmod,
    "isnan": np.isnan,
    "isinf": np.isinf,
    "isfinite": np.isfinite,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_not": np.logical_not,
    "bitwise_and": np.bitwise_and,
    "bitwise_or": np.bitwise_or,
    "bitwise_not": np.invert,
    "logaddexp": np.logaddexp,
    "sigmoid": scipy.special.expit,
    "erf": scipy.special.erf,
    "erfc": scipy.special.erfc,
    "lgamma": scipy.special.gammaln,
    "digamma": scipy.special.digamma,
    "xlogy": scipy.special.xlogy,
    "special_ndtri": scipy.special.ndtri,
    "special_log_ndtr": scipy.special.log_ndtr,
}

RULES: dict[str, Callable[..., Any]] = {
    **_UFUNCS,
    "add": _scaled(np.add),
    "sub": _scaled(np.subtract),
    "rsub": lambda a, b, alpha=1: b - alpha * a,
    "div": _divide,
    "floor_divide": np.floor_divide,
    "pow": _power,
    "rsqrt": lambda x: 1.0 / np.sqrt(x),
    "square": np.square,
    "sum": _reduced(np.sum),
    "mean": _reduced(np.mean),
    "prod": _reduced(np.prod),
    "amax": _reduced(np.max),
    "amin": _reduced(np.min),
    "any": _reduced(np.any),
    "all": _reduced(np.all),
    "var": _variance,
    "cumsum": lambda x, dim, dtype=None: np.cumsum(x, axis=dim),
    "cumprod": lambda x, dim, dtype=None: np.cumprod(x, axis=dim),
    "logsumexp": _log_sum_exp,
    "_softmax": _softmax,
    "_log_softmax": _log_softmax,
    "softplus": _softplus,
    "relu": lambda x: np.maximum(x, 0),
    "clamp": _clamp,
    "clamp_min": lambda x, low: np.maximum(x, low),
    "clamp_max": lambda x, high: np.minimum(x, high),
    "where": lambda which, a, b: np.where(which, a, b),
    "masked_fill": lambda x, mask, value: np.where(mask, value, x),
    "mm": np.matmul,
    "bmm": np.matmul,
    "mv": np.matmul,
    "dot": np.matmul,
    "matmul": np.matmul,
    "addmm": _matmul_add,
    "addmv": _matmul_add,
    "expand": _expand,
    "view": _reshape,
    "reshape": _reshape,
    "_unsafe_view": _reshape,
    "unsqueeze": _unsqueeze,
    "squeeze": _squeeze,
    "squeeze_": _squeeze,
    "permute": lambda x, dims: np.transpose(x, tuple(int(d) for d in dims)),
    "transpose": _transpose,
    "t": lambda x: np.transpose(x),
    "slice": _slice,
    "select": _select,
    "index": _index,
    "index_select": _index_select,
    "gather": _gather,
    "cat": _concatenate,
    "stack": lambda parts, dim=0: np.stack(list(parts), axis=dim),
    "_to_copy": _cast,
    "full": _full,
    "full_like": _full_like,
    "zeros": _filled(0.0),
    "ones": _filled(1.0),
    "zeros_like": _like(0.0),
    "ones_like": _like(1.0),
    "arange": _arange,
    "scalar_tensor": _scalar,
    "diagonal": lambda x, offset=0, dim1=0, dim2=1: np.diagonal(x, offset, dim1, dim2),
    "tril": _lower,
    "triu": _upper,
    "linalg_cholesky_ex": _cholesky,
    "clone": _same,
    "detach": _same,
    "alias": _same,
    "contiguous": _same,
    "lift_fresh_copy": _same,
    "lift_fresh": _same,
}
"""Core operation of torch -> the same in NumPy's words, on arrays and on wires."""
