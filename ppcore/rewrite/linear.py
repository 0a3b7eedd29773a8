"""Wires read as affine functions of few random elements: value = offset + Σ coefficient · atom.

An *atom* is a wire taken as it is, whatever made it. A wire is expanded through the affine boxes
above it for as long as that makes it depend on fewer elements than it has itself: the predictor
``alpha[county] + slope * floor`` of thousands of homes becomes a gather of ``alpha`` and a product
with ``slope``. Coefficients are data, computed on the host; products with a matrix share it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ppcore import precision
from ppcore.diagram import Box, Diagram
from ppcore.recording.record import evaluate
from ppcore.recording.template import from_template
from ppcore.rewrite.protocol import Problem
from ppcore.semantics.affine import AFFINE, CONSTANT, degrees

DENSE_LIMIT = 50_000_000  # elements of a matrix of coefficients made column by column
_MOVES = frozenset(
    f"numpy.{n}"
    for n in "reshape transpose squeeze expand_dims broadcast_to repeat swapaxes moveaxis ravel "
    "tile roll flip take atleast_1d atleast_2d".split()
) | {"getitem"}
_SAME = ("deterministic", "numpy.positive")


@dataclass(frozen=True, eq=False)
class Gather:
    """coef · ravel(atom)[index]; ``index`` and ``coef`` broadcast to the form's shape."""

    atom: int
    index: np.ndarray
    coef: np.ndarray


@dataclass(frozen=True, eq=False)
class Product:
    """matrix @ ravel(atom); ``matrix``: float[*shape, elements of the atom]."""

    atom: int
    matrix: np.ndarray


@dataclass(frozen=True, eq=False)
class Linear:
    """offset + Σ terms, of a shape."""

    shape: tuple[int, ...]
    offset: np.ndarray
    terms: tuple[Gather | Product, ...]

    @property
    def atoms(self) -> tuple[int, ...]:
        """The wires it depends on, each once."""
        return tuple(dict.fromkeys(t.atom for t in self.terms))


Form = np.ndarray | Linear


class Reader:
    """Reads the forms of a problem's wires; what is data alone is computed once, on the host.

    With ``whole`` a wire is expanded even where that makes it depend on more elements than it has.
    """

    def __init__(self, problem: Problem, whole: bool = False):
        self.whole = whole
        self.diagram: Diagram = problem.diagram
        self.data = problem.data
        self.maker: list[int | None] = [None] * len(self.diagram.dom)
        self.random = [False] * len(self.diagram.dom)
        self._known: dict[int, np.ndarray] = {}
        self._forms: dict[int, Form] = {}
        for k, node in enumerate(self.diagram.nodes):
            plain = node.box.deterministic and node.box.body is None
            random = not plain or any(self.random[w] for w in node.inputs)
            self.maker.extend([k] * len(node.box.cod))
            self.random.extend([random] * len(node.box.cod))

    def port(self, wire: int) -> int:
        """Which output of its box a wire is."""
        at = wire
        while at > len(self.diagram.dom) and self.maker[at - 1] == self.maker[wire]:
            at -= 1
        return wire - at

    def known(self, wire: int) -> np.ndarray:
        """The value of a wire that data alone decide."""
        if wire not in self._known:
            if wire < len(self.data):
                self._known[wire] = np.asarray(self.data[wire])
            else:
                node = self.diagram.nodes[self.maker[wire]]  # type: ignore[index]
                with precision.scope("float64"):
                    made = evaluate(node.box, [self.known(w) for w in node.inputs])
                self._known[wire] = np.asarray(made[self.port(wire)])
        return self._known[wire]

    def form(self, wire: int) -> Form:
        """The form of a wire: its value if data decide it, else its expansion."""
        for w in self._ancestors(wire):
            self._forms[w] = self._read(w) if self.random[w] else self.known(w)
        return self._forms[wire]

    def size(self, wires: Sequence[int]) -> int:
        """How many elements the wires have together."""
        return sum(self.diagram.wires[w].size for w in wires)

    def _ancestors(self, wire: int) -> list[int]:
        """Wires whose forms are needed and not known yet, producers first."""
        found, stack = set(), [wire]
        while stack:
            w = stack.pop()
            if w in found or w in self._forms:
                continue
            found.add(w)
            k = self.maker[w]
            if k is not None and self.random[w] and self._opens(self.diagram.nodes[k].box):
                stack.extend(self.diagram.nodes[k].inputs)
        return sorted(found)

    @staticmethod
    def _opens(box: Box) -> bool:
        return box.deterministic and box.body is None and len(box.cod) == 1 and box.op != "lift"

    def _atom(self, wire: int) -> Linear:
        shape = self.diagram.wires[wire].shape
        index = np.arange(self.diagram.wires[wire].size).reshape(shape)
        return Linear(shape, np.zeros(()), (Gather(wire, index, np.ones(())),))

    def _read(self, wire: int) -> Linear:
        node = self.diagram.nodes[self.maker[wire]]  # type: ignore[index]
        space = self.diagram.wires[wire]
        if not self._opens(node.box) or np.dtype(space.dtype).kind != "f":
            return self._atom(wire)
        forms = [self._forms[w] for w in node.inputs]
        made = _combine(node.box, forms)
        if made is None:
            made = self._columns(node.box, node.inputs, forms)
        if made is None or (self.size(made.atoms) >= space.size and not self.whole):
            return self._atom(wire)
        return made

    def _columns(self, box: Box, inputs: tuple[int, ...], forms: list[Form]) -> Linear | None:
        """Any other affine box: its columns, one product with a basis vector of the atoms each."""
        import jax
        import jax.numpy as jnp

        given = [AFFINE if isinstance(f, Linear) else CONSTANT for f in forms]
        if max(degrees(box, given)[0]) != AFFINE:
            return None
        linear = [f for f in forms if isinstance(f, Linear)]
        atoms = tuple(dict.fromkeys(a for f in linear for a in f.atoms))
        shape = box.cod[0].shape
        size, out = self.size(atoms), box.cod[0].size
        largest = max(int(np.prod(f.shape, dtype=int)) for f in linear)
        if size >= out or size * max(out, largest) > DENSE_LIMIT:
            return None
        starts = dict(zip(atoms, np.cumsum([0, *(self.size([a]) for a in atoms)]), strict=False))
        with precision.scope("float64"):
            values = [jnp.asarray(f.offset if isinstance(f, Linear) else f) for f in forms]
            at = [i for i, f in enumerate(forms) if isinstance(f, Linear)]

            def run(*some: Any) -> Any:
                full = list(values)
                for i, v in zip(at, some, strict=True):
                    full[i] = v
                return evaluate(box, full)[0]

            zero = [jnp.broadcast_to(values[i], forms[i].shape) for i in at]  # type: ignore[union-attr]
            offset, push = jax.linearize(run, *zero)
            push = jax.jit(push)
            columns = np.empty((*shape, size))
            for j in range(size):
                tangents = [jnp.asarray(_column(f, starts, j)) for f in linear]
                columns[..., j] = np.asarray(push(*tangents))
        terms = []
        for a in atoms:
            part = columns[..., starts[a] : starts[a] + self.size([a])]
            terms.append(Product(a, part))
        return Linear(shape, np.asarray(offset), tuple(terms))


def _column(form: Linear, starts: dict[int, int], j: int) -> np.ndarray:
    """The derivative of a form with respect to element ``j`` of all atoms."""
    out = np.zeros(form.shape)
    for term in form.terms:
        if term.atom in starts:
            i = j - starts[term.atom]
            if isinstance(term, Gather):
                out += np.where(term.index == i, term.coef, 0.0)
            elif 0 <= i < term.matrix.shape[-1]:
                out += term.matrix[..., i]
    return out


def _combine(box: Box, forms: list[Form]) -> Linear | None:
    """The form of a box's output where its operation has a rule."""
    shape = box.cod[0].shape
    args, kwargs = from_template(box.spec, forms)
    if kwargs and box.op not in _MOVES:
        return None
    linear = [f for f in forms if isinstance(f, Linear)]
    if box.op in _SAME:
        return args[0]
    if box.op == "numpy.negative":
        return _scaled(args[0], np.asarray(-1.0), shape)
    if box.op in ("numpy.add", "numpy.subtract"):
        a, b = args
        right = _scaled(b, np.asarray(-1.0), shape) if box.op == "numpy.subtract" else b
        return _sum(a, right, shape)
    if box.op in ("numpy.multiply", "numpy.divide", "numpy.true_divide"):
        a, b = args
        if isinstance(a, Linear) and isinstance(b, Linear):
            return None
        if box.op == "numpy.multiply":
            x, c = (a, b) if isinstance(a, Linear) else (b, a)
            return _scaled(x, np.asarray(c, float), shape)
        return _scaled(a, 1.0 / np.asarray(b, float), shape) if isinstance(a, Linear) else None
    if box.op in ("numpy.matmul", "numpy.dot"):
        return _product(args[0], args[1], shape)
    if box.op in _MOVES and len(linear) == 1:
        return _moved(box, forms, linear[0])
    return None


def _scaled(form: Any, c: np.ndarray, shape: tuple[int, ...]) -> Any:
    if not isinstance(form, Linear):
        return np.asarray(form) * c

    def scale(t: Gather | Product) -> Gather | Product:
        if isinstance(t, Gather):
            return replace(t, coef=t.coef * c)
        return replace(t, matrix=t.matrix * c[..., None])

    return Linear(shape, form.offset * c, tuple(map(scale, form.terms)))


def _sum(a: Any, b: Any, shape: tuple[int, ...]) -> Linear:
    terms: list[Gather | Product] = []
    offset: Any = np.zeros(())
    for part in (a, b):
        if isinstance(part, Linear):
            terms.extend(part.terms)
            offset = offset + part.offset
        else:
            offset = offset + np.asarray(part, float)
    return Linear(shape, offset, tuple(terms))


def _product(a: Any, b: Any, shape: tuple[int, ...]) -> Linear | None:
    """Matrix times an atom, or an atom times a matrix."""
    if isinstance(b, Linear) and not isinstance(a, Linear):
        matrix, form = np.asarray(a), b
    elif isinstance(a, Linear) and not isinstance(b, Linear) and np.ndim(b) <= 2:
        matrix, form = np.asarray(b).T, a
    else:
        return None
    if len(form.shape) != 1 or matrix.ndim > 2 or not _is_atom(form):
        return None
    return Linear(shape, np.zeros(()), (Product(form.terms[0].atom, matrix),))


def _is_atom(form: Linear) -> bool:
    if len(form.terms) != 1 or not isinstance(form.terms[0], Gather) or np.any(form.offset):
        return False
    term = form.terms[0]
    size = int(np.prod(form.shape, dtype=int))
    return bool(np.all(term.coef == 1.0)) and np.array_equal(
        np.broadcast_to(term.index, form.shape).ravel(), np.arange(size)
    )


def _moved(box: Box, forms: list[Form], form: Linear) -> Linear | None:
    """A box that only moves, repeats or drops elements."""
    size = int(np.prod(form.shape, dtype=int))
    with precision.scope("float64"):
        values: list[Any] = [np.arange(size).reshape(form.shape) if f is form else f for f in forms]
        positions = np.asarray(evaluate(box, values)[0])

    def move(array: np.ndarray) -> np.ndarray:
        if np.ndim(array) == 0:
            return array
        return np.broadcast_to(array, form.shape).reshape(-1)[positions]

    terms: list[Gather | Product] = []
    for t in form.terms:
        if isinstance(t, Gather):
            terms.append(Gather(t.atom, move(t.index), move(t.coef)))
        else:
            rows = np.broadcast_to(t.matrix, (*form.shape, t.matrix.shape[-1]))
            terms.append(Product(t.atom, rows.reshape(size, -1)[positions]))
    return Linear(positions.shape, move(form.offset), tuple(terms))
