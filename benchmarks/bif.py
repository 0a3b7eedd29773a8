"""A small reader of the Bayesian Interchange Format, enough for the classic networks."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_VARIABLE = re.compile(
    r"variable\s+(\S+)\s*\{\s*type\s+discrete\s*\[\s*\d+\s*\]\s*\{([^}]*)\}", re.S
)
_TABLE = re.compile(r"probability\s*\(\s*([^)]*?)\s*\)\s*\{(.*?)\n\}", re.S)
_ROW = re.compile(r"\(([^)]*)\)\s*([^;]*);|table\s+([^;]*);|default\s+([^;]*);", re.S)


@dataclass(frozen=True)
class Bayes:
    """A discrete Bayesian network.

    Attributes
    ----------
    states : dict of str to tuple of str
    parents : dict of str to tuple of str
        In an order in which parents come first.
    tables : dict of str to float array
        p(node | parents): one axis for each parent, then the node's; rows sum to one.
    """

    states: dict[str, tuple[str, ...]]
    parents: dict[str, tuple[str, ...]]
    tables: dict[str, np.ndarray]


def read(path: Path) -> Bayes:
    """Read a ``.bif`` or ``.bif.gz`` file.

    Raises ``ValueError`` for a file whose wiring has a cycle.
    """
    opened = gzip.open(path, "rt") if path.suffix == ".gz" else open(path)
    with opened as file:
        text = file.read()
    states = {
        name: tuple(s.strip() for s in values.split(","))
        for name, values in _VARIABLE.findall(text)
    }
    parents: dict[str, tuple[str, ...]] = {}
    tables: dict[str, np.ndarray] = {}
    for head, body in _TABLE.findall(text):
        node, _, given = (part.strip() for part in head.partition("|"))
        above = tuple(p.strip() for p in given.split(",")) if given else ()
        table = np.full([len(states[p]) for p in above] + [len(states[node])], np.nan)
        for key, row, whole, default in _ROW.findall(body):
            values = np.array([float(v) for v in (row or whole or default).split(",")])
            if key:
                at = tuple(
                    states[p].index(k.strip()) for p, k in zip(above, key.split(","), strict=True)
                )
                table[at] = values
            elif default:
                table[np.isnan(table).all(-1)] = values
            else:
                table = values.reshape(table.shape)
        parents[node] = above
        tables[node] = table / table.sum(-1, keepdims=True)
    return Bayes(states, _ordered(parents), tables)


def _ordered(parents: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    out: dict[str, tuple[str, ...]] = {}
    left = dict(parents)
    while left:
        ready = [n for n, above in left.items() if all(p in out for p in above)]
        if not ready:
            raise ValueError(f"The network has a cycle among {', '.join(sorted(left)[:5])} …")
        for n in ready:
            out[n] = left.pop(n)
    return out
