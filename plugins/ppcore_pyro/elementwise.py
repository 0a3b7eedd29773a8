"""NumPy's and SciPy's elementwise functions in torch, in double precision for whole numbers.

Torch turns integers into its default float, single precision unless told otherwise; here they
become float64, as they do in NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

Function = Callable[..., Any]


def tensor(value: Any) -> torch.Tensor:
    """``value`` as a tensor: Python's numbers as int64, float64 or bool."""
    if isinstance(value, torch.Tensor):
        return value
    return torch.as_tensor(np.asarray(value))


def real(value: Any) -> torch.Tensor:
    """``value`` as a tensor of floats."""
    found = tensor(value)
    return found if found.is_floating_point() else found.to(torch.float64)


def alike(*values: Any) -> list[torch.Tensor]:
    """Tensors of one dtype, wide enough for all."""
    found = [tensor(v) for v in values]
    dtype = found[0].dtype
    for other in found[1:]:
        dtype = torch.promote_types(dtype, other.dtype)
    return [v.to(dtype) for v in found]


def _of_tensor(f: Function) -> Function:
    return lambda x: f(tensor(x))


def _of_real(f: Function) -> Function:
    return lambda x: f(real(x))


def _of_two(f: Function) -> Function:
    return lambda a, b: f(tensor(a), tensor(b))


def _of_two_reals(f: Function) -> Function:
    return lambda a, b: f(real(a), real(b))


def _of_two_booleans(f: Function) -> Function:
    return lambda a, b: f(tensor(a).to(torch.bool), tensor(b).to(torch.bool))


def power(a: Any, b: Any) -> torch.Tensor:
    """a to the b; a constant exponent stays a number, so that its gradient is never asked for."""
    if isinstance(b, int) and not isinstance(b, bool):
        return torch.pow(tensor(a), b)
    if isinstance(b, float):
        return torch.pow(real(a), b)
    both = (tensor(a), tensor(b))
    if any(v.is_floating_point() for v in both):
        return torch.pow(real(a), real(b))
    return torch.pow(*both)


def clip(
    a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None
) -> torch.Tensor:
    """a between two bounds, either of which may be missing."""
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    found = tensor(a)
    if low is not None:
        found = torch.maximum(*alike(found, low))
    return found if high is None else torch.minimum(*alike(found, high))


def where(condition: Any, x: Any, y: Any) -> torch.Tensor:
    """x where the condition holds, y elsewhere."""
    return torch.where(tensor(condition).to(torch.bool), *alike(x, y))


def softplus(x: Any) -> torch.Tensor:
    """log(1 + exp x); torch's own drops the exponential from 20 on, an error of 2e-9."""
    found = real(x)
    return torch.logaddexp(found, torch.zeros_like(found))


def betaln(a: Any, b: Any) -> torch.Tensor:
    """log B(a, b)."""
    a, b = real(a), real(b)
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def polygamma(n: int, x: Any) -> torch.Tensor:
    """(−1)ⁿ⁺¹ n! ζ(n + 1, x) for n > 0; torch's own has nine digits for n = 1."""
    if n == 0:
        return torch.digamma(real(x))
    order = torch.tensor(n + 1.0, dtype=torch.float64)
    return (-1) ** (n + 1) * math.factorial(n) * torch.special.zeta(order, real(x))


def round_(a: Any, decimals: int = 0) -> torch.Tensor:
    """To the nearest multiple of 10^-decimals, halves to even."""
    found = tensor(a)
    return torch.round(found, decimals=decimals) if found.is_floating_point() else found


def _cbrt(x: torch.Tensor) -> torch.Tensor:
    return torch.sign(x) * torch.pow(torch.abs(x), 1 / 3)


def _same(x: torch.Tensor) -> torch.Tensor:
    return x


def _extreme(f: Function) -> Function:
    return lambda a, b: f(*alike(a, b))


_REAL = {
    "exp": torch.exp,
    "exp2": torch.exp2,
    "expm1": torch.expm1,
    "log": torch.log,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "log10": torch.log10,
    "sqrt": torch.sqrt,
    "cbrt": _cbrt,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "arcsin": torch.asin,
    "arccos": torch.acos,
    "arctan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "arcsinh": torch.asinh,
    "arccosh": torch.acosh,
    "arctanh": torch.atanh,
    "reciprocal": torch.reciprocal,
    "rint": torch.round,
    "fabs": torch.abs,
    "sinc": torch.sinc,
    "deg2rad": torch.deg2rad,
    "radians": torch.deg2rad,
}
_ANY = {
    "negative": torch.neg,
    "positive": _same,
    "abs": torch.abs,
    "absolute": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "square": torch.square,
    "conj": _same,
    "conjugate": _same,
    "real": _same,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isfinite": torch.isfinite,
    "logical_not": torch.logical_not,
    "invert": torch.bitwise_not,
    "bitwise_not": torch.bitwise_not,
    "nan_to_num": torch.nan_to_num,
}
_TWO = {
    "add": torch.add,
    "subtract": torch.subtract,
    "multiply": torch.multiply,
    "floor_divide": torch.floor_divide,
    "mod": torch.remainder,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "equal": torch.eq,
    "not_equal": torch.ne,
    "less": torch.lt,
    "less_equal": torch.le,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "bitwise_and": torch.bitwise_and,
    "bitwise_or": torch.bitwise_or,
    "bitwise_xor": torch.bitwise_xor,
}
_TWO_REALS = {
    "divide": torch.true_divide,
    "true_divide": torch.true_divide,
    "float_power": torch.pow,
    "arctan2": torch.atan2,
    "hypot": torch.hypot,
    "logaddexp": torch.logaddexp,
    "logaddexp2": torch.logaddexp2,
    "copysign": torch.copysign,
    "heaviside": torch.heaviside,
}
_BOOLEAN = {
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}
_EXTREMES = {
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "fmax": torch.fmax,
    "fmin": torch.fmin,
}
_SPECIAL = {
    "expit": torch.sigmoid,
    "logit": torch.logit,
    "gammaln": torch.lgamma,
    "digamma": torch.digamma,
    "psi": torch.digamma,
    "erf": torch.erf,
    "erfc": torch.erfc,
    "erfinv": torch.erfinv,
    "ndtr": torch.special.ndtr,
    "log_ndtr": torch.special.log_ndtr,
    "ndtri": torch.special.ndtri,
    "entr": torch.special.entr,
    "i0": torch.special.i0,
    "i0e": torch.special.i0e,
    "i1": torch.special.i1,
    "i1e": torch.special.i1e,
    "log_expit": torch.nn.functional.logsigmoid,
}
_SPECIAL_TWO = {
    "xlogy": torch.special.xlogy,
    "xlog1py": torch.special.xlog1py,
    "betaln": betaln,
    "gammainc": torch.special.gammainc,
    "gammaincc": torch.special.gammaincc,
    "zeta": torch.special.zeta,
}
_NN = {
    "sigmoid": torch.sigmoid,
    "log_sigmoid": torch.nn.functional.logsigmoid,
    "softplus": softplus,
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
}

ELEMENTWISE: dict[str, Function] = {
    **{f"numpy.{k}": _of_real(f) for k, f in _REAL.items()},
    **{f"numpy.{k}": _of_tensor(f) for k, f in _ANY.items()},
    **{f"numpy.{k}": _of_two(f) for k, f in _TWO.items()},
    **{f"numpy.{k}": _of_two_reals(f) for k, f in _TWO_REALS.items()},
    **{f"numpy.{k}": _of_two_booleans(f) for k, f in _BOOLEAN.items()},
    **{f"numpy.{k}": _extreme(f) for k, f in _EXTREMES.items()},
    **{f"scipy.special.{k}": _of_real(f) for k, f in _SPECIAL.items()},
    **{f"scipy.special.{k}": _of_two_reals(f) for k, f in _SPECIAL_TWO.items()},
    **{f"jax.nn.{k}": _of_real(f) for k, f in _NN.items()},
    "numpy.power": power,
    "numpy.pow": power,
    "numpy.clip": clip,
    "numpy.where": where,
    "numpy.round": round_,
    "scipy.special.polygamma": lambda n, x: polygamma(int(n), x),
    "scipy.special.multigammaln": lambda a, d: torch.special.multigammaln(real(a), int(d)),
    "astype": lambda x, dtype: tensor(x).to(getattr(torch, str(dtype))),
    "deterministic": tensor,
}
"""Name of an array function -> the same in torch, for those that act on each element alone."""
