"""Standardise: coordinates in the units of priors, predictors and outcomes.

Engines start within (−2, 2) of zero in every coordinate and know no units. A site with prior
N(m, s) and constant m, s is written as m + s z where it lies far from that range or is much
narrower; a flat coefficient of a predictor column is written in units of spread(y)/rms(column).
Either is an affine change of coordinates: the posterior is the same, and the constant Σ log s of a
flat site is stated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import numpy as np

from ppcore.diagram import Box, Hole
from ppcore.recording.template import StaticArray, Structure
from ppcore.rewrite.build import Builder, Token, lifted
from ppcore.rewrite.linear import Linear, Product, Reader
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import form_of, has_labels, told
from ppcore.semantics.log_density import layout
from ppcore.space import Space

FAR, NARROW, APART = 2.0, 0.5, 3.0
PREDICTORS = ("loc", "logits", "rate", "log_rate")


@dataclass(frozen=True, eq=False)
class Unit:
    """value = shift + scale · z for one site; ``flat``: its prior is flat, so z's is too."""

    shift: np.ndarray
    scale: np.ndarray
    flat: bool


@dataclass(frozen=True)
class Standardise:
    """Write normal sites with far or narrow priors, and flat coefficients, in their own units.

    >>> Standardise().name
    'standardise'
    """

    name: ClassVar[str] = "standardise"
    summary: ClassVar[str] = "coordinates in units of priors, predictors and outcomes"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem in those coordinates, or that they are fine."""
        if has_labels(problem.diagram):
            return NotApplicable("discrete sites are summed out")
        units = _units(problem)
        if not units:
            return NotApplicable("every site is in fair units already")
        after = _rewritten(problem, units)
        where = layout(problem.diagram)
        shift, scale = np.zeros(where.dim), np.ones(where.dim)
        for site, unit in units.items():
            shift[where.slices[site]] = np.ravel(unit.shift)
            scale[where.slices[site]] = np.ravel(unit.scale)
        constant = float(sum(np.log(u.scale).sum() for u in units.values() if u.flat))
        return Rewritten(after, Affine(shift, scale), ", ".join(units), constant)


def _units(problem: Problem) -> dict[str, Unit]:
    reader = Reader(problem)
    flat = _flat_scales(problem, reader)
    found: dict[str, Unit] = {}
    wire = len(problem.diagram.dom)
    for node in problem.diagram.nodes:
        box = node.box
        if box.op == "sample" and isinstance(box.spec[0], Structure):
            said, shape = told(box), box.cod[0].shape
            if said.masks:
                pass
            elif said.family == "Normal":
                forms = [
                    form_of(reader, node.inputs, said.arguments.get(k), d)
                    for k, d in (("loc", 0.0), ("scale", 1.0))
                ]
                if all(isinstance(f, np.ndarray) for f in forms):
                    loc, scale = (np.broadcast_to(np.asarray(f, float), shape) for f in forms)
                    unit = np.minimum(scale, 1.0)
                    if (np.abs(loc) > FAR).any() or (scale < NARROW).any():
                        found[str(box.name)] = Unit(loc, unit, False)
            elif wire in flat:
                scale = flat[wire].reshape(shape)
                if (np.abs(np.log(scale)) > np.log(APART)).any():
                    found[str(box.name)] = Unit(np.zeros(shape), scale, True)
        wire += len(box.cod)
    return found


def _flat_scales(problem: Problem, reader: Reader) -> dict[int, np.ndarray]:
    """Wire of a flat real site -> spread(y)/rms of each of its predictor columns."""
    flat: set[int] = set()
    wire = len(problem.diagram.dom)
    for node in problem.diagram.nodes:
        box = node.box
        if box.op == "sample" and not box.spec[3] and box.cod[0].support.name == "real":
            flat.add(wire)
        wire += len(box.cod)
    found: dict[int, np.ndarray] = {}
    for node in problem.diagram.nodes if flat else ():
        if node.box.op != "observe":
            continue
        said = told(node.box)
        y = np.asarray(reader.form(node.inputs[-1]), float) if said.family == "Normal" else None
        spread = 1.0 if y is None else max(float(np.std(y)), 1e-300)
        for name in PREDICTORS:
            form = form_of(reader, node.inputs, said.arguments.get(name), 0.0)
            for term in form.terms if isinstance(form, Linear) else ():
                if isinstance(term, Product) and term.atom in flat:
                    matrix = term.matrix.reshape(-1, term.matrix.shape[-1])
                    size = np.sqrt(np.mean(matrix**2, axis=0))
                    found[term.atom] = spread / np.where(size > 0, size, spread)
    return found


def _rewritten(problem: Problem, units: dict[str, Unit]) -> Problem:
    builder = Builder()
    tokens = [builder.input(v, s) for v, s in zip(problem.data, problem.diagram.dom, strict=True)]
    for node in problem.diagram.nodes:
        inputs = [tokens[w] for w in node.inputs]
        unit = units.get(str(node.box.name)) if node.box.op == "sample" else None
        if unit is None:
            tokens.extend(builder.add(node.box, inputs))
        else:
            tokens.append(_scaled(builder, node.box, inputs, unit))
    return builder.finish()


def _scaled(builder: Builder, box: Box, inputs: list[Token], unit: Unit) -> Token:
    real, dtype = Space(box.cod[0].shape, box.cod[0].dtype), box.cod[0].dtype
    shift, scale = (builder.input(np.asarray(v, dtype)) for v in (unit.shift, unit.scale))
    if unit.flat:
        (z,) = builder.add(box, inputs)
    else:
        width = told(box).arguments.get("scale", 1.0)
        token = inputs[width.index] if isinstance(width, Hole) else None
        if token is None:
            array = width.array() if isinstance(width, StaticArray) else np.asarray(width)
            token = builder.input(array.astype(dtype))
        (sd,) = builder.add(lifted(ratio, [token.space, scale.space], (real,)), (token, scale))
        law = Structure("describe:dist:Normal", ("loc", "scale"), (0.0, Hole(0)))
        spec = (law, real.shape, 0, True)
        made = Box("sample", (real,), (real,), spec=spec, name=box.name, plates=box.plates)
        (z,) = builder.add(made, (sd,))
    spaces = [t.space for t in (z, shift, scale)]
    (value,) = builder.add(lifted(affine, spaces, (real,)), (z, shift, scale))
    return value


def affine(z: Any, shift: Any, scale: Any) -> Any:
    """shift + scale · z."""
    return shift + scale * z


def ratio(a: Any, b: Any) -> Any:
    """a / b, of the shape of b."""
    return a / b


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Affine:
    """x ↦ shift + scale · x."""

    shift: Any
    scale: Any
    noise_size: ClassVar[int] = 0

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.shift, self.scale), None

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: Any) -> Affine:
        return cls(*leaves)

    def __call__(self, key: Any, x: Any) -> Any:
        """float[d] -> float[d]; nothing is drawn."""
        return self.given(x, None)

    def given(self, x: Any, z: Any) -> Any:
        """The same, as recoveries that draw have it."""
        return affine(x, self.shift, self.scale)
