"""Coordinates in which collapsed coefficients are nearly independent, from the statistics alone.

Coefficients of correlated columns are nearly collinear. In coordinates made of the triangle of
their design every Cholesky decomposition is well conditioned, and differences are small. They are a
change of variables, so they may be rough: any basis gives the same integral.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ppcore.recording.template import from_template
from ppcore.rewrite.arrow import normal_arrow
from ppcore.rewrite.build import is_lifted
from ppcore.rewrite.collapse_walk import Sites
from ppcore.rewrite.linear import Reader
from ppcore.rewrite.protocol import Problem
from ppcore.rewrite.sites import form_of, told

STRAIGHT = 1e-9  # what may be left beside a diagonal


@dataclass(frozen=True, eq=False)
class Basis:
    """Coordinates u of the noise of dense sites, ε = shift + T u.

    Attributes
    ----------
    shift, matrix : float[p], float[p, p]
        T is ``matrix``.
    log_volume : float
        log |det T|.
    diagonal : bool
        Whether u has independent elements whatever the remaining sites are.
    """

    shift: np.ndarray
    matrix: np.ndarray
    log_volume: float
    diagonal: bool = False


def plain(p: int) -> Basis:
    """ε itself."""
    return Basis(np.zeros(p), np.eye(p), 0.0)


def coordinates(problem: Problem, sites: Sites, gone: frozenset[int]) -> Basis:
    """Coordinates in which the Gaussian integral over ε is well conditioned.

    T is the inverse triangle of the rows [R S / ŝ; I] that arrows and proper priors give, S being
    known prior scales and ŝ the residual scale of a fit; shift solves the least squares. Then
    Tᵀ(S RᵀR S / ŝ² + P) T = I, so that both parts have the same eigenvectors: where they are all
    there is (see :func:`_alone`), T is turned into them, and with any scale in the place of ŝ the
    matrix of the integral is diagonal. ``gone``: the nodes that the integral replaces.
    """
    p = len(sites.proper)
    reader = Reader(problem)
    places = {n: (a, b) for n, a, b in sites.dense}
    known = _priors(problem, reader, places)
    rows = [np.diag(np.asarray(sites.proper, float))]
    right = [np.zeros(p)]
    read = []
    for k, node in enumerate(problem.diagram.nodes):
        if is_lifted(node.box, normal_arrow):
            made = _rows(problem, reader, node, known, places, p)
            if made is not None:
                rows.append(made[0])
                right.append(made[1])
                read.append(k)
    if len(rows) == 1 or not p:
        return plain(p)
    stacked = np.concatenate(rows)
    missing = ~np.any(stacked, axis=0)
    stacked = np.concatenate([stacked, np.diag(missing.astype(float))])
    rhs = np.concatenate([*right, np.zeros(p)])
    q, r = np.linalg.qr(stacked)
    size = np.abs(np.diagonal(r))
    if not np.isfinite(r).all() or size.min() <= 1e-13 * np.sqrt((stacked**2).sum(0)).max():
        return plain(p)
    basis = np.linalg.inv(r)
    shift, log_volume = basis @ (q.T @ rhs), float(-np.log(size).sum())
    if missing.any() or not _alone(problem, reader, sites, gone, read):
        return Basis(shift, basis, log_volume)
    prior = rows[0] @ basis
    turned = basis @ np.linalg.eigh(prior.T @ prior)[1]
    straight = all(_is_diagonal(part @ turned) for part in rows)
    return Basis(shift, turned if straight else basis, log_volume, straight)


def _is_diagonal(rows: np.ndarray) -> bool:
    """Whether rowsᵀ rows is, next to the identity that all parts add up to."""
    matrix = rows.T @ rows
    return bool(np.abs(matrix - np.diag(np.diagonal(matrix))).max() < STRAIGHT)


def _alone(
    problem: Problem, reader: Reader, sites: Sites, gone: frozenset[int], read: list[int]
) -> bool:
    """Whether known priors and one arrow that reads the sites themselves are all that goes.

    ``read``: the arrows whose rows are known. That one must be all of them, without groups, whose
    rows are not among those: what was not read may have any eigenvectors.
    """
    diagram = problem.diagram
    starts = np.cumsum([len(diagram.dom), *(len(n.box.cod) for n in diagram.nodes)])
    nodes = [(k, int(starts[k]), diagram.nodes[k]) for k in sorted(gone)]
    own = {wire for _, wire, node in nodes if node.box.op == "sample"}
    inside = {w + port for _, w, node in nodes for port in range(len(node.box.cod))}
    arrows = []
    for k, _, node in nodes:
        box = node.box
        if box.op == "sample":
            site = told(box)
            known = [
                isinstance(form_of(reader, node.inputs, site.arguments.get(name), d), np.ndarray)
                for name, d in (("loc", 0.0), ("scale", 1.0))
            ]
            if site.family != "ImproperUniform" and not (site.family == "Normal" and all(known)):
                return False
        elif is_lifted(box, normal_arrow):
            arrows.append(k)
            groups = from_template(box.spec[1], list(node.inputs))[1]["groups"]
            if groups or not inside.intersection(node.inputs) <= own:
                return False
        elif box.op != "factor":
            return False
    return len(arrows) == 1 and arrows == read and not sites.groups


def _priors(problem: Problem, reader: Reader, places: Any) -> dict[int, tuple[str, Any, Any]]:
    """{wire of a dense site: its name, and the location and scale that ε has there, if known}."""
    found: dict[int, tuple[str, Any, Any]] = {}
    wire = len(problem.diagram.dom)
    for node in problem.diagram.nodes:
        name = str(node.box.name)
        if node.box.op == "sample" and name in places:
            site, size = told(node.box), node.box.cod[0].size
            loc: Any = np.zeros(size)
            scale: Any = np.ones(size)
            if site.family == "Normal":
                loc = _values(reader, node.inputs, site.arguments.get("loc"), 0.0, node.box)
                scale = _values(reader, node.inputs, site.arguments.get("scale"), 1.0, node.box)
            found[wire] = (name, loc, scale)
        wire += len(node.box.cod)
    return found


def _values(reader: Reader, inputs: Any, template: Any, default: float, box: Any) -> np.ndarray:
    """A known parameter, flattened over the site; the default where it is random."""
    form = form_of(reader, inputs, template, default)
    if not isinstance(form, np.ndarray):
        form = np.asarray(default)
    return np.broadcast_to(form, box.cod[0].shape).reshape(-1)


def _rows(
    problem: Problem, reader: Reader, node: Any, known: Any, places: Any, p: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """The shared rows of one arrow in terms of ε, divided by its residual scale."""
    _, keywords = from_template(node.box.spec[1], list(node.inputs))
    groups = keywords["groups"]
    rest, rhs, tail = (np.asarray(reader.known(w), float) for w in node.inputs[:3])
    out, right, at = np.zeros((len(rhs), p)), rhs.copy(), 0
    for w in node.inputs[(7 if groups else 4) + groups :]:
        size = problem.diagram.wires[w].size
        if w in known:
            name, loc, scale = known[w]
            a, b = places[name]
            block = rest[:, at : at + size]
            out[:, a:b] += block * scale
            right -= block @ loc
        at += size
    spread = float(np.sqrt(tail[0] / max(tail[1], 1.0)))
    return (out / spread, right / spread) if spread > 0 else None
