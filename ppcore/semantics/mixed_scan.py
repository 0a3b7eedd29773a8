"""Scans whose carry is finite: the steps' factors, all steps of a site in one array.

The numbers of all steps come from one ``lax.scan`` over the continuous part of the carry, or from
one ``vmap`` where there is none. A step's own variables are renumbered for every step, the carry
that enters being what left the step before; the sum over them is left to
:mod:`ppcore.semantics.sum_product`, which is linear in the length of a chain.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box
from ppcore.semantics.finite import NOBODY, Finite, Network
from ppcore.semantics.mixed import Mixed, NotSummable, Term, walk
from ppcore.semantics.mixed_ops import known, plain

_ROUNDS = 64


@dataclass(eq=False)
class Step:
    """The structure of one step: everything but the traced numbers."""

    mixed: Mixed
    entering: dict[int, np.ndarray]
    elements: dict[int, tuple[np.ndarray, ...]]
    leaving: list[Finite]


def scan(box: Box, values: list[Finite], z: Mapping[str, Any], out: Mixed) -> list[Finite]:
    """Add a scan's factors for all steps; returns its outputs."""
    spec, body = box.spec, box.body
    assert body is not None
    k, n = spec.carry, spec.carry + spec.xs
    inside = {b.name for b in body.boxes()}
    given = {name: v for name, v in z.items() if name in inside}
    domains = _domains(box, values, given, out)
    smooth = [i for i in range(k) if i not in domains]
    found: list[Step] = []

    def step(carry: list[Any], element: Any) -> Any:
        made = _step(box, values, domains, dict(zip(smooth, carry, strict=True)), element, out)
        made.leaving[:k] = [
            _settle(made.mixed, v, domains[i], str(box)) if i in domains else v
            for i, v in enumerate(made.leaving[:k])
        ]
        made.mixed.terms.extend(made.mixed.equations())
        found.append(made)
        return [made.leaving[i].table for i in smooth], _numbers(made, k)

    xs = [_leading(v) for v in values[k:n]]
    if smooth:
        start = [jnp.asarray(values[i].table) for i in smooth]
        final, numbers = jax.lax.scan(
            step, start, (xs, given), length=spec.length, reverse=spec.reverse
        )
    else:
        final = []
        numbers = jax.vmap(lambda e: step([], e)[1], axis_size=spec.length)((xs, given))
    made = found[-1]
    number = _number(box, values, domains, made, out)
    _record(made, numbers, number, out)
    ends = dict(zip(smooth, final, strict=True))
    last = {i: _last(box, made.leaving[i], number) for i in domains}
    outs = [
        _of_variables(last[i], domains[i]) if i in domains else plain(ends[i]) for i in range(k)
    ]
    stacked = [
        number.spread(v, t) for v, t in zip(made.leaving[k:], numbers["leaving"], strict=True)
    ]
    return [*outs, *stacked]


def _step(
    box: Box,
    values: list[Finite],
    domains: Mapping[int, np.ndarray],
    smooth: Mapping[int, Any],
    element: Any,
    out: Mixed,
) -> Step:
    """Walk the body once; its own variables are numbered behind those of the outer diagram."""
    assert box.body is not None
    k, n = box.spec.carry, box.spec.carry + box.spec.xs
    xs, given = element
    net = Network(list(out.net.values), list(out.net.labels))
    inner = Mixed(net)
    entering, elements = {}, {}
    wires: list[Finite] = []
    for i in range(k):
        if i in domains:
            wires.append(net.fresh(values[i].shape, domains[i], f"carry of {box}"))
            entering[i] = wires[-1].slots[0]
        else:
            wires.append(plain(smooth[i]))
    for i, x in zip(range(k, n), xs, strict=True):
        slots = []
        for slot, card in zip(values[i].slots, values[i].cards, strict=True):
            slots.append(net.fresh(slot.shape[1:], np.arange(card), f"input of {box}").slots[0])
        elements[i] = tuple(slots)
        same = known(values[i]) and not values[i].constant and _alike(values[i])
        at = (slice(None),) * len(slots) + (0,)
        wires.append(Finite(tuple(slots), values[i].table[at] if same else x))
    wires.extend(values[n:])
    leaving = walk(box.body, wires, given, inner)
    return Step(inner, entering, elements, leaving)


def _leading(value: Finite) -> Any:
    """A stacked input's numbers with the steps first: [T, *cards, *shape]."""
    return jnp.moveaxis(jnp.asarray(value.table), len(value.slots), 0)


def _alike(value: Finite) -> bool:
    first = np.take(value.table, [0], axis=len(value.slots))
    return bool((value.table == first).all())


def _domains(
    box: Box, values: list[Finite], z: Mapping[str, Any], out: Mixed
) -> dict[int, np.ndarray]:
    """Which leaves of the carry depend on finite variables, and what their elements can be."""
    spec = box.spec
    k, n = spec.carry, spec.carry + spec.xs
    domains = {i: _known_values(box, i, values[i]) for i in range(k) if not values[i].constant}
    for _ in range(_ROUNDS):
        seen: list[Step] = []

        def run(smooth: Any, element: Any, found: list[Step] = seen) -> Any:
            found.append(_step(box, values, domains, smooth, element, out))
            return 0

        smooth = {i: _shape(values[i].table) for i in range(k) if i not in domains}
        xs = [_shape(_element(v)) for v in values[k:n]]
        jax.eval_shape(run, smooth, (xs, {m: _shape(v[0]) for m, v in z.items()}))
        before = {i: set(d.tolist()) for i, d in domains.items()}
        for i, v in enumerate(seen[0].leaving[:k]):
            if v.constant and i not in domains:
                continue
            parts = [_known_values(box, i, v), _known_values(box, i, values[i])]
            domains[i] = np.unique(np.concatenate([domains.get(i, parts[0]), *parts]))
        if before == {i: set(d.tolist()) for i, d in domains.items()}:
            return domains
    raise NotSummable(
        str(box), f"is a scan whose carry still takes new values after {_ROUNDS} steps."
    )


def _element(value: Finite) -> Any:
    return value.table[(slice(None),) * len(value.slots) + (0,)]


def _shape(value: Any) -> Any:
    return jax.ShapeDtypeStruct(np.shape(value), jnp.result_type(value))


def _known_values(box: Box, leaf: int, value: Finite) -> np.ndarray:
    if known(value):
        return np.unique(value.table)
    raise NotSummable(
        str(box),
        f"is a scan whose carry (leaf {leaf}) is a number that depends on a discrete latent and "
        "on others: only finite values known beforehand can be carried and summed out. Carry the "
        "discrete site itself and look the number up inside the step.",
    )


def _settle(mixed: Mixed, value: Finite, domain: np.ndarray, label: str) -> Finite:
    """The variables that a value is, or new ones equal to it."""
    if len(value.slots) == 1 and (value.slots[0] != NOBODY).all():
        ids = value.slots[0]
        expected = domain.reshape(-1, *(1,) * ids.ndim)
        own = all(np.array_equal(mixed.net.values[v], domain) for v in np.unique(ids))
        if own and len(value.table) == len(domain) and (value.table == expected).all():
            return value
    return mixed.pin(value, domain, label)


def _numbers(step: Step, k: int) -> dict[str, Any]:
    """What is traced in a step, and differs from one to the next."""
    return {
        "terms": [jnp.asarray(t.log) for t in step.mixed.terms],
        "own": dict(step.mixed.own),
        "sites": {n: None if known(v) else v.table for n, v in step.mixed.sites.items()},
        "leaving": [None if known(v) else v.table for v in step.leaving[k:]],
    }


@dataclass(frozen=True, eq=False)
class _Numbering:
    """Which outer variable a step's own one is: ``ids``: int[T, number of own variables]."""

    base: int
    ids: np.ndarray

    def slots(self, slots: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Slots of one step -> slots of all, [T, *shape]."""
        length = len(self.ids)
        out = []
        for s in slots:
            own = s >= self.base
            if self.ids.shape[1]:
                mine = self.ids[:, np.where(own, s - self.base, 0)]
            else:
                mine = np.zeros((length, *s.shape), int)
            out.append(np.where(own, mine, s))
        return tuple(out)

    def spread(self, value: Finite, stacked: Any) -> Finite:
        """A step's value as that of all steps, with a leading axis."""
        k, length = len(value.slots), len(self.ids)
        if stacked is not None:
            return Finite(self.slots(value.slots), jnp.moveaxis(stacked, 0, k))
        table = np.expand_dims(value.table, k)
        shape = (*value.cards, length, *value.shape)
        return Finite(self.slots(value.slots), np.broadcast_to(table, shape))


def _number(
    box: Box, values: list[Finite], domains: Mapping[int, np.ndarray], step: Step, out: Mixed
) -> _Numbering:
    """Number every step's variables; chain the carry."""
    length, base = box.spec.length, len(out.net.values)
    net = step.mixed.net
    ids = np.full((length, len(net.values) - base), NOBODY)
    for i, slots in step.elements.items():
        for outer, local in zip(values[i].slots, slots, strict=True):
            ids[:, local.reshape(-1) - base] = outer.reshape(length, -1)
    taken = [s.reshape(-1) for s in step.entering.values()]
    taken += [s.reshape(-1) for slots in step.elements.values() for s in slots]
    borrowed = set(np.concatenate(taken).tolist()) if taken else set()
    # The start of the chain: variables of the outer diagram, or new ones equal to a constant.
    starts = {i: _settle(out, values[i], domains[i], f"start of {box}").slots[0] for i in domains}
    for v in range(base, len(net.values)):
        if v not in borrowed:
            first = len(out.net.values)
            out.net.values.extend([net.values[v]] * length)
            out.net.labels.extend([net.labels[v]] * length)
            ids[:, v - base] = np.arange(first, first + length)
    if domains:
        enter = np.concatenate([step.entering[i].reshape(-1) for i in domains]) - base
        leave = np.concatenate([step.leaving[i].slots[0].reshape(-1) for i in domains])
        now = np.concatenate([starts[i].reshape(-1) for i in domains])
        own = leave >= base
        for row in ids[::-1] if box.spec.reverse else ids:
            row[enter] = now
            now = np.where(own, row[np.where(own, leave - base, 0)], leave)
    return _Numbering(base, ids)


def _last(box: Box, leaving: Finite, number: _Numbering) -> np.ndarray:
    return number.slots(leaving.slots)[0][0 if box.spec.reverse else -1]


def _of_variables(ids: np.ndarray, domain: np.ndarray) -> Finite:
    table = np.broadcast_to(domain.reshape(-1, *(1,) * ids.ndim), (len(domain), *ids.shape))
    return Finite((ids,), table)


def _record(step: Step, numbers: dict[str, Any], number: _Numbering, out: Mixed) -> None:
    """All steps' factors, log weights and sites."""
    for term, log in zip(step.mixed.terms, numbers["terms"], strict=True):
        k = len(term.slots)
        slots = number.slots(term.slots)
        out.terms.append(Term(term.kind, slots, jnp.moveaxis(log, 0, k), term.name))
    for name, log in numbers["own"].items():
        out.own[name] = log.sum()
    out.latents |= step.mixed.latents
    for name, value in step.mixed.sites.items():
        out.sites[name] = number.spread(copy(value), numbers["sites"][name])
