"""Summing finite variables out of factors whose values JAX traces, many alike at a time.

Which variable depends on which is fixed when a program is traced; the numbers are not. A
:class:`Batch` holds many factors of one shape, so that a thousand labels of a mixture are one
operation. Paths (hidden Markov chains, however they were written) are summed from their ends by one
``lax.scan``; everything else by rounds of variable elimination, each round a set of variables that
do not touch. What was summed is kept, for draws of the variables in reverse order.

Source: Dechter, "Bucket elimination" (1999); Rabiner, "A tutorial on hidden Markov models" (1989).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.semantics.finite import NOBODY, TooLarge

WIDEST = 2**18
"""Entries of one clique's table: the sum is taken again at every evaluation of a density."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Factors exp(``log``[..., m]) over the variables ``scope``[m].

    Attributes
    ----------
    scope : int[M, k]
        The variables of each factor, all different.
    log : float[card_1, …, card_k, M]
    """

    scope: np.ndarray
    log: Any


def batches(slots: Sequence[np.ndarray], log: Any) -> tuple[list[Batch], Any]:
    """Factors of an array's elements, ``log``: float[*cards, *shape], and what depends on nothing.

    Slots that an element does not use are cut away, and of a variable met twice the diagonal is
    taken.
    """
    k = len(slots)
    flat = log.reshape((*log.shape[:k], -1))
    if k == 0 or flat.shape[-1] == 0:
        return [], flat.sum()
    ids = np.stack([np.asarray(s).reshape(-1) for s in slots], axis=1)
    first = (ids[:, :, None] == ids[:, None, :]).argmax(axis=2)  # the first slot alike
    kinds, kind = np.unique(np.where(ids == NOBODY, -1, first), axis=0, return_inverse=True)
    kind = kind.ravel()
    out: list[Batch] = []
    rest: Any = 0.0
    for i, row in enumerate(kinds):
        at = np.flatnonzero(kind == i)
        part = flat if len(at) == flat.shape[-1] else flat[..., at]
        kept = [j for j in range(k) if row[j] == j]
        index: list[Any] = []
        for j in range(k):
            if row[j] < 0:
                index.append(0)
            else:
                place = kept.index(int(row[j]))
                size = part.shape[j]
                index.append(
                    np.arange(size).reshape([-1 if p == place else 1 for p in range(len(kept) + 1)])
                )
        index.append(np.arange(len(at)).reshape([1] * len(kept) + [-1]))
        part = part if len(kept) == k else part[tuple(index)]
        if kept:
            out.append(Batch(ids[at][:, kept], part))
        else:
            rest = rest + part.sum()
    return out, rest


def log_sum(x: Any, axis: int) -> Any:
    """log Σ exp x along an axis, with gradient zero where every term is zero."""
    top = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    total = jnp.exp(x - top).sum(axis=axis)
    positive = total > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, total, 1.0)), -jnp.inf) + jnp.squeeze(
        top, axis
    )


@dataclass(frozen=True, eq=False)
class Cliques:
    """Variables ``scope[:, 0]`` given the others, proportional to exp(``log``)."""

    scope: np.ndarray
    log: Any

    def draw(self, key: Any, state: Any) -> Any:
        """The state with the eliminated variables drawn."""
        return state.at[self.scope[:, 0]].set(
            jax.random.categorical(key, self._conditional(state), axis=0)
        )

    def log_prob(self, state: Any) -> Any:
        """log p of the eliminated variables' values given those of the others."""
        logits = jax.nn.log_softmax(self._conditional(state), axis=0)
        return logits[state[self.scope[:, 0]], np.arange(len(self.scope))].sum()

    def _conditional(self, state: Any) -> Any:
        others = tuple(state[self.scope[:, j]] for j in range(1, self.scope.shape[1]))
        return self.log[(slice(None), *others, np.arange(len(self.scope)))]


@dataclass(frozen=True, eq=False)
class Paths:
    """Chains p(v_0) Π p(v_t | v_{t−1}): unary and pairwise messages from the far end.

    Attributes
    ----------
    scope : int[L, M]
        Variables along each of M paths.
    first : float[K, M]
        log weight of v_0, everything behind it summed out.
    link : float[L − 1, K, K, M]
        log weight of v_t given v_{t−1}, everything behind it summed out.
    """

    scope: np.ndarray
    first: Any
    link: Any

    def draw(self, key: Any, state: Any) -> Any:
        """The state with all variables of the paths drawn, from the first to the last."""
        keys = jax.random.split(key, len(self.scope))
        start = jax.random.categorical(keys[0], self.first, axis=0)
        rows = np.arange(self.scope.shape[1])

        def step(v: Any, element: Any) -> Any:
            link, k = element
            new = jax.random.categorical(k, link[v, :, rows], axis=-1)
            return new, new

        rest = jax.lax.scan(step, start, (self.link, keys[1:]))[1]
        return state.at[self.scope].set(jnp.concatenate([start[None], rest]))

    def log_prob(self, state: Any) -> Any:
        """log p of the variables' values."""
        v = state[self.scope]
        t, m = np.ogrid[: len(self.scope) - 1, : self.scope.shape[1]]
        first = jax.nn.log_softmax(self.first, axis=0)[v[0], m[0]]
        link = jax.nn.log_softmax(self.link, axis=2)[t, v[:-1], v[1:], m]
        return first.sum() + link.sum()


@dataclass(frozen=True, eq=False)
class Summed:
    """log of a sum over all variables, and the conditionals that it was made of."""

    log_total: Any
    steps: tuple[Cliques | Paths, ...]
    cards: tuple[int, ...]

    def draw(self, key: Any) -> Any:
        """One joint draw: int[number of variables], positions among each one's values."""
        state = jnp.zeros(len(self.cards), int)
        for i, step in enumerate(reversed(self.steps)):
            state = step.draw(jax.random.fold_in(key, i), state)
        return state

    def log_prob(self, state: Any) -> Any:
        """log p(variables = state), normalised."""
        return sum((step.log_prob(state) for step in self.steps), jnp.zeros(()))


def sum_out(factors: Sequence[Batch], cards: Sequence[int]) -> Summed:
    """Σ over all variables of the product of ``factors``, in log space.

    Variables in no factor count as summed over too.

    Raises :class:`ppcore.semantics.finite.TooLarge` if a table would not fit.
    """
    work = _Elimination(list(factors), np.asarray(cards, int))
    work.alone()
    while work.live():
        if not work.paths():
            work.round()
    return Summed(work.total, tuple(work.steps), tuple(int(c) for c in cards))


class _Elimination:
    """The factors that are left, and what was done."""

    def __init__(self, factors: list[Batch], cards: np.ndarray):
        self.factors, self.cards = factors, cards
        self.total: Any = jnp.zeros(())
        self.steps: list[Cliques | Paths] = []

    def live(self) -> bool:
        return any(len(f.scope) for f in self.factors)

    def alone(self) -> None:
        """Sum out all variables that share no factor with another one, at once."""
        n = len(self.cards)
        shared = np.zeros(n, bool)
        for f in self.factors:
            if f.scope.shape[1] > 1:
                shared[f.scope.ravel()] = True
        for card in np.unique(self.cards[~shared]) if n else ():
            rows = np.flatnonzero(~shared & (self.cards == card))
            self._eliminate(rows[:, None], (int(card),))

    def _eliminate(self, scope: np.ndarray, cards: tuple[int, ...]) -> None:
        """Multiply what touches ``scope[:, 0]`` into tables over the scopes; sum that out.

        No two of the eliminated variables share a factor.
        """
        row_of = np.full(len(self.cards), -1)
        row_of[scope[:, 0]] = np.arange(len(scope))
        acc: Any = jnp.zeros((*cards, len(scope)), jnp.result_type(float))
        left: list[Batch] = []
        for f in self.factors:
            rows = row_of[f.scope].max(axis=1, initial=-1)
            mine = rows >= 0
            if not mine.any():
                left.append(f)
                continue
            if not mine.all():
                left.append(Batch(f.scope[~mine], f.log[..., ~mine]))
            acc = _multiply(acc, scope, f, mine, rows)
        made = log_sum(acc, axis=0)
        self.steps.append(Cliques(scope, acc))
        if scope.shape[1] == 1:
            self.total = self.total + made.sum()
        else:
            left.append(Batch(scope[:, 1:], made))
        self.factors = left

    def round(self) -> None:
        """Sum out variables that do not touch, of the cheapest kinds."""
        near: dict[int, set[int]] = {}
        for f in self.factors:
            for row in f.scope.tolist():
                for v in row:
                    near.setdefault(v, set()).update(row)
        cost = {v: float(np.prod(self.cards[list(s)].astype(float))) for v, s in near.items()}
        cheapest = min(cost.values())
        # In long structures take dearer variables too, so that rounds stay few.
        allowed = cheapest * (float(self.cards.max()) if len(near) > 32 else 1.0)
        if cheapest > WIDEST:
            raise TooLarge(
                f"summing out would take tables of {cheapest:.2g} entries and more: too many "
                "variables depend on each other at once"
            )
        blocked: set[int] = set()
        kinds: dict[tuple[int, ...], list[list[int]]] = {}
        for v in sorted(near, key=lambda u: (cost[u], u)):
            if cost[v] > allowed or cost[v] > WIDEST:
                break
            if v in blocked:
                continue
            blocked |= near[v]
            clique = [v, *sorted(near[v] - {v})]
            kinds.setdefault(tuple(int(self.cards[u]) for u in clique), []).append(clique)
        for cards, rows in kinds.items():
            self._eliminate(np.array(rows), cards)

    def paths(self) -> bool:
        """Sum out everything if what is left are paths of one length and one cardinality."""
        if any(f.scope.shape[1] > 2 for f in self.factors):
            return False
        found = [f.scope for f in self.factors if f.scope.shape[1] == 2]
        if not found:
            return False
        scope = _as_paths(np.unique(np.sort(np.concatenate(found), axis=1), axis=0))
        if scope is None or len(scope) < 8:
            return False
        inside = np.isin(np.concatenate([f.scope.ravel() for f in self.factors]), scope)
        card = self.cards[scope[0, 0]]
        if not inside.all() or (self.cards[scope] != card).any():
            return False
        length, m = scope.shape
        at = np.zeros((len(self.cards), 2), int)
        at[scope, 0], at[scope, 1] = np.ogrid[:length, :m]
        one: Any = jnp.zeros((length, m, card), jnp.result_type(float))
        two: Any = jnp.zeros((length - 1, m, card, card), jnp.result_type(float))
        for f in self.factors:
            log = jnp.moveaxis(f.log, -1, 0)
            if f.scope.shape[1] == 1:
                where = at[f.scope[:, 0]]
                one = one.at[where[:, 0], where[:, 1]].add(log)
                continue
            a, b = at[f.scope[:, 0]], at[f.scope[:, 1]]
            swap = a[:, 0] > b[:, 0]
            if swap.all():
                log = log.swapaxes(1, 2)
            elif swap.any():
                log = jnp.where(swap[:, None, None], log.swapaxes(1, 2), log)
            two = two.at[np.minimum(a[:, 0], b[:, 0]), a[:, 1]].add(log)

        def step(behind: Any, element: Any) -> Any:
            link, own = element
            full = link + (own + behind)[:, None, :]
            return log_sum(full, axis=2), full

        behind, link = jax.lax.scan(step, jnp.zeros((m, card)), (two, one[1:]), reverse=True)
        first = (one[0] + behind).T
        self.total = self.total + log_sum(first, axis=0).sum()
        self.steps.append(Paths(scope, first, jnp.moveaxis(link, 1, 3)))
        self.factors = []
        return True


def _multiply(acc: Any, scope: np.ndarray, f: Batch, mine: np.ndarray, rows: np.ndarray) -> Any:
    """``acc`` times those factors of ``f`` that are ``mine``, each into its row."""
    elements = np.flatnonzero(mine)
    where = rows[elements]
    # Position of each of the factor's variables in the clique's scope.
    places = (f.scope[elements][:, :, None] == scope[where][:, None, :]).argmax(axis=2)
    kinds, kind = np.unique(places, axis=0, return_inverse=True)
    k = scope.shape[1]
    for i, place in enumerate(kinds):
        chosen = np.flatnonzero(kind.ravel() == i)
        e, r = elements[chosen], where[chosen]
        part = f.log if len(e) == f.scope.shape[0] else f.log[..., e]
        order = np.argsort(place)
        part = part.transpose(*order, len(place))
        shape = [1] * k
        for j in order:
            shape[place[j]] = f.log.shape[j]
        part = part.reshape((*shape, len(e)))
        if len(r) == len(scope) and (r == np.arange(len(r))).all():
            acc = acc + part
        else:
            acc = acc.at[..., r].add(jnp.broadcast_to(part, (*acc.shape[:-1], len(r))))
    return acc


def _as_paths(pairs: np.ndarray) -> np.ndarray | None:
    """int[L, M]: the graph with edges ``pairs`` as M paths of one length, or None."""
    nodes, flat = np.unique(pairs, return_inverse=True)
    edges = flat.reshape(pairs.shape)
    degree = np.bincount(edges.ravel(), minlength=len(nodes))
    if degree.max() > 2:
        return None
    near = np.full((len(nodes), 2), -1)
    filled = np.zeros(len(nodes), int)
    joined: Any = edges.tolist()
    for a, b in joined:
        near[a, filled[a]] = b
        near[b, filled[b]] = a
        filled[a] += 1
        filled[b] += 1
    ends = np.flatnonzero(degree == 1)
    if not len(ends):
        return None
    paths, used = [], set()
    table = near.tolist()
    for end in ends.tolist():
        if end in used:
            continue
        path, before, here = [end], -1, end
        while True:
            after = [v for v in table[here] if v not in (before, -1)]
            if not after:
                break
            before, here = here, after[0]
            path.append(here)
        used.add(here)
        paths.append(path)
    if len({len(p) for p in paths}) != 1:
        return None
    return nodes[np.array(paths).T]
