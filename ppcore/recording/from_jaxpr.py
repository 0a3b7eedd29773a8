"""Boxes from a JAX function: its equations, each recorded as the NumPy operation that it is.

A model that was written for JAX is a program on arrays. Traced, it becomes a list of equations;
replayed on wires, that list becomes boxes that every semantics and every rewrite knows by name.
Equations on plain numbers are computed at once, and what has no name here is lifted whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore import precision
from ppcore.recording.lift import lift
from ppcore.recording.record import has_wire, record
from ppcore.recording.wire import Wire


class Replay:
    """The outputs of a traced function, each worked out when it is first asked for.

    Parameters
    ----------
    closed : jax.core.ClosedJaxpr
        From ``jax.make_jaxpr``.

    Inputs are handed in with :meth:`give` as they become known; an output needs only those it
    depends on.
    """

    def __init__(self, closed: Any) -> None:
        self.jaxpr = closed.jaxpr
        self.known: dict[Any, Any] = dict(
            zip(closed.jaxpr.constvars, map(np.asarray, closed.consts), strict=True)
        )
        self.made_by = {v: eqn for eqn in closed.jaxpr.eqns for v in eqn.outvars}

    def give(self, index: int, value: Any) -> None:
        """Input ``index`` is ``value``: a wire or an array."""
        self.known[self.jaxpr.invars[index]] = value

    def output(self, index: int, bare: bool = False) -> Any:
        """Output ``index``: a wire, or an array where no wire had a part in it.

        ``bare``: as it was before the program broadcast it, if that came last.
        """
        atom = self.jaxpr.outvars[index]
        while bare and _is_var(atom) and _is_broadcast(self.made_by.get(atom)):
            atom = self.made_by[atom].invars[0]
        return self._value(atom)

    def _value(self, atom: Any) -> Any:
        if not _is_var(atom):
            return np.asarray(atom.val)
        pending = [atom]
        while pending:
            var = pending[-1]
            if var in self.known:
                pending.pop()
                continue
            eqn = self.made_by[var]
            missing = [v for v in eqn.invars if _is_var(v) and v not in self.known]
            if missing:
                pending.extend(missing)
                continue
            values = [self.known[v] if _is_var(v) else np.asarray(v.val) for v in eqn.invars]
            self.known.update(zip(eqn.outvars, apply(eqn, values), strict=True))
        return self.known[atom]


def apply(eqn: Any, values: list[Any]) -> list[Any]:
    """The outputs of one equation on wires and arrays."""
    if not has_wire(values):
        with precision.scope("float64"):
            return [np.asarray(v) for v in Equation.of(eqn).run(values)]
    inner = _inlined(eqn)
    if inner is not None:
        replay = Replay(inner)
        for i, value in enumerate(values):
            replay.give(i, value)
        return [replay.output(i) for i in range(len(inner.jaxpr.outvars))]
    rule = RULES.get(eqn.primitive.name)
    found = rule(eqn.params, *values) if rule is not None else None
    if found is not None:
        return [_shaped(found, eqn.outvars[0].aval)]
    whole = lift(Equation.of(eqn))(*values)
    return list(whole) if isinstance(whole, (tuple, list)) else [whole]


def _shaped(value: Any, aval: Any) -> Any:
    """A recorded result must have the shape that JAX says; anything else is a defect here."""
    assert tuple(value.shape) == tuple(aval.shape), (value.shape, aval.shape)
    return value


@dataclass(frozen=True)
class Equation:
    """One equation as a function of arrays: what :func:`ppcore.lift` records.

    Two are equal if they apply the same primitive with the same parameters.
    """

    eqn: Any
    key: str

    @classmethod
    def of(cls, eqn: Any) -> Equation:
        types = [a.aval.str_short() for a in eqn.invars]
        params = sorted(eqn.params.items(), key=lambda item: item[0])
        return cls(eqn, f"{eqn.primitive.name} {types} {params!r}")

    @property
    def __name__(self) -> str:
        return str(self.eqn.primitive.name)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equation) and self.key == other.key

    def __call__(self, *values: Any) -> Any:
        found = self.run(values)
        return tuple(found) if self.eqn.primitive.multiple_results else found[0]

    def run(self, values: Sequence[Any]) -> list[Any]:
        """The outputs, as a list, of JAX's own evaluation."""
        import jax.numpy as jnp

        primitive = self.eqn.primitive
        typed = zip(values, self.eqn.invars, strict=True)
        arrays = [jnp.asarray(value, atom.aval.dtype) for value, atom in typed]
        params = primitive.get_bind_params(self.eqn.params)
        if isinstance(params, tuple):  # Before JAX 0.10: functions among them come first.
            functions, params = params
            arrays = [*functions, *arrays]
        found = primitive.bind(*arrays, **params)
        return list(found) if primitive.multiple_results else [found]


def _is_broadcast(eqn: Any) -> bool:
    """Whether an equation adds leading axes and repeats, as arithmetic would by itself."""
    if eqn is None or eqn.primitive.name != "broadcast_in_dim":
        return False
    lead = len(eqn.params["shape"]) - len(eqn.params["broadcast_dimensions"])
    return list(eqn.params["broadcast_dimensions"]) == list(range(lead, len(eqn.params["shape"])))


def _is_var(atom: Any) -> bool:
    return not hasattr(atom, "val")


_WRAPPERS = {"pjit", "jit", "closed_call", "core_call", "remat2", "checkpoint"}
# Functions with derivatives of their own that NumPy has a name for; others are lifted whole.
_NAMED = {"logaddexp": "numpy.logaddexp"}


def _inlined(eqn: Any) -> Any:
    """The body of an equation that only wraps other equations, closed; None for all others."""
    if eqn.primitive.name not in _WRAPPERS:
        return None
    body = next(eqn.params[k] for k in ("jaxpr", "call_jaxpr") if k in eqn.params)
    if hasattr(body, "jaxpr"):
        return body
    from jax.extend.core import ClosedJaxpr

    return ClosedJaxpr(body, ())


def _custom_derivative(params: dict[str, Any], *values: Any) -> Any:
    called = getattr(params["call_jaxpr"].jaxpr, "debug_info", None)
    op = _NAMED.get(str(getattr(called, "func_name", "")).partition(" ")[0])
    return None if op is None else record(op, values, {})


def _ufunc(op: str) -> Callable[..., Any]:
    def rule(params: dict[str, Any], *values: Any) -> Any:
        return record(op, values, {})

    return rule


def _reduction(op: str) -> Callable[..., Any]:
    def rule(params: dict[str, Any], x: Any) -> Any:
        return record(op, (x,), {"axis": tuple(params["axes"])})

    return rule


def _div(params: dict[str, Any], a: Any, b: Any) -> Any:
    return None if np.dtype(a.dtype).kind in "iu" else record("numpy.divide", (a, b), {})


def _integer_pow(params: dict[str, Any], x: Any) -> Any:
    n = int(params["y"])
    return record("numpy.square", (x,), {}) if n == 2 else record("numpy.power", (x, n), {})


def _rsqrt(params: dict[str, Any], x: Any) -> Any:
    return record("numpy.divide", (1.0, record("numpy.sqrt", (x,), {})), {})


def _convert(params: dict[str, Any], x: Any) -> Any:
    new = np.dtype(params["new_dtype"])
    return x if x.dtype == new else record("astype", (x, new.name), {})


def _reshape(params: dict[str, Any], x: Any) -> Any:
    if params.get("dimensions") is not None:
        return None
    return _to_shape(x, params["new_sizes"])


def _to_shape(x: Any, shape: Sequence[int]) -> Any:
    shape = tuple(int(n) for n in shape)
    return x if tuple(x.shape) == shape else record("numpy.reshape", (x, shape), {})


def _squeeze(params: dict[str, Any], x: Any) -> Any:
    gone = {d % x.ndim for d in params["dimensions"]}
    return _to_shape(x, [n for i, n in enumerate(x.shape) if i not in gone])


def _broadcast(params: dict[str, Any], x: Any) -> Any:
    """Insert axes of length one, then repeat: broadcasting spelt out."""
    shape, where = tuple(params["shape"]), tuple(params["broadcast_dimensions"])
    lengths = [1] * len(shape)
    for axis, at in enumerate(where):
        lengths[at] = x.shape[axis]
    spread = _to_shape(x, lengths)
    return spread if tuple(lengths) == shape else record("numpy.broadcast_to", (spread, shape), {})


def _select(params: dict[str, Any], which: Any, *cases: Any) -> Any:
    if np.dtype(which.dtype) != np.dtype(bool) or len(cases) != 2:
        return None
    return record("numpy.where", (which, cases[1], cases[0]), {})


def _transpose(params: dict[str, Any], x: Any) -> Any:
    return record("numpy.transpose", (x, tuple(int(i) for i in params["permutation"])), {})


def _concatenate(params: dict[str, Any], *parts: Any) -> Any:
    return record("numpy.concatenate", (list(parts),), {"axis": int(params["dimension"])})


def _slice(params: dict[str, Any], x: Any) -> Any:
    strides = params["strides"] or (1,) * x.ndim
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return record("getitem", (x, tuple(slice(int(a), int(b), int(s)) for a, b, s in limits)), {})


def _dot(params: dict[str, Any], a: Any, b: Any) -> Any:
    (left, right), batch = params["dimension_numbers"]
    if batch != ((), ()) or len(left) != 1:
        return None
    if left[0] == a.ndim - 1 and b.ndim <= 2 and right[0] == 0 and a.ndim <= 2:
        return record("numpy.matmul", (a, b), {})
    return record("numpy.tensordot", (a, b), {"axes": (tuple(left), tuple(right))})


def _gather(params: dict[str, Any], x: Any, indices: Any) -> Any:
    """``x[indices]``: whole slices of x at places along its leading axes.

    Constant places must lie inside x; JAX moves random ones to its edge, as indexing does here.
    """
    numbers = params["dimension_numbers"]
    k = numbers.start_index_map
    whole = all(
        size == (1 if axis in k else x.shape[axis])
        for axis, size in enumerate(params["slice_sizes"])
    )
    lead = tuple(range(len(k)))
    behind = tuple(range(indices.ndim - 1, indices.ndim - 1 + x.ndim - len(k)))
    plain = (
        tuple(k) == lead
        and tuple(numbers.collapsed_slice_dims) == lead
        and tuple(numbers.offset_dims) == behind
        and not getattr(numbers, "operand_batching_dims", ())
    )
    if not whole or not plain:
        return None
    if isinstance(indices, Wire):
        return (
            record("getitem", (x, _to_shape(indices, indices.shape[:-1])), {})
            if k == (0,)
            else None
        )
    limits = np.array([x.shape[axis] for axis in k])
    if (indices < 0).any() or (indices >= limits).any():
        return None
    places = tuple(np.ascontiguousarray(indices[..., i]) for i in range(len(k)))
    if indices.ndim == 1:
        return record("getitem", (x, tuple(int(p) for p in places)), {})
    return record("getitem", (x, places if len(places) > 1 else places[0]), {})


def _identity(params: dict[str, Any], x: Any) -> Any:
    return x


_NUMPY = (
    "exp log log1p expm1 sqrt tanh sin cos tan sinh cosh abs sign floor ceil square cbrt exp2"
).split()

RULES: dict[str, Callable[..., Any]] = {
    **{name: _ufunc(f"numpy.{name}") for name in _NUMPY},
    **{
        ours: _ufunc(op)
        for ours, op in {
            "add": "numpy.add",
            "add_any": "numpy.add",
            "sub": "numpy.subtract",
            "mul": "numpy.multiply",
            "neg": "numpy.negative",
            "pow": "numpy.power",
            "max": "numpy.maximum",
            "min": "numpy.minimum",
            "rem": "numpy.fmod",
            "is_finite": "numpy.isfinite",
            "asin": "numpy.arcsin",
            "acos": "numpy.arccos",
            "atan": "numpy.arctan",
            "atan2": "numpy.arctan2",
            "asinh": "numpy.arcsinh",
            "acosh": "numpy.arccosh",
            "atanh": "numpy.arctanh",
            "eq": "numpy.equal",
            "ne": "numpy.not_equal",
            "lt": "numpy.less",
            "le": "numpy.less_equal",
            "gt": "numpy.greater",
            "ge": "numpy.greater_equal",
            "logistic": "scipy.special.expit",
            "erf": "scipy.special.erf",
            "erfc": "scipy.special.erfc",
            "lgamma": "scipy.special.gammaln",
            "digamma": "scipy.special.digamma",
        }.items()
    },
    "reduce_sum": _reduction("numpy.sum"),
    "reduce_max": _reduction("numpy.max"),
    "reduce_min": _reduction("numpy.min"),
    "reduce_prod": _reduction("numpy.prod"),
    "div": _div,
    "integer_pow": _integer_pow,
    "rsqrt": _rsqrt,
    "convert_element_type": _convert,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "broadcast_in_dim": _broadcast,
    "select_n": _select,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "slice": _slice,
    "dot_general": _dot,
    "gather": _gather,
    "custom_jvp_call": _custom_derivative,
    "copy": _identity,
    "copy_p": _identity,
}
"""Primitive -> what it is in NumPy's words; a rule returns None where its words do not fit."""
