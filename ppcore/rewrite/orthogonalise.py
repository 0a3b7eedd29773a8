"""Coefficients of correlated columns in coordinates in which the columns are orthonormal.

For a predictor X β the coordinates u with β = T u, T = √n R⁻¹ from X = Q R, make X T = √n Q: what
the data say of u is nearly isotropic. The prior moves along, and the user sees β again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import numpy as np

from ppcore.diagram import Box, Hole, Node
from ppcore.recording.template import Structure
from ppcore.rewrite.build import Builder, Token
from ppcore.rewrite.linear import Linear, Reader
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import form_of, has_labels, told
from ppcore.semantics.log_density import layout
from ppcore.space import Space

ENOUGH = 3.0  # condition number of the scaled design from which turning it pays


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Turn:
    """β = T u for each turned site; ``places`` are static, the matrices leaves."""

    places: tuple[tuple[int, int], ...]
    matrices: tuple[Any, ...]

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.matrices,), self.places

    @classmethod
    def tree_unflatten(cls, places: Any, leaves: Any) -> Turn:
        return cls(places, leaves[0])

    def __call__(self, key: Any, x: Any) -> Any:
        """float[d] -> float[d]; nothing is drawn."""
        for (a, b), matrix in zip(self.places, self.matrices, strict=True):
            x = jax.numpy.asarray(x).at[a:b].set(matrix @ x[a:b])
        return x


@dataclass(frozen=True, eq=False)
class _Site:
    """A site to be turned: its node and wire, T, and what is known of its prior."""

    node: int
    wire: int
    matrix: np.ndarray
    loc: np.ndarray | None
    scale: np.ndarray | int | None  # a known scale, or the wire of a random one


@dataclass(frozen=True)
class Orthogonalise:
    """Sample coefficients in coordinates that make their design orthonormal.

    β = T u with √n R⁻¹ = T. A normal prior N(m, S²) becomes N(T⁻¹ m, T⁻¹ S² T⁻ᵀ), the same law of
    β; a flat one stays flat, and log |det T| is the stated constant.

    >>> Orthogonalise().name
    'orthogonalise'
    """

    name: ClassVar[str] = "orthogonalise"
    summary: ClassVar[str] = "coefficients of correlated columns get orthonormal columns"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem in those coordinates."""
        diagram = problem.diagram
        if has_labels(diagram):
            return NotApplicable("discrete sites are summed out here, observation by observation.")
        reader = Reader(problem)
        found: dict[int, _Site] = {}
        reasons: list[str] = []
        wire = len(diagram.dom)
        for k, node in enumerate(diagram.nodes):
            if node.box.op == "sample" and len(node.box.cod[0].shape) == 1:
                made = _turned(reader, k, node, wire)
                if isinstance(made, _Site):
                    found[k] = made
                elif made:
                    reasons.append(f"{node.box.name!r} {made}")
            wire += len(node.box.cod)
        if not found:
            return NotApplicable("; ".join(reasons) or "no vector of coefficients meets a matrix.")
        builder = Builder()
        pairs = zip(problem.data, diagram.dom, strict=True)
        tokens = [builder.input(value, space) for value, space in pairs]
        constant = 0.0
        for k, node in enumerate(diagram.nodes):
            given = [tokens[w] for w in node.inputs]
            if k in found:
                tokens.append(_emit(builder, node, given, tokens, found[k]))
                if found[k].loc is None:
                    constant += float(np.linalg.slogdet(found[k].matrix)[1])
            else:
                tokens.extend(builder.add(node.box, given))
        after = builder.finish()
        slices = layout(diagram).slices
        names = [str(diagram.nodes[k].box.name) for k in found]
        places = tuple((slices[n].start, slices[n].stop) for n in names)
        turn = Turn(places, tuple(s.matrix for s in found.values()))
        did = f"{', '.join(names)}: columns made orthonormal"
        return Rewritten(after, turn, did, constant)


def _turned(reader: Reader, k: int, node: Node, wire: int) -> _Site | str:
    """T for a site, or why it stays ("" if no matrix meets it)."""
    design = _design(reader, wire)
    if design is None:
        return ""
    site, p = told(node.box), node.box.cod[0].size
    if site.masks or node.box.cod[0].support.name != "real":
        return "is bounded or masked."
    n = len(design)
    if n <= p:
        return f"has more columns ({p}) than rows ({n})."
    constant = np.ptp(design, axis=0) == 0
    centred = design if constant.any() else design - design.mean(0)
    size = np.sqrt((centred**2).sum(0))
    if not (size > 0).all():
        return "has a column of zeros."
    r = np.linalg.qr(centred / size, mode="r")
    condition = float(np.linalg.cond(r))
    if condition < ENOUGH:
        return f"has nearly orthogonal columns (condition number {condition:.1f})."
    if condition > 1e12:
        return "has columns that determine each other."
    matrix = np.sqrt(n) * np.linalg.inv(r) / size[:, None]
    if site.family == "ImproperUniform":
        return _Site(k, wire, matrix, None, None)
    if site.family != "Normal":
        return f"has a {site.family} prior, which is not turned."
    loc = form_of(reader, node.inputs, site.arguments.get("loc"), 0.0)
    scale = form_of(reader, node.inputs, site.arguments.get("scale"), 1.0)
    if not isinstance(loc, np.ndarray) or scale is None:
        return "has a random prior mean."
    mean = np.broadcast_to(loc, (p,)).astype(float)
    if isinstance(scale, Linear):
        hole = site.arguments["scale"]
        if node.box.dom[hole.index].shape != ():
            return "has prior scales that are random vectors."
        return _Site(k, wire, matrix, mean, node.inputs[hole.index])
    return _Site(k, wire, matrix, mean, np.broadcast_to(scale, (p,)).astype(float))


def _design(reader: Reader, wire: int) -> np.ndarray | None:
    """The known matrices that multiply a wire, stacked."""
    found = []
    for node in reader.diagram.nodes:
        if node.box.op in ("numpy.matmul", "numpy.dot") and len(node.inputs) == 2:
            plain = node.box.spec.items[0].items == (Hole(0), Hole(1))
            matrix, vector = node.inputs
            if plain and vector == wire and not reader.random[matrix]:
                value = np.asarray(reader.known(matrix), float)
                if value.ndim == 2:
                    found.append(value)
    return np.concatenate(found) if found else None


def _emit(
    builder: Builder, node: Node, given: list[Token], tokens: list[Token], site: _Site
) -> Token:
    """The site in its new coordinates, and β computed from them."""
    box = node.box
    dtype, p = box.cod[0].dtype, box.cod[0].size
    matrix = builder.input(np.asarray(site.matrix, dtype))
    if site.loc is None:
        (u,) = builder.add(box, given)
    else:
        back = np.linalg.inv(site.matrix)
        known = site.scale if isinstance(site.scale, np.ndarray) else np.ones(p)
        # A lower triangle L with L Lᵀ = T⁻¹ S² T⁻ᵀ, without forming the product.
        root = np.asarray(np.linalg.qr((back * known).T, mode="r")).T
        root = root * np.where(np.diagonal(root) < 0, -1.0, 1.0)
        loc = builder.input(np.asarray(back @ site.loc, dtype))
        factor = builder.input(np.asarray(root, dtype))
        if isinstance(site.scale, int):
            holes = Structure("tuple", (), (Hole(0), Hole(1)))
            spec = Structure("tuple", (), (holes, Structure("dict", (), ())))
            spaces = (Space((), tokens[site.scale].space.dtype), factor.space)
            times = Box("numpy.multiply", spaces, (factor.space,), spec=spec, deterministic=True)
            (factor,) = builder.add(times, (tokens[site.scale], factor))
        keys = ("loc", "scale_tril")
        template = Structure("describe:dist:MultivariateNormal", keys, (Hole(0), Hole(1)))
        turned = replace(
            box, dom=(loc.space, factor.space), spec=(template, (), 1, True), plates=()
        )
        (u,) = builder.add(turned, (loc, factor))
    holes = Structure("tuple", (), (Hole(0), Hole(1)))
    spec = Structure("tuple", (), (holes, Structure("dict", (), ())))
    space = Space((p,), dtype)
    product = Box("numpy.matmul", (matrix.space, space), (space,), spec=spec, deterministic=True)
    return builder.add(product, (matrix, u))[0]
