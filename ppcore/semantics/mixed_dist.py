"""Log densities of sample and observe boxes whose parameters depend on finite variables."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box, Hole
from ppcore.dist import lookup
from ppcore.recording.template import Structure
from ppcore.semantics.finite import LIMIT, Finite, TooLarge
from ppcore.semantics.interpret import distribution_of
from ppcore.semantics.log_density import supported_log_prob
from ppcore.semantics.mixed_ops import gather

_WHOLE = 99  # more axes than any parameter has: all of them belong together
Slots = tuple[np.ndarray, ...]


def elementwise(box: Box) -> Box:
    """A sample or observe box with ``to_event`` undone: what it sums are independent elements."""
    template, batch, event_ndim, proper = box.spec
    shape = (box.cod[0] if box.op == "sample" else box.dom[-1]).shape
    while template.kind == "describe:method:to_event":
        template, n = template.items
        batch, event_ndim = shape[: len(batch) + int(n)], event_ndim - int(n)
    return replace(box, spec=(template, batch, event_ndim, proper))


def log_prob(box: Box, parameters: list[Finite], value: Any, all_values: bool) -> tuple[Slots, Any]:
    """Slots int[*batch] and log p(value): float[*cards, *batch].

    With ``all_values``, ``value`` is array[K], what an element can be, and the log density of each
    is float[*cards, K, *batch].
    """

    def one(given: list[Any]) -> Any:
        d = distribution_of(box, given)
        if not all_values:
            return supported_log_prob(box, d, value) if box.op == "observe" else d.log_prob(value)
        full = jnp.asarray(value).reshape(-1, *(1,) * len(d.batch_shape))
        return d.log_prob(jnp.broadcast_to(full, (len(value), *d.batch_shape)))

    if all(p.constant for p in parameters):
        return (), one([p.table for p in parameters])
    slots, cards, tables = _settings(box, parameters)
    mapped = [i for i, p in enumerate(parameters) if not p.constant]

    def run(*some: Any) -> Any:
        given = [p.table for p in parameters]
        for i, v in zip(mapped, some, strict=True):
            given[i] = v
        return one(given)

    log = jax.vmap(run)(*(tables[i] for i in mapped))
    return slots, log.reshape((*cards, *log.shape[1:]))


def _settings(box: Box, parameters: list[Finite]) -> tuple[Slots, tuple[int, ...], list[Any]]:
    """Common slots over the batch, and each parameter for all their settings: [S, *shape]."""
    batch = tuple(box.spec[1])
    last: dict[int, int] = {}
    _event_axes(box.spec[0], 0, last)
    found: dict[tuple[int, bytes], int] = {}
    slots: list[np.ndarray] = []
    cards: list[int] = []
    parts: list[tuple[list[int], Any] | None] = []
    for i, p in enumerate(parameters):
        if p.constant:
            parts.append(None)
            continue
        own, table = gather(p, min(last.get(i, _WHOLE), len(p.shape)))
        mine = []
        for slot, card in zip(own, table.shape, strict=False):
            full = np.broadcast_to(slot, batch)
            key = (card, full.tobytes())
            if key not in found or found[key] in mine:
                found[key] = len(slots)
                slots.append(full)
                cards.append(card)
            mine.append(found[key])
        parts.append((mine, table))
    n = math.prod(float(c) for c in cards)
    if n * max(int(np.prod(batch)), *(p.table.size for p in parameters)) > LIMIT:
        raise TooLarge(
            f"its parameters depend on {len(cards)} finite variables at once ({n:.2g} combinations)"
        )
    out: list[Any] = []
    for p, part in zip(parameters, parts, strict=True):
        if part is None:
            out.append(None)
            continue
        mine, table = part
        k = len(mine)
        table = table.transpose(*np.argsort(mine), *range(k, table.ndim))
        shape = [1] * len(cards)
        for at in mine:
            shape[at] = cards[at]
        table = jnp.asarray(table).reshape((*shape, *p.shape))
        table = jnp.broadcast_to(table, (*cards, *p.shape))
        out.append(table.reshape((-1, *p.shape)))
    return tuple(slots), tuple(cards), out


def _event_axes(template: Any, extra: int, out: dict[int, int]) -> None:
    """How many last axes of each parameter belong to one element of the batch."""
    if isinstance(template, Hole):
        out[template.index] = max(out.get(template.index, 0), extra)
        return
    if not isinstance(template, Structure):
        return
    kind = template.kind
    if kind == "describe:method:to_event":
        _event_axes(template.items[0], extra + int(template.items[1]), out)
    elif kind.startswith("describe:method:"):
        for item in template.items:
            _event_axes(item, extra, out)
    elif kind.startswith("describe:dist:"):
        name = kind.rsplit(":", 1)[-1]
        for key, item in zip(template.keys, template.items, strict=True):
            _event_axes(item, extra + _own_axes(name, key), out)
    elif kind == "list":
        for item in template.items:
            _event_axes(item, extra, out)
    else:
        for item in template.items:
            _event_axes(item, _WHOLE, out)


def _own_axes(name: str, argument: str) -> int:
    if argument in ("mixing_distribution", "base_distribution", "base_dist", "component_dist"):
        return 0
    if argument in ("component_distribution",):
        return 1
    if argument in ("component_distributions",):
        return 0
    constraints = getattr(lookup("dist", name), "arg_constraints", None)
    if constraints is None:  # a function such as Categorical(probs, logits)
        whole = name.startswith(("Categorical", "Multinomial"))
        return int(whole and argument in ("probs", "logits"))
    if argument in constraints:
        return int(constraints[argument].event_dim)
    return _WHOLE
