"""Boxes that are alike but for the finite variable they see, computed once.

A chain that was written as a loop has a box for every step, and nothing but the name of the label
differs: a table of transitions depends on which values a label can take, not on which label it is.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box
from ppcore.semantics.finite import NOBODY, Finite, Network

SMALL = 256
"""Entries of what is compared, or put together: there is nothing to gain with large arrays."""

Slots = tuple[np.ndarray, ...]


class Alike:
    """What boxes have put out in a walk through one diagram."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, tuple[Any, ...]] = {}

    def outputs(
        self,
        box: Box,
        values: list[Finite],
        network: Network,
        compute: Callable[[], list[Finite]],
    ) -> list[Finite]:
        """``compute()``, or what a box alike has put out, of the variables seen here.

        What adds variables or equations to the network is computed each time.
        """
        pattern = _pattern(values)
        if pattern is None or any(v in network.derived for v in pattern[1]):
            return compute()
        seen, variables = pattern
        domains = tuple(network.values[v].tobytes() for v in variables)
        key = (box.op, box.spec, box.dom, box.cod, seen, domains)
        if key not in self._kept:
            before = (len(network.cards), len(network.factors))
            made = compute()
            if before == (len(network.cards), len(network.factors)):
                self._kept[key] = (made, variables, values)
            return made
        made, theirs, _ = self._kept[key]
        return [Finite(_renamed(v.slots, theirs, variables), v.table) for v in made]

    def factors(
        self, box: Box, values: list[Finite], compute: Callable[[], tuple[Slots, Any]]
    ) -> tuple[Slots, Any]:
        """As :meth:`outputs`, for slots and a table of log densities."""
        pattern = _pattern(values)
        if pattern is None:
            return compute()
        seen, variables = pattern
        key = ("factors", box.spec, box.dom, box.cod, seen)
        if key not in self._kept:
            slots, log = compute()
            self._kept[key] = (slots, log, variables, values)
            return slots, log
        slots, log, theirs, _ = self._kept[key]
        return _renamed(slots, theirs, variables), log


def _pattern(values: Sequence[Finite]) -> tuple[Hashable, list[int]] | None:
    """The values with their variables numbered as they come, and those variables; None where
    there are none, or too many."""
    if all(v.constant for v in values):
        return None
    place: dict[int, int] = {}
    parts = []
    for v in values:
        if sum(slot.size for slot in v.slots) > SMALL:
            return None
        slots = tuple(
            tuple(-1 if i == NOBODY else place.setdefault(i, len(place)) for i in slot.ravel())
            for slot in v.slots
        )
        parts.append((_identity(v.table), tuple(v.shape), slots))
    return tuple(parts), list(place)


def _identity(table: Any) -> Hashable:
    """The numbers, where they are known and few; else the array itself, which its keeper holds."""
    if isinstance(table, np.ndarray | np.generic) and table.size <= SMALL:
        return (table.dtype.str, table.shape, table.tobytes())
    return id(table)


def _renamed(slots: Slots, theirs: list[int], ours: list[int]) -> Slots:
    to = dict(zip(theirs, ours, strict=True)) | {NOBODY: NOBODY}
    return tuple(
        np.array([to[int(i)] for i in slot.ravel()], int).reshape(slot.shape) for slot in slots
    )


def together(terms: Sequence[tuple[Slots, Any]]) -> list[tuple[Slots, Any]]:
    """Small factors of one shape as one array of factors, along a new first axis of the slots."""
    groups: dict[Hashable, list[tuple[Slots, Any]]] = {}
    for i, (slots, log) in enumerate(terms):
        alone = np.size(log) > SMALL
        kind: Hashable = i if alone else (tuple(np.shape(log)), tuple(slot.shape for slot in slots))
        groups.setdefault(kind, []).append((slots, log))
    out = []
    for group in groups.values():
        if len(group) == 1:
            out.append(group[0])
            continue
        k = len(group[0][0])
        slots = tuple(np.stack([s[j] for s, _ in group]) for j in range(k))
        first = jnp.asarray(group[0][1])
        if all(log is group[0][1] for _, log in group):
            shape = (*first.shape[:k], len(group), *first.shape[k:])
            log = jnp.broadcast_to(jnp.expand_dims(first, k), shape)
        else:
            log = jnp.stack([jnp.asarray(log) for _, log in group], axis=k)
        out.append((slots, log))
    return out
