"""An unbiased estimate of a model's log density from some elements of a plate.

The elements of a plate are independent given what is outside it, so that log γ is a sum over them:
log γ(x) = a(x) + Σ_{i=1}^N ℓ_i(x). For n elements S, each uniform, a(x) + (N/n) Σ_{i∈S} ℓ_i(x) has
mean log γ(x), and its gradient has mean ∇ log γ(x).

Only the elements drawn are computed: ``take(wire, S)`` is moved up through the array functions
that it commutes with, to data and latent values. Where it does not commute, the wire is computed
whole and then taken from, which costs time and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ppcore.diagram import Box, Diagram, Hole, Plate
from ppcore.dist import build
from ppcore.errors import UnsupportedError, did_you_mean
from ppcore.recording.record import evaluate
from ppcore.recording.template import StaticArray, Structure, from_template
from ppcore.semantics.finite_ops import numpy_function
from ppcore.semantics.interpret import distribution_of, interpret
from ppcore.semantics.log_density import LogDensity, bijection, layout, supported_log_prob

_ELEMENTWISE = frozenset(
    "astype deterministic numpy.where numpy.clip numpy.round jax.nn.relu jax.nn.softplus "
    "jax.nn.sigmoid".split()
)
_REDUCE = frozenset(f"numpy.{n}" for n in "sum prod max min mean any all var std".split()) | {
    "scipy.special.logsumexp"
}


@lru_cache(maxsize=256)
def plates(diagram: Diagram) -> dict[str, tuple[Plate, bool]]:
    """{name: (plate, whether it holds evidence)} of a conditioned diagram, outside scans."""
    found: dict[str, tuple[Plate, bool]] = {}
    for node in diagram.nodes:
        for plate in node.box.plates if node.box.body is None else ():
            known = found.get(plate.name, (plate, False))[1]
            found[plate.name] = (plate, known or node.box.op == "observe")
    return found


def plate_named(diagram: Diagram, name: str) -> Plate:
    """The plate of that name.

    Raises :class:`ppcore.errors.UnsupportedError` if there is none outside scans.
    """
    known = plates(diagram)
    if name not in known:
        there = did_you_mean(name, known) if known else "The model has no plate."
        raise UnsupportedError(f"No plate {name!r} can be taken in minibatches. {there}")
    return known[name][0]


def estimate(
    diagram: Diagram, inputs: tuple[Any, ...], plate: Plate, index: Any, x: Any
) -> tuple[Any, Any]:
    """Unbiased estimates of (log prior, log likelihood) at x: float[d], from elements ``index``.

    Parameters
    ----------
    diagram : Diagram
        Conditioned on the evidence.
    inputs : tuple of arrays
        Data and evidence.
    plate : Plate
        One of :func:`plates`.
    index : int[n]
        Elements of the plate, each drawn uniformly.
    x : float[d]
        Unconstrained.
    """
    import jax.numpy as jnp

    batch = _Batch(diagram, inputs, plate, index, x)
    prior = likelihood = jnp.zeros((), x.dtype)
    for node in diagram.nodes:
        box = node.box
        if box.op == "sample":
            prior = prior + batch.term(node)
        elif box.op in ("observe", "factor"):
            likelihood = likelihood + batch.term(node)
        elif box.body is not None:
            for name in box.body.named("sample"):
                prior = prior + batch.records[name]["log_prob"].sum()
            for name in (*box.body.named("observe"), *box.body.named("factor")):
                likelihood = likelihood + batch.records[name]["log_prob"].sum()
    return prior, likelihood


@dataclass
class _Batch:
    """One evaluation: whole wires (compiled away where unused), and wires taken at ``index``."""

    diagram: Diagram
    inputs: tuple[Any, ...]
    plate: Plate
    index: Any
    x: Any

    def __post_init__(self) -> None:
        d = self.diagram
        self.z = layout(d).split(self.x)
        every = Diagram(d.dom, d.nodes, tuple(range(len(d.wires))))
        self.whole, self.records = interpret(every, self.inputs, LogDensity(), self.z)
        self.maker: dict[int, Any] = {}
        at = len(d.dom)
        for node in d.nodes:
            for _ in node.box.cod:
                self.maker[at] = node
                at += 1
        self.taken: dict[tuple[int, int], Any] = {}

    @property
    def scale(self) -> float:
        return self.plate.size / int(self.index.shape[0])

    def shape(self, wire: int) -> tuple[int, ...]:
        return self.diagram.wires[wire].shape

    def spans(self, wire: int, axis: int) -> bool:
        """Whether the wire has the plate's elements along its (negative) ``axis``."""
        shape = self.shape(wire)
        return -axis <= len(shape) and shape[axis] == self.plate.size

    def whole_or_taken(self, wire: int, axis: int) -> Any:
        """The wire, taken at ``index`` where it spans the plate and whole where it broadcasts."""
        return self.take(wire, axis) if self.spans(wire, axis) else self.whole[wire]

    def take(self, wire: int, axis: int) -> Any:
        """``take(wire, index, axis)``, computed from no more elements than it must be."""
        import jax.numpy as jnp

        if (wire, axis) not in self.taken:
            node = self.maker.get(wire)
            found = None
            if node is not None and node.box.deterministic and node.box.body is None:
                found = self._pushed(node, axis)
            if found is None and node is not None and self._inside(node.box):
                found = self._latent(node, axis)
            if found is None:
                found = jnp.take(jnp.asarray(self.whole[wire]), self.index, axis=axis)
            self.taken[wire, axis] = found
        return self.taken[wire, axis]

    def _inside(self, box: Box) -> bool:
        return self.plate in box.plates

    # Sites.

    def term(self, node: Any) -> Any:
        """A site's part of the log density, or its estimate where the site is in the plate."""
        import jax.numpy as jnp

        box = node.box
        if not self._inside(box):
            return jnp.sum(self.records[str(box.name)]["log_prob"])
        if box.op == "factor":
            wire = node.inputs[0]
            if not self.spans(wire, self.plate.axis):
                return jnp.sum(self.records[str(box.name)]["log_prob"])
            return self.scale * jnp.sum(self.take(wire, self.plate.axis))
        parameters = node.inputs if box.op == "sample" else node.inputs[:-1]
        d = self._distribution(box, parameters)
        event = box.spec[2]
        if d is None:
            return self.scale * self._whole_term(node, parameters)
        if box.op == "sample":
            t = bijection(d)
            z = self._z(box)
            value = t(z)
            return self.scale * (d.log_prob(value).sum() + t.log_abs_det_jacobian(z, value).sum())
        value = self.whole_or_taken(node.inputs[-1], self.plate.axis - event)
        return self.scale * supported_log_prob(box, d, value).sum()

    def _whole_term(self, node: Any, parameters: tuple[int, ...]) -> Any:
        """The site's log density for all elements, those at ``index`` kept and added up."""
        import jax.numpy as jnp

        box = node.box
        d = distribution_of(box, [self.whole[w] for w in parameters])
        if box.op == "sample":
            t, z = bijection(d), self.z[str(box.name)]
            value = t(z)
            each = d.log_prob(value) + t.log_abs_det_jacobian(z, value)
        else:
            each = supported_log_prob(box, d, self.whole[node.inputs[-1]])
        each = jnp.broadcast_to(each, box.spec[1])
        return jnp.take(each, self.index, axis=self.plate.axis).sum()

    def _distribution(self, box: Box, parameters: tuple[int, ...]) -> Any:
        """The site's distribution for the elements at ``index`` alone, or None."""
        template, batch, _, _ = box.spec
        if not isinstance(template, Structure) or not template.kind.startswith("describe:dist:"):
            return None
        values = [self.whole[w] for w in parameters]
        # A name such as Bernoulli is a choice among classes, made by the arguments.
        whole = build(from_template(template, values), lambda v: v)
        constraints = type(whole).arg_constraints
        for key, item in zip(template.keys, template.items, strict=True):
            if isinstance(item, (Structure, StaticArray)):
                return None
            if isinstance(item, Hole):
                if key not in constraints:
                    return None
                axis = self.plate.axis - constraints[key].event_dim
                values[item.index] = self.whole_or_taken(parameters[item.index], axis)
        d = build(from_template(template, values), lambda v: v)
        shape = list(batch)
        shape[self.plate.axis] = int(self.index.shape[0])
        return d if tuple(d.batch_shape) == tuple(shape) else d.expand(shape)

    def _z(self, box: Box) -> Any:
        """The unconstrained values at ``index`` of a latent site in the plate."""
        import jax.numpy as jnp

        at = len(box.spec[1]) + self.plate.axis
        return jnp.take(self.z[str(box.name)], self.index, axis=at)

    def _latent(self, node: Any, axis: int) -> Any:
        """Values at ``index`` of a latent site in the plate, from those coordinates alone."""
        box = node.box
        if box.op != "sample" or axis != self.plate.axis - box.spec[2]:
            return None
        d = self._distribution(box, node.inputs)
        return None if d is None else bijection(d)(self._z(box))

    # Array functions that ``take`` commutes with.

    def _pushed(self, node: Any, axis: int) -> Any:
        """The box evaluated on inputs taken where they need to be, or None if that is not known."""
        box = node.box
        if len(box.cod) != 1 or _has_constants(box.spec):
            return None
        axes: dict[int, int] | None
        if box.op == "numpy.matmul":
            axes = self._matmul(node, axis)
        elif box.op == "numpy.dot":
            small = all(len(self.shape(w)) <= 2 for w in node.inputs)
            axes = self._matmul(node, axis) if small else None
        elif _elementwise(box):
            axes = dict.fromkeys(range(len(node.inputs)), axis)
        elif box.op == "getitem":
            axes = self._getitem(node, axis)
        elif box.op in _REDUCE:
            axes = self._reduced(node, axis)
        elif box.op == "numpy.stack":
            axes = self._stacked(node, axis)
        else:
            return None
        if axes is None:
            return None
        values = [
            self.whole_or_taken(w, axes[i]) if i in axes else self.whole[w]
            for i, w in enumerate(node.inputs)
        ]
        try:
            (made,) = evaluate(box, values)
        except (TypeError, ValueError):
            return None
        want = list(box.cod[0].shape)
        want[axis] = int(self.index.shape[0])
        return made if list(made.shape) == want else None

    def _matmul(self, node: Any, axis: int) -> dict[int, int] | None:
        holes = node.box.spec.items[0].items
        if holes != (Hole(0), Hole(1)):
            return None
        a, b = (len(self.shape(w)) for w in node.inputs)
        if a == 1 or b == 1:
            if a == b:
                return None
            if b == 1:
                return {0: axis - 1}
            return {1: axis if axis == -1 else axis - 1}
        if axis == -1:
            return {1: -1}
        return {0: -2} if axis == -2 else {0: axis, 1: axis}

    def _getitem(self, node: Any, axis: int) -> dict[int, int] | None:
        """``x[i]`` for an integer array i, and ``x[...]`` of whole slices, numbers and None."""
        source, index = node.box.spec.items[0].items
        if source != Hole(0):
            return None
        full = len(self.shape(node.inputs[0]))
        if index == Hole(1):
            space = self.diagram.wires[node.inputs[1]]
            if np.dtype(space.dtype).kind not in "iu":
                return None
            rest = full - 1
            return {0: axis} if -axis <= rest else {1: axis + rest}
        parts = index.items if getattr(index, "kind", "") == "tuple" else (index,)
        came: list[int | None] = []
        at = 0
        for part in parts:
            if part is None:
                came.append(None)
            elif isinstance(part, Structure) and part.kind == "slice":
                if part.items != (None, None, None):
                    return None
                came.append(at)
                at += 1
            elif isinstance(part, int) and not isinstance(part, bool):
                at += 1
            else:
                return None
        came += list(range(at, full))
        origin = came[axis]
        return None if origin is None else {0: origin - full}

    def _reduced(self, node: Any, axis: int) -> dict[int, int] | None:
        args, kwargs = from_template(node.box.spec, [None] * len(node.inputs))
        if len(node.inputs) != 1 or len(args) > 2 or set(kwargs) - {"axis", "keepdims", "ddof"}:
            return None
        gone = args[1] if len(args) == 2 else kwargs.get("axis")
        if gone is None:
            return None
        ndim = len(self.shape(node.inputs[0]))
        axes = {int(a) % ndim for a in np.atleast_1d(gone)}
        if kwargs.get("keepdims"):
            return None if axis % ndim in axes else {0: axis}
        kept = [a for a in range(ndim) if a not in axes]
        return {0: kept[axis] - ndim}

    def _stacked(self, node: Any, axis: int) -> dict[int, int] | None:
        args, kwargs = node.box.spec.items[0].items, node.box.spec.items[1]
        if kwargs.items or len(args) > 2 or not isinstance(args[0], Structure):
            return None
        if not all(isinstance(item, Hole) for item in args[0].items):
            return None
        ndim = len(node.box.cod[0].shape)
        new = (args[1] if len(args) == 2 else 0) % ndim
        here = axis % ndim
        if here == new:
            return None
        origin = (here - (here > new)) - (ndim - 1)
        return dict.fromkeys(range(len(node.inputs)), origin)


def _elementwise(box: Box) -> bool:
    """Whether each element of the result is a function of the same element of each argument."""
    function = numpy_function(box.op)
    scalar = isinstance(function, np.ufunc) and function.signature is None
    if box.op not in _ELEMENTWISE and not scalar:
        return False
    return not any(isinstance(item, Structure) for item in box.spec.items[0].items)


def _has_constants(template: Any) -> bool:
    """Whether an array is kept by value in the template: it might span the plate."""
    if isinstance(template, StaticArray):
        return True
    return isinstance(template, Structure) and any(_has_constants(i) for i in template.items)
