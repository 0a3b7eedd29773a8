"""What a wire is to a conjugate pair: known, a scaled power of a site's elements, or affine.

Conjugacy is read off the diagram. A parameter that enters a likelihood directly, by an index, or
through scaling, roots, powers and reciprocals is a :class:`Monomial`; a location that is affine in
Gaussian sites is :class:`Affine`. Anything else is :class:`Other` and remembers which box made it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box, Diagram, Hole
from ppcore.exact.protocol import NotExact
from ppcore.recording.record import evaluate
from ppcore.recording.template import StaticArray, Structure, from_template
from ppcore.semantics.affine import AFFINE, CONSTANT, degrees
from ppcore.space import Space

SOLVER = "conjugate"
GAUSSIAN = ("Normal", "MultivariateNormal")
_MOVES = frozenset(
    f"numpy.{n}"
    for n in (
        "reshape transpose squeeze expand_dims broadcast_to repeat swapaxes moveaxis ravel "
        "concatenate stack tile roll flip hstack vstack atleast_1d atleast_2d take"
    ).split()
) | {"getitem", "deterministic"}
_SCALINGS = frozenset(f"numpy.{n}" for n in "multiply divide true_divide power".split())
_POWERS = {"numpy.sqrt": 0.5, "numpy.square": 2.0, "numpy.reciprocal": -1.0}


@dataclass(frozen=True, eq=False)
class Known:
    """Data, constants, and what is computed from them."""

    value: np.ndarray


@dataclass(frozen=True, eq=False)
class Monomial:
    """coef · site[index] ** power, element by element; ``index`` counts in C order."""

    site: str
    index: np.ndarray
    coef: np.ndarray
    power: float

    @property
    def direct(self) -> bool:
        """Whether the elements are the site's own."""
        return self.power == 1.0 and bool((self.coef == 1.0).all())


@dataclass(frozen=True, eq=False)
class Affine:
    """offset + Σ_j columns[j] · x_j over all elements x of the Gaussian latent sites."""

    offset: np.ndarray
    columns: np.ndarray


@dataclass(frozen=True)
class Other:
    """Something else: which box made it, and why no pair can use it."""

    box: str
    why: str


Form = Known | Monomial | Affine | Other


@dataclass(frozen=True, eq=False)
class Site:
    """A sample box with the forms of its arguments.

    ``mask`` (bool, or None) says which elements of an observed site count.
    """

    name: str
    family: str
    arguments: dict[str, Form]
    space: Space
    value: np.ndarray | None = None
    mask: np.ndarray | None = None
    batch: tuple[int, ...] = ()

    def known(self, argument: str, default: float | None = None) -> np.ndarray | None:
        """A known argument's value, the default, or None."""
        form = self.arguments.get(argument)
        if form is None:
            return None if default is None else np.asarray(default)
        return form.value if isinstance(form, Known) else None

    @property
    def weights(self) -> np.ndarray:
        """One for every element of the batch that counts, else zero."""
        if self.mask is None:
            return np.ones(self.batch)
        return np.broadcast_to(self.mask, self.batch).astype(float)


@dataclass(eq=False)
class Sites:
    """All sample sites of a model, latent and observed, and the forms of computed ones."""

    latent: dict[str, Site] = field(default_factory=dict)
    observed: dict[str, Site] = field(default_factory=dict)
    computed: dict[str, Form] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)
    dim: int = 0
    constant: float = 0.0


def read(joint: Diagram, data: Sequence[Any], evidence: Mapping[str, np.ndarray]) -> Sites:
    """The sites of a model with the forms of their parameters.

    Raises :class:`NotExact` naming a scan with evidence, or a factor of random values.
    """
    out = Sites()
    for box in joint.boxes():
        if box.op == "sample" and box.name not in evidence and _family(box) in GAUSSIAN:
            out.offsets[str(box.name)] = out.dim
            out.dim += box.cod[0].size
    _walk(joint, [Known(np.asarray(d)) for d in data], evidence, out)
    return out


def _walk(
    diagram: Diagram, inputs: Sequence[Form], evidence: Mapping[str, np.ndarray], out: Sites
) -> list[Form]:
    wires = list(inputs)
    for node in diagram.nodes:
        values = [wires[i] for i in node.inputs]
        wires.extend(_box(node.box, values, evidence, out))
    return [wires[i] for i in diagram.outputs]


def _box(
    box: Box, values: list[Form], evidence: Mapping[str, np.ndarray], out: Sites
) -> list[Form]:
    name = str(box.name)
    if box.op == "sample":
        return [_site(box, values, evidence.get(name), out)]
    if box.op == "factor":
        if not isinstance(values[0], Known):
            raise NotExact(SOLVER, name, "its log weight depends on random values.")
        out.constant += float(values[0].value.sum())
        return []
    if box.op == "plate":
        assert box.body is not None
        return _walk(box.body, values, evidence, out)
    if box.body is not None:
        seen = [n for n in box.body.named("sample") if n in evidence]
        if seen:
            raise NotExact(
                SOLVER, seen[0], "it is observed inside a scan: its steps depend on each other."
            )
        return [Other(str(box), "it is a scan")] * len(box.cod)
    made = _array(box, values)
    if box.op == "deterministic":
        out.computed[name] = made[0]
    return made


def _site(box: Box, values: list[Form], value: np.ndarray | None, out: Sites) -> Form:
    name, family, space = str(box.name), _family(box), box.cod[0]
    template, masks = stripped(box.spec[0])
    arguments = {
        key: _argument(item, values)
        for key, item in zip(template.keys, template.items, strict=True)
        if item is not None
    }
    mask = None
    for m in masks:
        form = _argument(m, values)
        if not isinstance(form, Known):
            raise NotExact(SOLVER, name, "its mask depends on random values.")
        mask = form.value if mask is None else mask & form.value
    batch = space.shape[: space.ndim - _event_ndim(family)]
    site = Site(name, family, arguments, space, value, mask, batch)
    if value is not None:
        out.observed[name] = site
        return Known(value)
    out.latent[name] = site
    if name in out.offsets:
        columns = np.zeros((out.dim, space.size))
        start = out.offsets[name]
        columns[start : start + space.size] = np.eye(space.size)
        return Affine(np.zeros(space.shape), columns.reshape(out.dim, *space.shape))
    index = np.arange(space.size).reshape(space.shape)
    return Monomial(name, index, np.ones(space.shape), 1.0)


def _event_ndim(family: str) -> int:
    """Event axes of the family itself; ``to_event`` adds none here, elements being independent."""
    if family in ("Wishart", "InverseWishart"):
        return 2
    return int(family in ("MultivariateNormal", "Dirichlet") or family.startswith("Multinomial"))


def _family(box: Box) -> str:
    return str(stripped(box.spec[0])[0].kind).rsplit(":", 1)[-1]


def stripped(template: Any) -> tuple[Structure, list[Any]]:
    """A distribution's template without the methods called on it, and the masks."""
    masks = []
    while template.kind.startswith("describe:method:"):
        if template.kind.endswith(":mask"):
            masks.append(template.items[1])
        template = template.items[0]
    return template, masks


def _argument(template: Any, values: list[Form]) -> Form:
    if isinstance(template, Hole):
        return values[template.index]
    if isinstance(template, StaticArray):
        return Known(template.array())
    if isinstance(template, Structure):
        try:
            return Known(np.asarray(from_template(template, []), float))
        except (TypeError, ValueError, IndexError):
            return Other("its parameter", "it is put together from several random values")
    return Known(np.asarray(template))


def _array(box: Box, values: list[Form]) -> list[Form]:
    other = next((v for v in values if isinstance(v, Other)), None)
    if other is not None:
        return [other] * len(box.cod)
    if all(isinstance(v, Known) for v in values):
        made = evaluate(box, [v.value for v in values])  # type: ignore[union-attr]
        return [Known(np.asarray(m)) for m in made]
    if any(isinstance(v, Monomial) for v in values):
        found = _monomial(box, values) if len(box.cod) == 1 else None
        refused = Other(str(box), "it is no index, scaling, root, power or reciprocal of one site")
        return [found or refused] * len(box.cod)
    return _affine(box, values)


def _monomial(box: Box, values: list[Form]) -> Monomial | None:
    random = [v for v in values if isinstance(v, Monomial)]
    if any(isinstance(v, Affine) for v in values) or len({(m.site, m.power) for m in random}) > 1:
        return None
    first = random[0]
    if box.op in _MOVES:
        return _map(box, values, first)
    if len(random) > 1 or box.op not in _SCALINGS | _POWERS.keys():
        return None
    if box.op in _POWERS:
        p = _POWERS[box.op]
        return Monomial(first.site, first.index, first.coef**p, first.power * p)
    if len(box.dom) == 1 and box.op not in ("numpy.negative", "numpy.positive"):
        args, _ = from_template(box.spec, [None])
        rest = [a for a in args if a is not None]
        if len(args) != 2 or not isinstance(rest[0], (int, float)):
            return None
        scalar, left = Known(np.asarray(float(rest[0]))), args[0] is None
    elif len(box.dom) == 2 and isinstance(values[0], Known | Monomial):
        args, _ = from_template(box.spec, [0, 1])
        at = values.index(first)
        scalar, left = values[1 - at], args[0] == at  # type: ignore[assignment]
        if not isinstance(scalar, Known):
            return None
    else:
        return None
    c, shape = np.asarray(scalar.value, float), box.cod[0].shape
    index = np.broadcast_to(first.index, shape)
    if box.op == "numpy.multiply":
        return Monomial(first.site, index, np.broadcast_to(first.coef * c, shape), first.power)
    if box.op in ("numpy.divide", "numpy.true_divide"):
        if left:
            return Monomial(first.site, index, np.broadcast_to(first.coef / c, shape), first.power)
        coef = np.broadcast_to(c / first.coef, shape)
        return Monomial(first.site, index, coef, -first.power)
    if box.op == "numpy.power" and left and c.ndim == 0:
        coef = np.broadcast_to(first.coef**c, shape)
        return Monomial(first.site, index, coef, first.power * float(c))
    return None


def _map(box: Box, values: list[Form], first: Monomial) -> Monomial | None:
    """A box that moves elements, applied to the indices and to the coefficients."""
    if not all(isinstance(v, Monomial) or _is_index(v) for v in values):
        return None
    parts = []
    for attribute in ("index", "coef"):
        inputs = [getattr(v, attribute) if isinstance(v, Monomial) else v.value for v in values]  # type: ignore[union-attr]
        parts.append(np.asarray(evaluate(box, inputs)[0]))
    return Monomial(first.site, parts[0], parts[1], first.power)


def _is_index(value: Form) -> bool:
    return isinstance(value, Known) and value.value.dtype.kind in "iu"


def _affine(box: Box, values: list[Form]) -> list[Form]:
    given = [AFFINE if isinstance(v, Affine) else CONSTANT for v in values]
    found, primitive = degrees(box, given)
    if any(d > AFFINE for d in found):
        refused = Other(str(box), f"{primitive} is not an affine function of random values")
        return [refused] * len(found)
    random = [i for i, g in enumerate(given) if g]

    def run(*some: Any) -> list[Any]:
        full: list[Any] = [v.value if isinstance(v, Known) else None for v in values]
        for i, v in zip(random, some, strict=True):
            full[i] = v
        return evaluate(box, full)

    offsets, push = jax.linearize(run, *(jnp.asarray(values[i].offset) for i in random))  # type: ignore[union-attr]
    columns = jax.vmap(push)(*(jnp.asarray(values[i].columns) for i in random))  # type: ignore[union-attr]
    return [Affine(np.asarray(o), np.asarray(c)) for o, c in zip(offsets, columns, strict=True)]
