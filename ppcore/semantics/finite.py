"""Values that depend on finitely many finite variables, element by element.

A :class:`Finite` array of shape S with k slots holds, for each element, the numbers of the k
variables it depends on, and its value for every setting of them. Elements of a plate so keep their
own variables: a thousand labels are a thousand variables, not one with 2^1000 values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

NOBODY = -1  # a slot that an element does not use; its table is constant along that axis
LIMIT = 2**24  # entries of one table


class TooLarge(Exception):
    """A table would not fit; ``args[0]`` says what about it."""


@dataclass(frozen=True, eq=False)
class Finite:
    """An array whose elements are functions of finite variables.

    Attributes
    ----------
    slots : tuple of int[*shape]
        For each slot the variable that each element depends on (``NOBODY`` for none).
    table : array[card_1, …, card_k, *shape]
        The elements' values.
    """

    slots: tuple[np.ndarray, ...]
    table: Any

    @property
    def cards(self) -> tuple[int, ...]:
        return self.table.shape[: len(self.slots)]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.table.shape[len(self.slots) :]

    @property
    def constant(self) -> bool:
        return not self.slots

    def variables(self) -> tuple[int, ...]:
        """All variables that some element depends on, ascending."""
        found: set[int] = set()
        for slot in self.slots:
            found.update(int(v) for v in np.unique(slot))
        return tuple(sorted(found - {NOBODY}))

    def at(self, order: Any) -> Finite:
        """The elements picked, in C order, by an array of flat positions."""
        order = np.asarray(order)
        table = self.table.reshape((*self.cards, -1))[..., order]
        return Finite(tuple(s.reshape(-1)[order] for s in self.slots), table)


def constant(value: Any) -> Finite:
    """A value that depends on nothing."""
    return Finite((), np.asarray(value))


def align(values: Sequence[Finite], shape: tuple[int, ...]) -> tuple[tuple[np.ndarray, ...], list]:
    """Common slots of values broadcast to ``shape``, and tables that broadcast together.

    Returns the slots (int[*shape]) and for each value a table of shape
    [card or 1 per common slot, *own shape padded with ones].
    """
    keys: dict[tuple[int, bytes], int] = {}
    slots: list[np.ndarray] = []
    places: list[list[int]] = []
    for value in values:
        mine = []
        for slot, card in zip(value.slots, value.cards, strict=True):
            full = np.broadcast_to(slot, shape)
            key = (card, full.tobytes())
            if key not in keys or keys[key] in mine:
                keys[key] = len(slots)
                slots.append(full)
            mine.append(keys[key])
        places.append(mine)
    tables = []
    for value, mine in zip(values, places, strict=True):
        order = np.argsort(mine)
        k, own = len(mine), value.shape
        table = value.table.transpose(*order, *range(k, k + len(own))) if k else value.table
        lead = [1] * len(slots)
        for at, card in zip(mine, value.cards, strict=True):
            lead[at] = card
        pad = (1,) * (len(shape) - len(own))
        tables.append(table.reshape((*lead, *pad, *own)))
    size = math.prod(max(t.shape[i] for t in tables) for i in range(len(slots)))
    if size * max(math.prod(shape), 1) > LIMIT:
        raise TooLarge(f"it depends on {len(slots)} finite variables at once ({size} combinations)")
    return tuple(slots), tables


def stack(values: Sequence[Finite]) -> Finite:
    """Values of one shape along a new leading axis; slots are matched by their lengths."""
    if all(v.constant for v in values):
        return constant(np.stack([v.table for v in values]))
    cards: list[int] = []
    places = []
    for v in values:
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
    shape = values[0].shape
    slots = np.full((len(cards), len(values), *shape), NOBODY)
    tables = []
    for t, (v, mine) in enumerate(zip(values, places, strict=True)):
        for at, slot in zip(mine, v.slots, strict=True):
            slots[at, t] = slot
        order = np.argsort(mine)
        k = len(mine)
        table = v.table.transpose(*order, *range(k, k + len(shape)))
        lead = [1] * len(cards)
        for at in mine:
            lead[at] = cards[at]
        tables.append(np.broadcast_to(table.reshape((*lead, *shape)), (*cards, *shape)))
    return Finite(tuple(slots), np.stack(tables, axis=len(cards)))


@dataclass(frozen=True, eq=False)
class Factor:
    """A non-negative function of some variables: exp(``log``), with one axis a variable."""

    scope: tuple[int, ...]
    log: np.ndarray


@dataclass(eq=False)
class Network:
    """Finite variables and factors: an unnormalised state, before anything is summed out.

    Attributes
    ----------
    values : list of array[card]
        What each variable can be, ascending.
    labels : list of str
        Where each comes from, for messages.
    factors : list of Factor
        Their product is the joint density of all variables.
    sites : dict of str to Finite
        Every named site as a function of the variables.
    derived : dict of int to int
        Variables that are functions of others, and the factor that says which.
    """

    values: list[np.ndarray] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    factors: list[Factor] = field(default_factory=list)
    sites: dict[str, Finite] = field(default_factory=dict)
    derived: dict[int, int] = field(default_factory=dict)

    @property
    def cards(self) -> tuple[int, ...]:
        return tuple(len(v) for v in self.values)

    def variable(self, values: np.ndarray, label: str) -> int:
        """A new variable."""
        self.values.append(values)
        self.labels.append(label)
        return len(self.values) - 1

    def fresh(self, shape: tuple[int, ...], values: np.ndarray, label: str) -> Finite:
        """One new variable for each element of an array."""
        n = int(np.prod(shape, dtype=int))
        ids = np.array([self.variable(values, label) for _ in range(n)], int).reshape(shape)
        table = np.broadcast_to(values.reshape(-1, *(1,) * len(shape)), (len(values), *shape))
        return Finite((ids,), table)

    def add(self, slots: Sequence[np.ndarray], log: np.ndarray) -> None:
        """Multiply in a factor per element: ``log`` is float[*cards, *shape].

        Elements that depend on the same variables are added up in log space, so that many
        observations of one variable do not underflow.
        """
        k = len(slots)
        cards = log.shape[:k]
        flat = np.asarray(log, float).reshape((*cards, -1))
        if k == 0:
            self.factors.append(Factor((), flat.sum()))
            return
        ids = np.stack([np.asarray(s).reshape(-1) for s in slots])
        if ids.shape[1] > 1:
            columns, inverse = np.unique(ids, axis=1, return_inverse=True)
            if columns.shape[1] < ids.shape[1]:
                order = np.argsort(inverse.ravel(), kind="stable")
                starts = np.searchsorted(inverse.ravel()[order], np.arange(columns.shape[1]))
                flat = np.add.reduceat(flat[..., order], starts, axis=-1)
                ids = columns
        for j in range(ids.shape[1]):
            self._add_one([int(v) for v in ids[:, j]], flat[..., j])

    def _add_one(self, scope: list[int], log: np.ndarray) -> None:
        """One factor, without unused slots and with the diagonal of a variable met twice."""
        for at in reversed([i for i, v in enumerate(scope) if v == NOBODY]):
            log = log.take(0, axis=at)
            del scope[at]
        at = 0
        while at < len(scope):
            twice = [i for i in range(at + 1, len(scope)) if scope[i] == scope[at]]
            if twice:
                log = np.moveaxis(np.diagonal(log, axis1=at, axis2=twice[0]), -1, at)
                del scope[twice[0]]
            else:
                at += 1
        self.factors.append(Factor(tuple(scope), log))

    def compress(self, value: Finite, label: str) -> Finite:
        """The same value as a function of one new variable an element, where that is smaller."""
        combos = int(np.prod(value.cards))
        if combos <= 64 or len(value.slots) < 2:
            return value
        values, codes = np.unique(value.table, return_inverse=True)
        if len(values) * 3 > combos * 2:
            return value
        codes = codes.reshape(value.table.shape)
        made = self.fresh(value.shape, values, label)
        k = len(value.cards)
        hit = np.expand_dims(codes, k) == np.arange(len(values)).reshape(
            -1, *(1,) * len(value.shape)
        )
        with np.errstate(divide="ignore"):
            self.add((*value.slots, made.slots[0]), np.log(hit.astype(float)))
        ids = made.slots[0].reshape(-1)
        first = len(self.factors) - len(ids)
        self.derived.update((int(v), first + i) for i, v in enumerate(ids))
        return made
