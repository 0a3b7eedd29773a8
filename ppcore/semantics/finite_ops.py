"""What a deterministic box does to finite values: NumPy on tables, sparse where it can be."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np

from ppcore.diagram import Box
from ppcore.recording.record import evaluate
from ppcore.recording.template import from_template
from ppcore.semantics.finite import LIMIT, Finite, Network, TooLarge, align, constant

_MOVES = frozenset(
    f"numpy.{n}"
    for n in (
        "reshape transpose squeeze expand_dims broadcast_to repeat swapaxes moveaxis ravel "
        "concatenate stack tile roll flip hstack vstack atleast_1d atleast_2d diagonal take"
    ).split()
) | {"getitem"}
_SUMS: dict[str, Callable[..., Any]] = {
    "numpy.sum": np.add,
    "numpy.prod": np.multiply,
    "numpy.max": np.maximum,
    "numpy.min": np.minimum,
    "numpy.amax": np.maximum,
    "numpy.amin": np.minimum,
    "numpy.any": np.logical_or,
    "numpy.all": np.logical_and,
}


@cache
def numpy_function(op: str) -> Callable[..., Any] | None:
    """NumPy's or SciPy's function of that name, or None."""
    if op in _OWN:
        return _OWN[op]
    module, _, name = op.rpartition(".")
    if module in ("numpy", "numpy.linalg", "numpy.fft", "scipy.special"):
        return getattr(importlib.import_module(module), name, None)
    return None


def _getitem(x: Any, index: Any) -> Any:
    return np.asarray(x)[index]


def _astype(x: Any, dtype: str) -> Any:
    return np.asarray(x).astype(dtype)


_OWN: dict[str, Callable[..., Any]] = {
    "getitem": _getitem,
    "astype": _astype,
    "deterministic": np.asarray,
}
_ELEMENTWISE = frozenset({"astype", "deterministic", "numpy.where", "numpy.clip", "numpy.round"})


def apply(box: Box, values: list[Finite], network: Network) -> list[Finite]:
    """The outputs of a deterministic box on finite values.

    Raises :class:`ppcore.semantics.finite.TooLarge` if an output depends on too much at once.
    """
    fn = numpy_function(box.op)
    if all(v.constant for v in values):
        return [constant(v) for v in _call(box, fn, [v.table for v in values])]
    if box.op == "stochastic":
        return _generic(box, values)
    if fn is not None and (_is_elementwise(fn) or box.op in _ELEMENTWISE):
        made = _elementwise(box, fn, values)
        return [network.compress(made, str(box))] if made is not None else _generic(box, values)
    found = None
    if box.op in _MOVES and fn is not None:
        found = _moved(box, fn, values) or _lookup(box, values)
    elif box.op == "jax.nn.one_hot":
        found = _one_hot(box, values)
    elif box.op in _SUMS:
        found = _reduced(box, values[0], network)
    return [found] if found is not None else _generic(box, values)


def _is_elementwise(fn: Any) -> bool:
    return isinstance(fn, np.ufunc) and fn.signature is None  # np.matmul has a signature


def _call(box: Box, fn: Any, arrays: list[np.ndarray]) -> list[np.ndarray]:
    if fn is None:
        return [np.asarray(v) for v in _in_jax(box, arrays)]
    args, kwargs = from_template(box.spec, arrays)
    result = fn(*args, **kwargs)
    many = list(result) if isinstance(result, (tuple, list)) else [result]
    return [np.asarray(r, s.dtype) for r, s in zip(many, box.cod, strict=True)]


def _in_jax(box: Box, arrays: list[np.ndarray]) -> list[Any]:
    from ppcore import precision

    with precision.scope("float64"):
        return evaluate(box, [np.asarray(a) for a in arrays])


def _elementwise(box: Box, fn: Any, values: list[Finite]) -> Finite | None:
    shape = box.cod[0].shape
    if len(box.cod) != 1:
        return None
    slots, tables = align(values, shape)
    (table,) = _call(box, fn, tables)
    cards = [max(t.shape[i] for t in tables) for i in range(len(slots))]
    return Finite(slots, np.broadcast_to(table, (*cards, *shape)))


def _moved(box: Box, fn: Any, values: list[Finite]) -> Finite | None:
    """A function that only moves elements: learn where to from their numbers."""
    moving = [i for i, v in enumerate(values) if not v.constant]
    if box.op in ("getitem", "numpy.take"):
        if moving != [0]:
            return None
        moving = [0]
    elif box.op in ("numpy.concatenate", "numpy.stack", "numpy.hstack", "numpy.vstack"):
        moving = list(range(len(values)))
    elif moving != [0]:
        return None
    numbers, at = [], 0
    for i, v in enumerate(values):
        if i in moving:
            n = int(np.prod(v.shape, dtype=int))
            numbers.append(np.arange(at, at + n).reshape(v.shape))
            at += n
        else:
            numbers.append(v.table)
    args, kwargs = from_template(box.spec, numbers)
    order = np.asarray(fn(*args, **kwargs))
    parts = [values[i] for i in moving]
    if len(parts) == 1:
        return parts[0].at(order)
    flats = [p.at(np.arange(int(np.prod(p.shape, dtype=int)))) for p in parts]
    return _concatenate(flats).at(order)


def _concatenate(parts: list[Finite]) -> Finite:
    from ppcore.semantics.finite import stack

    return stack([p.at(i) for p in parts for i in range(p.shape[0])])


def _lookup(box: Box, values: list[Finite]) -> Finite | None:
    """``table[i, j, …]``: a constant table indexed by finite values."""
    args, kwargs = from_template(box.spec, list(range(len(values))))
    if kwargs.get("axis", 0) not in (0,) or len(args) > 2 + (box.op == "numpy.take"):
        return None
    if len(args) > 2 and args[2] != 0:
        return None
    if type(args[0]) is int:
        if not values[args[0]].constant:
            return None
        source = values[args[0]].table
    else:
        source = np.asarray(args[0])
    template = box.spec.items[0].items[1]
    parts = getattr(template, "items", (template,)) if box.op == "getitem" else (template,)
    index = []
    for part in parts:
        hole = getattr(part, "index", None)
        if isinstance(hole, int):
            index.append(values[hole])
        elif isinstance(part, int) and not isinstance(part, bool):
            index.append(constant(part))
        else:
            return None
    if box.op == "numpy.take" and not (kwargs or len(args) > 2):
        source = source.ravel()
    shape = np.broadcast_shapes(*[v.shape for v in index])
    slots, tables = align(index, shape)
    if any(t.dtype.kind not in "iu" for t in tables):
        return None
    for axis, t in enumerate(tables):  # JAX's rule, which the other semantics follow
        n = source.shape[axis]
        tables[axis] = np.clip(np.where(t < 0, t + n, t), 0, n - 1)
    found = source[tuple(tables)]
    rest = source.shape[len(tables) :]
    one = (1,) * len(rest)
    wide = tuple(np.broadcast_to(s.reshape((*shape, *one)), (*shape, *rest)) for s in slots)
    return Finite(wide, found)


def _one_hot(box: Box, values: list[Finite]) -> Finite | None:
    (x, n), kwargs = from_template(box.spec, values)
    if kwargs or not isinstance(x, Finite) or not isinstance(n, int):
        return None
    table = (x.table[..., None] == np.arange(n)).astype(box.cod[0].dtype)
    wide = tuple(np.broadcast_to(s[..., None], (*x.shape, n)) for s in x.slots)
    return Finite(wide, table)


def _reduced(box: Box, value: Finite, network: Network) -> Finite | None:
    """Sums and the like, one element after another, on as few values as there are."""
    args, kwargs = from_template(box.spec, [value])
    if len(args) > 2 or set(kwargs) - {"axis", "keepdims"}:
        return None
    axis = args[1] if len(args) == 2 else kwargs.get("axis")
    numbers = np.arange(int(np.prod(value.shape, dtype=int))).reshape(value.shape)
    if axis is None:
        numbers, axis = numbers.ravel(), 0
    if not isinstance(axis, int) or numbers.shape[axis] == 0:
        return None
    columns = np.moveaxis(numbers, axis, 0)
    shape = box.cod[0].shape
    total = _cast(value.at(columns[0]), box.cod[0].dtype)
    for column in columns[1:]:
        part = _cast(value.at(column), box.cod[0].dtype)
        slots, tables = align([total, part], total.shape)
        total = network.compress(Finite(slots, _SUMS[box.op](*tables)), str(box))
    return Finite(
        tuple(np.broadcast_to(s, total.shape).reshape(shape) for s in total.slots),
        total.table.reshape((*total.cards, *shape)),
    )


def _cast(value: Finite, dtype: str) -> Finite:
    return Finite(value.slots, value.table.astype(dtype))


def _generic(box: Box, values: list[Finite]) -> list[Finite]:
    """Any function: evaluate it for every combination of all the variables it sees."""
    cards: dict[int, int] = {}
    for v in values:
        for slot, card in zip(v.slots, v.cards, strict=True):
            cards.update((int(i), card) for i in np.unique(slot) if i >= 0)
    size = float(np.prod([float(c) for c in cards.values()]))
    if size * sum(s.size for s in box.cod) > LIMIT:
        raise TooLarge(f"it depends on {len(cards)} finite variables at once")
    ids = sorted(cards)
    dims = [cards[i] for i in ids]
    grid = dict(zip(ids, np.unravel_index(np.arange(int(size)), dims), strict=True))
    given = [settings(v, grid, int(size)) for v in values]
    made = _batched(box, given)
    slots = tuple(np.full((), i) for i in ids)
    return [
        Finite(
            tuple(np.broadcast_to(s, space.shape) for s in slots),
            np.asarray(m).reshape((*dims, *space.shape)),
        )
        for m, space in zip(made, box.cod, strict=True)
    ]


def settings(value: Finite, grid: dict[int, np.ndarray], n: int) -> np.ndarray:
    """The value for ``n`` settings of the variables: array[n, *shape]; grid: {variable: int[n]}."""
    if value.constant:
        return np.broadcast_to(value.table, (n, *value.shape))
    size = int(np.prod(value.shape, dtype=int))
    zeros = np.zeros(n, int)
    index = [
        np.stack([grid.get(int(v), zeros) for v in slot.reshape(-1)], axis=-1)
        if size
        else np.zeros((n, 0), int)
        for slot in value.slots
    ]
    flat = value.table.reshape((*value.cards, -1))
    return flat[(*index, np.arange(size))].reshape((n, *value.shape))


def _batched(box: Box, given: list[np.ndarray]) -> list[Any]:
    from ppcore import precision

    with precision.scope("float64"):
        return _vmapped(box)(*given)  # type: ignore[no-any-return]


@cache
def _vmapped(box: Box) -> Any:
    import jax

    return jax.jit(jax.vmap(partial(_positional, box)))


def _positional(box: Box, *values: Any) -> list[Any]:
    return evaluate(box, list(values))
