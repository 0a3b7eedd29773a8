"""In which order to sum variables out, and the tree of cliques that the order makes."""

from __future__ import annotations

import heapq
import math

from ppcore.semantics.finite import LIMIT, TooLarge

Tree = tuple[list[set[int]], list[int], list[int]]


def eliminate(scopes: tuple[tuple[int, ...], ...], cards: tuple[int, ...]) -> Tree:
    """Cliques (children before parents), each one's parent (−1 for roots), and the order.

    Two greedy rules are tried, the fewest new edges (min-fill) and the smallest clique
    (min-weight); the one whose tables are smaller in total is kept. Cliques inside a neighbour
    are merged into it.

    Source: Kjærulff, "Triangulation of graphs" (1990).

    >>> eliminate(((0, 1), (1, 2), (2, 3)), (2, 2, 2, 2))[0]
    [{0, 1}, {1, 2}, {2, 3}]

    Raises :class:`ppcore.semantics.finite.TooLarge` if the tables would need more than 1 GiB.
    """
    best: Tree | None = None
    size = math.inf
    for rule in ("weight", "fill"):
        order, cliques = _order(scopes, cards, rule)
        total = sum(_size(c, cards) for c in cliques)
        if total < size:
            best, size = _tree(order, cliques), total
    assert best is not None
    if best[0] and size > LIMIT * 8:
        raise TooLarge(
            f"summing out would take tables of {size:.2g} entries: too many variables depend on "
            "each other at once"
        )
    return best


def _size(clique: set[int], cards: tuple[int, ...]) -> float:
    out = 1.0
    for v in clique:
        out *= cards[v]
    return out


def _order(
    scopes: tuple[tuple[int, ...], ...], cards: tuple[int, ...], rule: str
) -> tuple[list[int], list[set[int]]]:
    near: dict[int, set[int]] = {}
    for scope in scopes:
        for v in scope:
            near.setdefault(v, set()).update(scope)
    for v, others in near.items():
        others.discard(v)

    def cost(v: int) -> tuple[float, float]:
        weight = cards[v] * _size(near[v], cards)
        if rule == "weight":
            return (weight, 0.0)
        mine = near[v]
        missing = sum(len(mine) - 1 - len(mine & near[u]) for u in mine)
        return (missing, weight)

    costs = {v: cost(v) for v in near}
    heap = [(c, v) for v, c in costs.items()]
    heapq.heapify(heap)
    order, cliques = [], []
    while heap:
        c, v = heapq.heappop(heap)
        if v not in near or costs[v] != c:
            continue
        mine = near.pop(v)
        order.append(v)
        cliques.append({v, *mine})
        changed = set(mine)
        for u in mine:
            new = mine - near[u]
            near[u].discard(v)
            near[u] |= mine
            near[u].discard(u)
            if rule == "fill" and len(new) > 1:
                changed |= near[u]
        for u in changed:
            fresh = cost(u)
            if fresh != costs[u]:
                costs[u] = fresh
                heapq.heappush(heap, (fresh, u))
    return order, cliques


def _tree(order: list[int], cliques: list[set[int]]) -> Tree:
    """The bucket tree with every clique that its child contains merged into that child."""
    at = {v: i for i, v in enumerate(order)}
    parent = [
        min((at[u] for u in c if u != v), default=-1) for v, c in zip(order, cliques, strict=True)
    ]
    # The clique that stands for each: itself, or a child that contains it.
    stands = list(range(len(cliques)))
    for i, p in enumerate(parent):
        if p >= 0 and stands[p] == p and len(cliques[i]) == len(cliques[p]) + 1:
            stands[p] = i

    def top(i: int) -> int:
        while stands[i] != i:
            i = stands[i]
        return i

    kept = [i for i in range(len(cliques)) if stands[i] == i]
    up = {}
    merged_from: dict[int, int] = {}
    for i in range(len(cliques)):
        merged_from[top(i)] = i  # the last of the chain that i stands for
    for i in kept:
        p = parent[merged_from[i]]
        up[i] = top(p) if p >= 0 else -1
    # Children before parents: by depth, deepest first.
    depth: dict[int, int] = {}

    def depth_of(i: int) -> int:
        chain = []
        while i >= 0 and i not in depth:
            chain.append(i)
            i = up[i]
        base = depth[i] if i >= 0 else -1
        for j in reversed(chain):
            base += 1
            depth[j] = base
        return base

    for i in kept:
        depth_of(i)
    kept.sort(key=lambda i: (-depth[i], i))
    number = {i: n for n, i in enumerate(kept)}
    return [cliques[i] for i in kept], [number[up[i]] if up[i] >= 0 else -1 for i in kept], order
