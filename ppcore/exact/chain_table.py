"""The steps of a finite chain: weights of every (state, setting of the step's sites)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.exact.protocol import NotExact
from ppcore.semantics.finite_dist import finite_values, is_delta
from ppcore.semantics.interpret import Handler, Records, interpret

STATES = 512
ENTRIES = 2**27


class Weigh(Handler):
    """Records the log probability of every site at its given value; computed sites' values."""

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        if given is None:
            while hasattr(distribution, "base_dist"):
                distribution = distribution.base_dist
            value = jnp.broadcast_to(distribution.v, box.cod[0].shape)
            return value, {"value": value}
        return given, {"log_prob": distribution.log_prob(given).sum(), "value": given}

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        return {"log_prob": distribution.log_prob(value).sum()}

    def factor(self, box: Box, log_weight: Any) -> Any:
        return {"log_prob": log_weight.sum()}

    def named(self, box: Box, value: Any) -> Any:
        return {"value": value}


def settings(diagram: Diagram, evidence: Sequence[str], solver: str) -> dict[str, np.ndarray]:
    """{latent site: array[S, *shape]}: all S joint settings of a diagram's latent sites.

    Raises :class:`NotExact` naming a site that is not finite, or if there are too many.
    """
    sites = []
    for box in diagram.boxes():
        if box.op == "scan" and box.body is not None:
            for name in box.body.named("sample"):
                if name not in evidence:
                    raise NotExact(solver, name, "it is in a scan inside the scan.")
        if box.op == "sample" and box.name not in evidence and not is_delta(box):
            values = finite_values(box.cod[0])
            if values is None:
                why = f"its values are {box.cod[0].support}, not a finite set."
                raise NotExact(solver, str(box.name), why)
            sites.append((str(box.name), box.cod[0].shape, values))
    cards = [len(v) for _, shape, v in sites for _ in range(int(np.prod(shape, dtype=int)))]
    total = int(np.prod(cards, dtype=object)) if cards else 1
    if total > STATES * STATES:
        raise NotExact(solver, sites[-1][0], f"its sites have {total:.2g} joint values.")
    codes = np.stack(np.unravel_index(np.arange(total), cards), -1) if cards else None
    out, at = {}, 0
    for name, shape, values in sites:
        assert codes is not None
        n = int(np.prod(shape, dtype=int))
        out[name] = values[codes[:, at : at + n]].reshape(total, *shape)
        at += n
    return out


@dataclass(frozen=True, eq=False)
class Table:
    """All steps of a finite chain, in the order of the walk.

    Attributes
    ----------
    states : tuple of array[C, *shape]
        Every value of the carry.
    log : float[T, C, S]
        log weight of a step's evidence and of setting s of its sites, from state c.
    following : int[T or 1, C, S]
        The next state's number.
    settings : dict of array[S, *shape]
        Values of the latent sites.
    computed : dict of array[T, C, S, *shape]
        Values of the computed sites.
    """

    states: tuple[np.ndarray, ...]
    log: Any
    following: np.ndarray
    settings: dict[str, np.ndarray]
    computed: dict[str, np.ndarray]


@partial(jax.jit, static_argnums=(0, 1))
def weigh(
    body: Diagram,
    carry: int,
    states: Sequence[Any],
    sites: dict[str, Any],
    elements: tuple[Any, Any],
    captured: Sequence[Any],
) -> tuple[Any, Any, Any]:
    """log[T, C, S], next carry [T, C, S, *shape] and computed sites of every step."""

    def one(state: Any, setting: Any, element: Any) -> Any:
        xs, evidence = element
        records: Records
        given = {**setting, **evidence}
        outs, records = interpret(body, (*state, *xs, *captured), Weigh(), given)
        log = sum((r["log_prob"] for r in records.values() if "log_prob" in r), jnp.zeros(()))
        values = {n: r["value"] for n, r in records.items() if "value" in r and n not in given}
        return log, outs[:carry], values

    over_settings = jax.vmap(one, (None, 0, None), axis_size=_count(sites))
    over_states = jax.vmap(over_settings, (0, None, None), axis_size=len(states[0]))
    if not jax.tree_util.tree_leaves(elements):
        found = over_states(states, sites, elements)
        return jax.tree_util.tree_map(lambda v: v[None], found)  # type: ignore[no-any-return]
    return jax.vmap(over_states, (None, None, 0))(states, sites, elements)  # type: ignore[no-any-return]


def _count(sites: dict[str, Any]) -> int:
    return len(next(iter(sites.values()))) if sites else 1


def tabulate(
    box: Box,
    start: Sequence[np.ndarray],
    xs: Sequence[Any],
    captured: Sequence[Any],
    evidence: Mapping[str, Any],
    solver: str,
) -> Table:
    """Enumerate a chain's states and steps.

    ``start`` holds the possible first values of each leaf of the carry, [U, *shape].

    Raises :class:`NotExact` if sites are not finite or there are too many states.
    """
    body, spec = box.body, box.spec
    assert body is not None
    sites = settings(body, tuple(evidence), solver)
    states = _unique(
        [np.concatenate([a, b]) for a, b in zip(start, _supports(box, start), strict=True)]
    )
    while True:
        c, s = len(states[0]) if states else 1, _count(sites)
        if c > STATES or c * s * spec.length > ENTRIES:
            what = f"it has {c} or more states and {s} settings a step, for {spec.length} steps"
            raise NotExact(solver, str(box), f"{what}, which is too many to tabulate.")
        kept = states or (np.zeros(1),)
        log, following, computed = weigh(
            body,
            spec.carry,
            list(kept)[: spec.carry] or [np.zeros(1)],
            sites,
            (list(xs), dict(evidence)),
            list(captured),
        )
        leaves = [_still(np.asarray(v)) for v in following]
        flat = [v.reshape(-1, *k.shape[1:]) for v, k in zip(leaves, states, strict=True)]
        grown = _unique([np.concatenate([a, b]) for a, b in zip(states, flat, strict=True)])
        if len(grown[0]) == c:
            break
        states = grown
    length = max(len(v) for v in leaves)
    wide = [np.broadcast_to(v, (length, *v.shape[1:])) for v in leaves]
    codes = _codes([v.reshape(-1, *v.shape[3:]) for v in wide], states).reshape(length, c, s)
    shape = (spec.length, c, s)
    return Table(
        tuple(states),
        jnp.broadcast_to(log, shape),
        codes,
        sites,
        {n: np.broadcast_to(v, (spec.length, *v.shape[1:])) for n, v in computed.items()},
    )


def _still(values: np.ndarray) -> np.ndarray:
    """One step's values where all steps have the same."""
    return values[:1] if (values == values[:1]).all() else values


def _supports(box: Box, start: Sequence[np.ndarray]) -> list[np.ndarray]:
    """All values of the carry if its leaves are finite scalars, one leaf at a time; else none."""
    assert box.body is not None
    leaves = box.body.cod[: box.spec.carry]
    values = [finite_values(s) if s.shape == () else None for s in leaves]
    if any(v is None for v in values) or np.prod([len(v) for v in values if v is not None]) > 512:
        return [v[:0] for v in start]
    grid: Any = np.meshgrid(*values, indexing="ij")  # type: ignore[arg-type]
    return [g.ravel().astype(v.dtype) for g, v in zip(grid, start, strict=True)]


def _flat(leaves: Sequence[np.ndarray]) -> np.ndarray:
    n = len(leaves[0])
    return np.concatenate([np.asarray(v).reshape(n, -1).astype(float) for v in leaves], axis=1)


def _unique(leaves: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    first = np.unique(_flat(leaves), axis=0, return_index=True)[1]
    return tuple(np.asarray(v)[first] for v in leaves)


def _codes(leaves: Sequence[np.ndarray], states: Sequence[np.ndarray]) -> np.ndarray:
    """The number of each value among the states."""
    table, values = _flat(states), _flat(leaves)
    if table.shape[1] == 1:
        return np.searchsorted(table[:, 0], values[:, 0])
    rows, where = np.unique(values, axis=0, return_inverse=True)
    match = (rows[:, None, :] == table[None]).all(-1).argmax(1)
    return np.asarray(match[where.ravel()])


def codes_of(leaves: Sequence[np.ndarray], table: Table) -> np.ndarray:
    """The numbers of carries given by their leaves [N, *shape]."""
    return _codes(leaves, table.states)
