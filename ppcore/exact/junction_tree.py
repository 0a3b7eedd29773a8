"""A junction tree: all marginals of a product of finite factors, in two passes.

Cliques come from eliminating variables in a greedy order. Upwards each clique sends
m_i = Σ_{C_i∖S_i} ψ_i Π_j m_j to its parent over their separator S_i; downwards beliefs follow as
b_i = ψ_i · (Σ_{C_p∖S_i} b_p) / m_i, with 0/0 = 0. Messages are rescaled, so the evidence does not
underflow; where one clique spans more than float64 holds, the same passes run on logarithms.

Source: Lauritzen & Spiegelhalter, "Local computations with probabilities on graphical structures"
(1988), doi:10.1111/j.2517-6161.1988.tb01721.x; Jensen, Lauritzen & Olesen (1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ppcore.exact.elimination import eliminate

SPAN = 500.0  # natural logarithms that one clique may span before logarithms are used
SMALL = 1e-200


@dataclass(frozen=True, eq=False)
class Plan:
    """What depends on scopes and cardinalities only.

    Attributes
    ----------
    scopes : list of tuple
        Cliques, children before parents, variables in one common order.
    shapes : list of tuple
        Their tables' shapes.
    parent : list of int
        The clique that each sends to, or −1.
    factors : list of list of (factor, permutation, shape)
        Which factors each clique holds and how they broadcast into it.
    summed : list of tuple
        Axes of each clique that its message sums out.
    into : list of tuple
        The shape of each clique's message as its parent sees it.
    over : list of tuple
        Axes of the parent that are summed out for the clique's separator.
    back : list of tuple
        The shape of the separator as the clique sees it.
    children : list of list of int
    home : dict of int to (clique, axes)
        For each variable the smallest clique that has it, and the other axes.
    """

    scopes: list[tuple[int, ...]]
    shapes: list[tuple[int, ...]]
    parent: list[int]
    factors: list[list[tuple[int, tuple[int, ...], tuple[int, ...]]]]
    summed: list[tuple[int, ...]]
    into: list[tuple[int, ...]]
    over: list[tuple[int, ...]]
    back: list[tuple[int, ...]]
    children: list[list[int]]
    home: dict[int, tuple[int, tuple[int, ...]]]


@lru_cache(maxsize=256)
def plan(scopes: tuple[tuple[int, ...], ...], cards: tuple[int, ...]) -> Plan:
    """The tree for factors of these scopes; raises ``TooLarge`` if a clique would not fit."""
    cliques, parent, order = eliminate(scopes, cards)
    rank = {v: -i for i, v in enumerate(order)}
    ordered = [tuple(sorted(c, key=rank.__getitem__)) for c in cliques]
    sets = [set(c) for c in cliques]
    shapes = [tuple(cards[v] for v in c) for c in ordered]
    # A factor belongs to the clique of the variable of it that is eliminated first.
    first = {}
    for i, c in enumerate(ordered):
        up = sets[parent[i]] if parent[i] >= 0 else set()
        for v in c:
            if v not in up:
                first[v] = i
    held: list[list[tuple[int, tuple[int, ...], tuple[int, ...]]]] = [[] for _ in cliques]
    for f, scope in enumerate(scopes):
        last = max(scope, key=rank.__getitem__)
        i = first[last]
        perm = tuple(sorted(range(len(scope)), key=lambda a: rank[scope[a]]))
        held[i].append((f, perm, tuple(cards[v] if v in scope else 1 for v in ordered[i])))
    summed, into, over, back = [], [], [], []
    children: list[list[int]] = [[] for _ in cliques]
    for i, c in enumerate(ordered):
        p = parent[i]
        above = ordered[p] if p >= 0 else ()
        shared = sets[i] & sets[p] if p >= 0 else set()
        summed.append(tuple(a for a, v in enumerate(c) if v not in shared))
        into.append(tuple(cards[v] if v in shared else 1 for v in above))
        over.append(tuple(a for a, v in enumerate(above) if v not in shared))
        back.append(tuple(cards[v] if v in shared else 1 for v in c))
        if p >= 0:
            children[p].append(i)
    home: dict[int, tuple[int, tuple[int, ...]]] = {}
    for i in sorted(range(len(ordered)), key=lambda i: float(np.prod(shapes[i], dtype=float))):
        for a, v in enumerate(ordered[i]):
            if v not in home:
                home[v] = (i, tuple(b for b in range(len(ordered[i])) if b != a))
    return Plan(ordered, shapes, parent, held, summed, into, over, back, children, home)


class JunctionTree:
    """Calibrated beliefs of a product of factors.

    Parameters
    ----------
    scopes : sequence of tuple of int
        None empty.
    tables : sequence of float arrays
        exp(log − max), one a factor.
    spans : sequence of float
        −min of the finite entries of log − max, one a factor.
    offset : float
        Σ max: log of what was divided out.
    cards : tuple of int
        Of every variable.
    logs : sequence of float arrays
        log − max, one a factor; read only where the tables underflow.

    Attributes
    ----------
    log_total : float
        log Σ Π factors; −inf if that is zero.
    """

    def __init__(
        self,
        scopes: Sequence[tuple[int, ...]],
        tables: Sequence[np.ndarray],
        spans: Sequence[float],
        offset: float,
        cards: tuple[int, ...],
        logs: Sequence[np.ndarray],
    ):
        self.plan = plan(tuple(scopes), cards)
        self.cards = cards
        wide = any(sum(spans[f] for f, _, _ in held) > SPAN for held in self.plan.factors)
        self.in_logs = wide or not self._collect(tables)
        if self.in_logs:
            self._collect_logs(logs)
        self.log_total += offset
        self._beliefs: list[np.ndarray | None] = []

    def _collect(self, tables: Sequence[np.ndarray]) -> bool:
        """Messages upwards; False if something vanished, truly or by underflow."""
        p = self.plan
        self.log_total = 0.0
        self.potentials: list[np.ndarray] = []
        self.messages: list[np.ndarray] = []
        with np.errstate(all="ignore"):
            for i, shape in enumerate(p.shapes):
                psi = np.ones(shape)
                for f, perm, wide in p.factors[i]:
                    psi *= tables[f].transpose(perm).reshape(wide)
                for c in p.children[i]:
                    psi *= self.messages[c].reshape(p.into[c])
                message = psi.sum(p.summed[i])
                top = float(message.max())
                if not (SMALL < top < 1 / SMALL):
                    return False
                message = message / top
                if message.ndim and ((message < SMALL) & (message > 0)).any():
                    return False
                self.log_total += float(np.log(top))
                self.potentials.append(psi / top)
                self.messages.append(message)
        return True

    def _collect_logs(self, logs: Sequence[np.ndarray]) -> None:
        p = self.plan
        self.log_total = 0.0
        self.potentials, self.messages = [], []
        for i, shape in enumerate(p.shapes):
            psi = np.zeros(shape)
            for f, perm, wide in p.factors[i]:
                psi = psi + logs[f].transpose(perm).reshape(wide)
            for c in p.children[i]:
                psi = psi + self.messages[c].reshape(p.into[c])
            message = log_sum(psi, p.summed[i])
            top = float(message.max())
            if top == -np.inf:
                self.log_total = -np.inf
                return
            self.log_total += top
            self.potentials.append(psi - top)
            self.messages.append(message - top)

    def beliefs(self) -> list[np.ndarray]:
        """p(clique), normalised, one for each."""
        if not self._beliefs:
            self._distribute()
        return self._beliefs  # type: ignore[return-value]

    def _distribute(self) -> None:
        p = self.plan
        out: list[np.ndarray | None] = [None] * len(p.scopes)
        with np.errstate(all="ignore"):
            for i in range(len(p.scopes) - 1, -1, -1):
                above = out[p.parent[i]] if p.parent[i] >= 0 else np.ones(())
                assert above is not None
                sep = above.sum(p.over[i]) if p.parent[i] >= 0 else above
                if self.in_logs:
                    shift = self.messages[i].reshape(p.back[i])
                    share = np.exp(np.where(shift > -np.inf, self.potentials[i] - shift, -np.inf))
                    belief = share * sep.reshape(p.back[i])
                else:
                    m = self.messages[i]
                    ratio = np.where(m > 0, sep / m, 0.0)
                    belief = self.potentials[i] * ratio.reshape(p.back[i])
                out[i] = belief if p.parent[i] >= 0 else belief / belief.sum()
        self._beliefs = out

    def single(self, variable: int) -> np.ndarray:
        """p(variable): float[card]."""
        i, axes = self.plan.home[variable]
        found = self.beliefs()[i].sum(axes)
        return found / found.sum()  # type: ignore[no-any-return]

    def joint(self, variables: tuple[int, ...]) -> np.ndarray | None:
        """p(variables), one axis each, if some clique holds them all."""
        p = self.plan
        if any(v not in p.home for v in variables):
            return None
        if len(variables) == 1:
            return self.single(variables[0])
        want = set(variables)
        i = next((i for i, c in enumerate(p.scopes) if want <= set(c)), None)
        if i is None:
            return None
        scope = p.scopes[i]
        found = self.beliefs()[i].sum(tuple(a for a, v in enumerate(scope) if v not in want))
        kept = [v for v in scope if v in want]
        found = found.transpose([kept.index(v) for v in variables])
        return found / found.sum()  # type: ignore[no-any-return]

    def sample(self, rng: np.random.Generator, n: int) -> dict[int, np.ndarray]:
        """Joint draws, from the roots down: {variable: int[n]}."""
        p = self.plan
        drawn: dict[int, np.ndarray] = {}
        for i in range(len(p.scopes) - 1, -1, -1):
            scope, free = p.scopes[i], p.summed[i]
            if not free:
                continue
            fixed = [a for a in range(len(scope)) if a not in free]
            psi = self.potentials[i]
            psi = np.exp(psi - psi.max()) if self.in_logs else psi
            table = psi.transpose(*fixed, *free)
            k = len(fixed)
            rows = int(np.prod(table.shape[:k], dtype=int))
            flat = np.cumsum(table.reshape(rows, -1), axis=1)
            if k:
                at = np.ravel_multi_index(tuple(drawn[scope[a]] for a in fixed), table.shape[:k])
            else:
                at = np.zeros(n, int)
            state = _draw(flat, at, rng)
            parts = np.unravel_index(state, table.shape[k:])
            drawn.update({scope[a]: part for a, part in zip(free, parts, strict=True)})
        return drawn


def _draw(cumulative: np.ndarray, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One index a row of running totals, by inversion."""
    u = (1.0 - rng.random(len(rows))) * cumulative[rows, -1]
    out = np.empty(len(rows), int)
    step = max(2**22 // cumulative.shape[1], 1)
    for at in range(0, len(rows), step):
        part = slice(at, at + step)
        out[part] = (cumulative[rows[part]] < u[part, None]).sum(1)
    return out


def log_sum(log: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """log Σ exp over axes; −inf where everything is."""
    if not axes:
        return log
    top = log.max(axes, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(log - safe).sum(axes)) + safe.reshape(  # type: ignore[no-any-return]
            [n for a, n in enumerate(safe.shape) if a not in axes]
        )
