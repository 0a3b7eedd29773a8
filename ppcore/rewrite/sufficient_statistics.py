"""Normal observations with an affine predictor, collapsed to triangles of their design.

A plate y_n ~ N(o_n + Σ coefficient · atom, s c_n) becomes a factor that reads a few rows of
statistics instead of all observations (:mod:`ppcore.rewrite.arrow`); its value is the same up to
rounding. Gathers such as ``alpha[county]`` keep one row a group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ppcore.diagram import Node
from ppcore.rewrite.arrow import Arrow, normal_arrow, reduce, tail
from ppcore.rewrite.build import Builder, Token
from ppcore.rewrite.linear import Gather, Linear, Product, Reader
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import form_of, has_labels, told

ONE_HOT = 32  # a gather from fewer elements becomes columns of its own
FAMILIES = ("Normal", "LogNormal")


@dataclass(frozen=True)
class Reduced:
    """One observed site in reduced form: its statistics and the wires that they meet."""

    arrow: Arrow
    tail: np.ndarray
    scale: int | None
    own: tuple[int, ...]
    dense: tuple[int, ...]
    did: str


@dataclass(frozen=True)
class SufficientStatistics:
    """Replace normal observations by the statistics that determine their likelihood.

    The density at every point is unchanged: Σ_n log N(y_n; (Xβ)_n, s) = −½ (|Rβ − f|² + rss) / s²
    − n log s − n/2 log 2π, with R and f from a QR decomposition of (X, y) made once. A gradient
    then costs as much as the design has columns (and groups), whatever the number of observations.

    >>> SufficientStatistics().name
    'sufficient_statistics'
    """

    name: ClassVar[str] = "sufficient_statistics"
    summary: ClassVar[str] = "normal observations with affine predictors become QR statistics"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem with every such site reduced, where that is cheaper."""
        if has_labels(problem.diagram):
            return NotApplicable("discrete sites are summed out here, observation by observation.")
        reader = Reader(problem)
        found: dict[int, Reduced] = {}
        reasons = []
        for k, node in enumerate(problem.diagram.nodes):
            if node.box.op == "observe":
                made = reduced(reader, node)
                if isinstance(made, Reduced):
                    found[k] = made
                else:
                    reasons.append(f"{node.box.name!r} {made}")
        if not found:
            return NotApplicable("; ".join(reasons) or "nothing is observed outside scans.")
        builder = Builder()
        tokens = builder.copy(problem, frozenset(found))
        for k, site in found.items():
            box = problem.diagram.nodes[k].box
            _emit(builder, tokens, str(box.name), box.dom[-1].dtype, site)
        did = "; ".join(f"{problem.diagram.nodes[k].box.name}: {s.did}" for k, s in found.items())
        return Rewritten(builder.finish(), None, did)


def reduced(reader: Reader, node: Node) -> Reduced | str:
    """The statistics of an observe box, or why there are none."""
    site = told(node.box)
    if site.family not in FAMILIES:
        return f"is {site.family}, not normal."
    if site.masks:
        return "is masked."
    loc = form_of(reader, node.inputs[:-1], site.arguments.get("loc"), 0.0)
    scale = form_of(reader, node.inputs[:-1], site.arguments.get("scale"), 1.0)
    if loc is None or scale is None:
        return "has a parameter that is no single array."
    wire, factor = _scale(scale)
    if factor is None:
        return "has a scale that varies with more than one random number."
    n, shape = site.space.size, site.space.shape
    y = np.asarray(reader.known(node.inputs[-1]), float).reshape(-1)
    constant = 0.0
    if site.family == "LogNormal":
        y = np.log(y)
        constant = float(y.sum())
    c = np.broadcast_to(factor, shape).reshape(-1) if np.ndim(factor) else np.asarray(factor)
    if isinstance(loc, Linear):
        offset = (
            np.broadcast_to(loc.offset, shape).reshape(-1) if np.ndim(loc.offset) else loc.offset
        )
        y, terms = y - offset, loc.terms
    else:
        y, terms = y - np.broadcast_to(loc, shape).reshape(-1), ()
    split = _split(reader, terms, shape)
    if split is None:
        return "has several large groups, or more columns than rows."
    own, dense, groups = split
    q = reader.size(_atoms(dense))
    work = groups * len(own) * (len(own) + q) + q * q
    if work >= n * (len(own) + q) or (work > n and q + groups >= n):
        return f"has {n} rows, too few for {groups + q} coefficients."
    arrow = _reduce(reader, y, c, own, dense, groups, shape)
    log_scales = float(np.log(c).sum()) if c.ndim else n * float(np.log(c))
    rows = groups * len(own) + q
    did = f"{n} observations became {rows} rows of statistics and a sum of squares"
    own_atoms = tuple(t.atom for t in own)
    return Reduced(
        arrow, tail(arrow, n, log_scales + constant), wire, own_atoms, _atoms(dense), did
    )


def _scale(form: Any) -> tuple[int | None, np.ndarray | None]:
    """A scale as random number × known factor; the factor is None if it is something else."""
    if not isinstance(form, Linear):
        return None, np.asarray(form, float)
    term = form.terms[0]
    if len(form.terms) > 1 or np.any(form.offset) or not isinstance(term, Gather):
        return None, None
    if np.any(term.index) or not np.all(term.coef > 0):
        return None, None
    return term.atom, np.asarray(term.coef, float)


def _split(
    reader: Reader, terms: tuple[Gather | Product, ...], shape: tuple[int, ...]
) -> tuple[list[Gather], list[Gather | Product], int] | None:
    """Terms of the one large grouping, the others, and the number of groups."""
    sizes = {t.atom: reader.size([t.atom]) for t in terms}
    large = [t for t in terms if isinstance(t, Gather) and sizes[t.atom] > ONE_HOT]
    rows = int(np.prod(shape, dtype=int))
    if not large:
        return ([], list(terms), 0) if sum(sizes.values()) < rows else None
    first = max(large, key=lambda t: sizes[t.atom])
    index = np.broadcast_to(first.index, shape)
    own: list[Gather] = []
    for t in large:
        same = sizes[t.atom] == sizes[first.atom] and t.atom not in [o.atom for o in own]
        if same and np.array_equal(np.broadcast_to(t.index, shape), index):
            own.append(t)
    dense = [t for t in terms if not any(t is o for o in own)]
    if any(o.atom in _atoms(dense) for o in own) or reader.size(_atoms(dense)) > 4 * ONE_HOT:
        return None
    return own, dense, sizes[first.atom]


def _atoms(terms: list[Gather | Product]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(t.atom for t in terms))


def _reduce(
    reader: Reader,
    y: np.ndarray,
    c: np.ndarray,
    own: list[Gather],
    dense: list[Gather | Product],
    groups: int,
    shape: tuple[int, ...],
) -> Arrow:
    atoms = _atoms(dense)
    ends = np.cumsum([reader.size([a]) for a in atoms], dtype=int)
    starts = dict(zip(atoms, [0, *ends[:-1]], strict=False))
    q, n = int(ends[-1]) if atoms else 0, len(y)
    flat = [_flat(t, shape) for t in dense]

    def chunk(rows: slice) -> np.ndarray:
        out = np.zeros((rows.stop - rows.start, q + 1))
        for t in flat:
            at = starts[t.atom]
            if isinstance(t, Product):
                out[:, at : at + t.matrix.shape[-1]] += t.matrix[rows]
            else:
                index = t.index[rows] if t.index.ndim else t.index
                coef = t.coef[rows] if t.coef.ndim else t.coef
                out[np.arange(len(out)), at + index] += coef
        out[:, -1] = y[rows]
        scale = c[rows] if c.ndim else c
        out /= scale[:, None] if c.ndim else scale
        return out

    if not own:
        return reduce(n, chunk, q + 1)
    gathered = [_flat(t, shape) for t in own]
    slopes = [np.broadcast_to(np.asarray(t.coef) / c, (n,)) for t in gathered]  # type: ignore[union-attr]
    index = np.broadcast_to(gathered[0].index, (n,))  # type: ignore[union-attr]
    return reduce(n, chunk, q + 1, index, groups, slopes)


def _flat(term: Gather | Product, shape: tuple[int, ...]) -> Gather | Product:
    """A term with its rows in one axis; what is the same for all rows stays a number."""
    if isinstance(term, Product):
        matrix = np.broadcast_to(term.matrix, (*shape, term.matrix.shape[-1]))
        return Product(term.atom, matrix.reshape(-1, matrix.shape[-1]))
    parts = [
        np.broadcast_to(v, shape).reshape(-1) if np.ndim(v) else np.asarray(v)
        for v in (term.index, term.coef)
    ]
    return Gather(term.atom, *parts)


def _emit(builder: Builder, tokens: list[Token], name: str, dtype: str, site: Reduced) -> None:
    """The factor that takes a site's place."""

    def data(value: Any) -> Token:
        return builder.input(np.asarray(value, dtype))

    arrow = site.arrow
    inputs = [data(arrow.rest), data(arrow.rest_rhs), data(site.tail)]
    inputs.append(data(1.0) if site.scale is None else tokens[site.scale])
    if site.own:
        inputs += [data(arrow.own), data(arrow.cross), data(arrow.own_rhs)]
    inputs += [tokens[w] for w in (*site.own, *site.dense)]
    builder.weight(name, normal_arrow, inputs, dtype, groups=len(site.own))
