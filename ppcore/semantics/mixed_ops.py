"""Array boxes on values that depend on finite variables, where JAX traces the numbers.

Values are :class:`~ppcore.semantics.finite.Finite` whose tables may be traced. Which element
depends on which variable is always known while tracing; tables that are NumPy's are known too, and
are left to the tensor semantics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box, Hole
from ppcore.recording.record import evaluate
from ppcore.recording.template import from_template
from ppcore.semantics import finite_ops
from ppcore.semantics.finite import LIMIT, NOBODY, Finite, Network, TooLarge, align

_ELEMENTWISE = frozenset(
    "astype deterministic numpy.where numpy.clip numpy.round jax.nn.relu jax.nn.softplus "
    "jax.nn.sigmoid".split()
)
_REDUCE = frozenset(
    f"numpy.{n}" for n in "sum prod max min mean any all var std amax amin".split()
) | {"scipy.special.logsumexp"}
_ALONG = frozenset(
    "jax.nn.softmax jax.nn.log_softmax scipy.special.softmax scipy.special.log_softmax "
    "numpy.cumsum numpy.cumprod numpy.sort".split()
)
_MOVES = frozenset(
    f"numpy.{n}"
    for n in (
        "reshape transpose squeeze expand_dims broadcast_to repeat swapaxes moveaxis ravel "
        "concatenate stack tile roll flip hstack vstack atleast_1d atleast_2d diagonal take"
    ).split()
) | {"getitem"}


def plain(value: Any) -> Finite:
    """A value that depends on no variable, traced or not."""
    return Finite((), value if hasattr(value, "shape") else np.asarray(value))


def known(value: Finite) -> bool:
    """Whether the numbers are known while tracing."""
    return isinstance(value.table, (np.ndarray, np.generic))


def apply(box: Box, values: list[Finite], network: Network) -> list[Finite]:
    """The outputs of a deterministic box.

    Raises :class:`ppcore.semantics.finite.TooLarge` if an output depends on too much at once.
    """
    if all(known(v) for v in values):
        # Index arithmetic: it has to be done now, not in the program that is being traced.
        with jax.ensure_compile_time_eval():
            if all(v.constant for v in values):
                return [plain(np.asarray(v)) for v in evaluate(box, [v.table for v in values])]
            return finite_ops.apply(box, values, network)
    if all(v.constant for v in values):
        return [plain(v) for v in evaluate(box, [v.table for v in values])]
    found: Finite | None = None
    ufunc = finite_ops.numpy_function(box.op)
    # Ufuncs with a signature, such as np.matmul, do not work element by element.
    if box.op in _ELEMENTWISE or (isinstance(ufunc, np.ufunc) and ufunc.signature is None):
        found = _elementwise(box, values)
    elif box.op in _MOVES:
        found = _moved(box, values)
        if found is None and box.op == "getitem":
            found = _lookup(box, values)
    elif box.op in _REDUCE or box.op in _ALONG:
        found = _along_axis(box, values)
    return [found] if found is not None else _generic(box, values)


def _elementwise(box: Box, values: list[Finite]) -> Finite | None:
    if len(box.cod) != 1:
        return None
    shape = box.cod[0].shape
    slots, tables = align(values, shape)
    (made,) = evaluate(box, tables)
    cards = [max(t.shape[i] for t in tables) for i in range(len(slots))]
    return Finite(slots, jnp.broadcast_to(made, (*cards, *shape)))


def _moved(box: Box, values: list[Finite]) -> Finite | None:
    """A function that only moves elements: learn where to from their numbers."""
    joins = box.op in ("numpy.concatenate", "numpy.stack", "numpy.hstack", "numpy.vstack")
    if not joins and (values[0].constant or not all(v.constant for v in values[1:])):
        return None
    moving = values if joins else values[:1]
    numbers: list[Any] = []
    at = 0
    for v in moving:
        n = int(np.prod(v.shape, dtype=int))
        numbers.append(np.arange(at, at + n).reshape(v.shape))
        at += n
    for v in values[len(moving) :]:
        if not known(v):
            raise TooLarge(
                "which of the finite variables it picks is decided by numbers that are not known "
                "when the density is compiled. Index with data or constants"
            )
        numbers.append(v.table)
    with jax.ensure_compile_time_eval():
        order = np.asarray(evaluate(box, numbers)[0])
    parts = [v.at(np.arange(int(np.prod(v.shape, dtype=int)))) for v in moving]
    return (parts[0] if len(parts) == 1 else concatenate(parts)).at(order)


def concatenate(parts: Sequence[Finite]) -> Finite:
    """Vectors one after another; slots are matched by the number of values."""
    cards: list[int] = []
    places = []
    for v in parts:
        free = list(range(len(cards)))
        mine = []
        for card in v.cards:
            at = next((i for i in free if cards[i] == card), None)
            if at is None:
                at = len(cards)
                cards.append(card)
            else:
                free.remove(at)
            mine.append(at)
        places.append(mine)
    slots = np.full((len(cards), sum(v.shape[0] for v in parts)), NOBODY)
    tables, start = [], 0
    for v, mine in zip(parts, places, strict=True):
        n = v.shape[0]
        for at, slot in zip(mine, v.slots, strict=True):
            slots[at, start : start + n] = slot
        start += n
        order = np.argsort(mine).tolist()
        lead = [1] * len(cards)
        for at in mine:
            lead[at] = cards[at]
        table = v.table.transpose(*order, len(mine)).reshape((*lead, n))
        tables.append(jnp.broadcast_to(table, (*cards, n)))
    return Finite(tuple(slots), jnp.concatenate(tables, axis=-1))


def _lookup(box: Box, values: list[Finite]) -> Finite | None:
    """``array[i, …]``, the indices finite, the array not: one block of indices, slices around."""
    args, _ = from_template(box.spec, list(range(len(values))))
    source, index = args
    if type(source) is not int or not values[source].constant:
        return None
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(p is None or p is Ellipsis or isinstance(p, bool) for p in parts):
        return None
    raw = box.spec.items[0].items[1]
    raw = list(raw.items) if getattr(raw, "kind", "") == "tuple" else [raw]
    is_slice = [isinstance(p, slice) for p in parts]
    advanced = [i for i, s in enumerate(is_slice) if not s]
    if any(p != slice(None) for p, s in zip(parts, is_slice, strict=True) if s):
        return None
    if advanced != list(range(advanced[0], advanced[-1] + 1)):
        return None
    found = [
        values[parts[i]] if isinstance(raw[i], Hole) else plain(np.asarray(parts[i]))
        for i in advanced
    ]
    shape = np.broadcast_shapes(*[v.shape for v in found])
    slots, tables = align(found, shape)
    if any(np.dtype(t.dtype).kind not in "iu" for t in tables):
        return None
    first, k = advanced[0], len(slots)
    array = values[source].table
    moved = jnp.moveaxis(jnp.asarray(array), range(first), range(-first, 0)) if first else array
    got = jnp.asarray(moved)[tuple(tables)]
    rest = got.ndim - k - len(shape)
    if first:  # [*cards, *shape, *after, *before] -> [*cards, *before, *shape, *after]
        got = jnp.moveaxis(got, range(got.ndim - first, got.ndim), range(k, k + first))
    after = rest - first
    full = got.shape[k:]
    wide = tuple(
        np.broadcast_to(s.reshape((1,) * first + shape + (1,) * after), full) for s in slots
    )
    return Finite(wide, got)


def _along_axis(box: Box, values: list[Finite]) -> Finite | None:
    """A function along axes: the variables of all elements along them come together."""
    if len(values) != 1:
        return None
    args, kwargs = from_template(box.spec, list(values))
    if len(args) > 2 or set(kwargs) - {"axis", "keepdims"}:
        return None
    axis = args[1] if len(args) == 2 else kwargs.get("axis", None if box.op in _REDUCE else -1)
    ndim = len(values[0].shape)
    axes = range(ndim) if axis is None else np.atleast_1d(axis).tolist()
    axes = sorted(a % ndim for a in axes)
    kept = [a for a in range(ndim) if a not in axes]
    value = transpose(values[0], [*kept, *axes])
    slots, table = gather(value, len(axes))
    k, lead = len(slots), len(slots) + len(kept)
    back = [*range(k), *(k + int(i) for i in np.argsort([*kept, *axes]))]
    flat = jnp.transpose(table, back)
    cards = flat.shape[:k]
    rows = flat.reshape((-1, *flat.shape[k:]))
    made = jax.vmap(lambda v: evaluate(box, [v])[0])(rows)
    out = made.shape[1:]
    if box.op in _ALONG or kwargs.get("keepdims"):
        shape = [1 if a in axes else n for a, n in enumerate(values[0].shape)]
    else:
        shape = list(table.shape[k:lead])
    wide = tuple(np.broadcast_to(s.reshape(shape), out) for s in slots)
    return Finite(wide, made.reshape((*cards, *out)))


def transpose(value: Finite, order: Sequence[int]) -> Finite:
    """Axes of the array permuted."""
    k = len(value.slots)
    slots = tuple(np.transpose(s, order) for s in value.slots)
    return Finite(slots, value.table.transpose(*range(k), *(k + i for i in order)))


def gather(value: Finite, n: int) -> tuple[tuple[np.ndarray, ...], Any]:
    """Slots int[*lead] and table [*cards, *lead, *last] of an array whose last n axes belong
    together: an element of ``lead`` depends on everything that they depend on."""
    ndim = len(value.shape)
    lead, last = value.shape[: ndim - n], value.shape[ndim - n :]
    size = int(np.prod(last, dtype=int))
    k = len(value.slots)
    found: dict[tuple[int, bytes], int] = {}
    slots: list[np.ndarray] = []
    cards: list[int] = []
    columns = []
    for e in range(size):
        mine = []
        for slot, card in zip(value.slots, value.cards, strict=True):
            own = np.array(slot.reshape((*lead, size))[..., e], order="C")
            if (own == NOBODY).all():
                mine.append(-1)
                continue
            key = (card, own.tobytes())
            if key not in found or found[key] in mine:
                found[key] = len(slots)
                slots.append(own)
                cards.append(card)
            mine.append(found[key])
        columns.append(mine)
    _limit(cards, int(np.prod(value.shape)))
    table = value.table.reshape((*value.cards, *lead, size))
    parts = []
    for pattern in sorted(set(map(tuple, columns))):
        at = [e for e in range(size) if tuple(columns[e]) == pattern]
        part = table[..., at] if len(at) < size else table
        used = [j for j in range(k) if pattern[j] >= 0]
        part = part[tuple(slice(None) if j in used else 0 for j in range(k))]
        order = sorted(range(len(used)), key=lambda i: pattern[used[i]])
        part = part.transpose(*order, *range(len(used), part.ndim))
        shape = [1] * len(slots)
        for j in used:
            shape[pattern[j]] = value.cards[j]
        part = part.reshape((*shape, *lead, len(at)))
        parts.append((at, jnp.broadcast_to(part, (*cards, *lead, len(at)))))
    if len(parts) == 1:
        whole = parts[0][1]
    else:
        whole = jnp.concatenate([p for _, p in parts], axis=-1)
        whole = whole[..., np.argsort(np.concatenate([at for at, _ in parts]))]
    return tuple(slots), whole.reshape((*cards, *lead, *last))


def _generic(box: Box, values: list[Finite]) -> list[Finite]:
    """Any function: evaluate it for every combination of all the variables it sees."""
    cards: dict[int, int] = {}
    for v in values:
        for slot, card in zip(v.slots, v.cards, strict=True):
            cards.update((int(i), card) for i in np.unique(slot) if i != NOBODY)
    ids = sorted(cards)
    dims = [cards[i] for i in ids]
    _limit(dims, sum(s.size for s in (*box.cod, *box.dom)))
    n = int(np.prod(dims, dtype=int))
    grid = dict(zip(ids, np.unravel_index(np.arange(n), dims), strict=True))
    given = [at_settings(v, grid, n) for v in values]
    made = jax.vmap(lambda *v: evaluate(box, list(v)))(*given)
    return [
        Finite(
            tuple(np.full(space.shape, i) for i in ids),
            jnp.asarray(m).reshape((*dims, *space.shape)),
        )
        for m, space in zip(made, box.cod, strict=True)
    ]


def at_settings(value: Finite, grid: dict[int, Any], n: int) -> Any:
    """The value for n settings of the variables: array[n, *shape]; grid: {variable: int[n]}."""
    table = jnp.asarray(value.table)
    if value.constant:
        return jnp.broadcast_to(table, (n, *value.shape))
    zeros = np.zeros(n, int)
    size = int(np.prod(value.shape, dtype=int))
    index = []
    for slot in value.slots:
        ids, inverse = np.unique(slot.reshape(-1), return_inverse=True)
        rows = jnp.stack([jnp.asarray(grid.get(int(v), zeros)) for v in ids], axis=-1)
        index.append(rows[:, inverse.ravel()])
    flat = table.reshape((*value.cards, -1))
    return flat[(*index, np.arange(size))].reshape((n, *value.shape))


def _limit(cards: Sequence[int], size: int) -> None:
    combos = math.prod(float(c) for c in cards)
    if combos * max(size, 1) > LIMIT:
        raise TooLarge(
            f"it depends on {len(cards)} finite variables at once ({combos:.2g} combinations)"
        )
