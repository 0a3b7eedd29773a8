"""Wires: random values inside a model, which speak NumPy's own protocols."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from ppcore.errors import (
    ModelError,
    ShapeError,
    UnknownNameError,
    UnsupportedError,
    did_you_mean,
)
from ppcore.space import Space

if TYPE_CHECKING:
    from ppcore.recording.recorder import Recorder, Ref

_REDUCTIONS = {
    "add": "sum",
    "multiply": "prod",
    "maximum": "max",
    "minimum": "min",
    "logical_and": "all",
    "logical_or": "any",
}
_ACCUMULATIONS = {"add": "cumsum", "multiply": "cumprod"}


class Wire(np.lib.mixins.NDArrayOperatorsMixin):
    """A random value: it has a shape and a dtype, and no number yet.

    NumPy's functions and operators, ``numpy.linalg``, ``scipy.special``'s ufuncs, indexing and the
    usual array methods work on it; each records a deterministic box.
    """

    __slots__ = ("recorder", "ref", "space")
    __array_priority__ = 1000

    def __init__(self, recorder: Recorder, ref: Ref, space: Space):
        self.recorder, self.ref, self.space = recorder, ref, space

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.space.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The array's dtype."""
        return np.dtype(self.space.dtype)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.space.size

    @property
    def T(self) -> Wire:
        """The transpose."""
        return self.transpose()

    @property
    def mT(self) -> Wire:
        """The transpose of the last two axes."""
        return self.swapaxes(-1, -2)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        from ppcore.recording.record import record

        if kwargs.pop("out", None) is not None:
            raise _cannot("be written into an array (out=…, a += x)", "write a = a + x")
        inputs = tuple(np.asarray(i) if isinstance(i, (list, tuple)) else i for i in inputs)
        name = ufunc.__name__
        if method == "__call__":
            return record(_ufunc_op(ufunc), inputs, kwargs)
        if method == "reduce" and name in _REDUCTIONS:
            return record(f"numpy.{_REDUCTIONS[name]}", inputs, {"axis": 0, **kwargs})
        if method == "accumulate" and name in _ACCUMULATIONS:
            return record(f"numpy.{_ACCUMULATIONS[name]}", inputs, {"axis": 0, **kwargs})
        if method == "outer" and len(inputs) == 2:
            return record("outer", (_ufunc_op(ufunc), *map(_array_like, inputs)), kwargs)
        raise UnsupportedError(
            f"np.{name}.{method} cannot be recorded on random values. Use the array function "
            f"instead (np.sum, np.cumsum, …), or pp.lift."
        )

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        from ppcore.recording.record import record

        name = func.__name__
        if getattr(np.linalg, name, None) is func:
            op = f"numpy.linalg.{name}"
        elif getattr(np.fft, name, None) is func:
            op = f"numpy.fft.{name}"
        else:
            op = f"numpy.{name}"
        if name in _OWN_FUNCTIONS:
            return _OWN_FUNCTIONS[name](*args, **kwargs)
        # Lists of floats are data; lists of integers may be data, or shapes and axes.
        args, kwargs = _listed(tuple(args), True), _listed(dict(kwargs), True)
        try:
            return record(op, args, kwargs)
        except ShapeError:
            if not (_has_list(args) or _has_list(tuple(kwargs.values()))):
                raise
        return record(op, _listed(args, False), _listed(kwargs, False))

    def __iadd__(self, other: Any) -> Wire:
        # Wires never change: `x += y` names a new one.
        return self + other  # type: ignore[no-any-return]

    def __isub__(self, other: Any) -> Wire:
        return self - other  # type: ignore[no-any-return]

    def __imul__(self, other: Any) -> Wire:
        return self * other  # type: ignore[no-any-return]

    def __itruediv__(self, other: Any) -> Wire:
        return self / other  # type: ignore[no-any-return]

    def __getitem__(self, index: Any) -> Wire:
        from ppcore.recording.record import record

        index = _index(index)
        _check_range(self.shape, index)
        return record("getitem", (self, index), {})  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        known = [n for n in dir(Wire) if not n.startswith("_")]
        raise UnknownNameError(
            f"A random value has no attribute {name!r}. {did_you_mean(name, known)}"
        )

    def __setitem__(self, index: Any, value: Any) -> NoReturn:
        raise _cannot("be changed in place", "write x = pp.math.set_at(x, index, value)")

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a random scalar")
        return self.shape[0]

    def __iter__(self) -> Iterator[Wire]:
        if not self.shape:
            raise TypeError("iteration over a random scalar")
        return (self[i] for i in range(self.shape[0]))

    def __bool__(self) -> NoReturn:
        raise _cannot(
            "decide an `if`, `while`, `and` or `or`",
            "use np.where(condition, a, b), np.logical_and and np.logical_or, or np.maximum, "
            "np.minimum and np.sort for max, min and sorted",
        )

    def __float__(self) -> NoReturn:
        raise _cannot("become a Python number", "use NumPy's functions (np.exp, not math.exp)")

    __int__ = __complex__ = __float__  # type: ignore[assignment]

    def __index__(self) -> NoReturn:
        raise _cannot("index data or count", "write pp.math.get_at(data, index) for data[index]")

    def __array__(self, dtype: Any = None, copy: Any = None) -> NoReturn:
        raise _cannot(
            "become a NumPy array",
            "use functions that dispatch on it: numpy's, scipy.special's ufuncs, those of "
            "ppcore.math (softmax, logsumexp, …), np.stack([a, b]) for np.array([a, b]), "
            "pp.math.get_at(data, index) to index data at random, or pp.lift(fn) for your own",
        )

    def __hash__(self) -> int:
        return id(self)

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __repr__(self) -> str:
        return f"<random {self.space}>"

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        from ppcore.recording.record import record

        return record(name, (self, *args), kwargs)

    def reshape(self, *shape: Any) -> Wire:
        """The same elements in another shape."""
        new = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return self._call("numpy.reshape", tuple(int(n) for n in np.atleast_1d(new)))  # type: ignore[no-any-return]

    def transpose(self, *axes: Any) -> Wire:
        """Axes permuted (reversed by default)."""
        if not axes:
            return self._call("numpy.transpose")  # type: ignore[no-any-return]
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes
        return self._call("numpy.transpose", tuple(order))  # type: ignore[no-any-return]

    def astype(self, dtype: Any) -> Wire:
        """The values in another dtype."""
        return self._call("astype", np.dtype(dtype).name)  # type: ignore[no-any-return]

    def take(self, indices: Any, axis: int | None = None) -> Wire:
        """The elements at ``indices`` along ``axis`` (of the flat array by default)."""
        return _take(self, indices, axis)

    def flatten(self) -> Wire:
        """One axis."""
        return self.reshape(-1)

    def copy(self) -> Wire:
        """The wire itself: wires never change."""
        return self

    def item(self) -> NoReturn:
        raise _cannot("become a Python number", "keep the wire")


def _method(name: str) -> Any:
    def method(self: Wire, *args: Any, **kwargs: Any) -> Any:
        return self._call(f"numpy.{name}", *args, **kwargs)

    method.__name__ = name
    method.__doc__ = f"``np.{name}`` of this value."
    return method


for _name in (
    "sum prod mean std var max min argmax argmin all any cumsum cumprod dot ravel squeeze "
    "swapaxes clip round repeat diagonal trace conj sort argsort ptp"
).split():
    setattr(Wire, _name, _method(_name))


def _ufunc_op(ufunc: np.ufunc) -> str:
    from ppcore.ops import scipy_special_name

    name = ufunc.__name__
    if getattr(np, name, None) is ufunc:
        return f"numpy.{name}"
    return scipy_special_name(name) or f"numpy.{name}"


def _has_list(value: Any) -> bool:
    if isinstance(value, list) and all(isinstance(v, (int, float)) for v in value):
        return True
    return isinstance(value, (list, tuple)) and any(map(_has_list, value))


def _listed(value: Any, floats_only: bool) -> Any:
    """Lists of numbers in arguments as arrays, as NumPy reads them."""
    if isinstance(value, dict):
        return {k: _listed(v, floats_only) for k, v in value.items()}
    if isinstance(value, list) and value and all(isinstance(v, (int, float)) for v in value):
        is_data = not floats_only or any(isinstance(v, float) for v in value)
        return np.asarray(value) if is_data else value
    if isinstance(value, (list, tuple)):
        return type(value)(_listed(v, floats_only) for v in value)
    return value


def _array_like(value: Any) -> Any:
    return value if isinstance(value, Wire) else np.asarray(value)


def _index(index: Any) -> Any:
    """An index with constant masks as positions, so that shapes are known while recording."""
    if isinstance(index, tuple):
        out: list[Any] = []
        for part in index:
            found = _index(part)
            out.extend(found) if isinstance(found, tuple) else out.append(found)
        return tuple(out)
    if isinstance(index, list):
        index = np.asarray(index)
    if isinstance(index, (np.ndarray, np.bool_)) and index.dtype == bool:
        return tuple(np.nonzero(index))
    if isinstance(index, Wire) and index.dtype == bool:
        raise _cannot(
            "be a boolean mask (the result's shape would be random)",
            "use np.where(mask, value, 0)",
        )
    if isinstance(index, np.integer):
        return int(index)
    return index


def _check_range(shape: tuple[int, ...], index: Any) -> None:
    """Refuse constant positions outside the array, which JAX would move to its edge."""
    from ppcore.recording.recorder import user_line

    parts = index if isinstance(index, tuple) else (index,)
    if any(isinstance(p, Wire) for p in parts):
        return
    try:
        np.broadcast_to(np.False_, shape)[index]
    except IndexError as error:
        raise ShapeError(f"{user_line()}: indexing a random value: {error}.") from None


def _take(a: Any, indices: Any, axis: int | None) -> Wire:
    from ppcore.recording.record import record

    if axis is None:
        a, axis = a.reshape(-1), 0
    index = (*(slice(None),) * (axis % a.ndim), _array_like(indices))
    if isinstance(a, Wire):
        return a[index]
    return record("getitem", (np.asarray(a), index), {})  # type: ignore[no-any-return]


def _cannot(what: str, instead: str) -> ModelError:
    from ppcore.recording.recorder import user_line

    return ModelError(f"{user_line()}: a random value cannot {what}. Instead, {instead}.")


_OWN_FUNCTIONS: dict[str, Any] = {
    "shape": lambda a: a.shape,
    "ndim": lambda a: a.ndim,
    "size": lambda a, axis=None: a.size if axis is None else a.shape[axis],
    "take": lambda a, indices, axis=None: _take(a, indices, axis),
}
