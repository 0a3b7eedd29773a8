"""A diagram's normal part as rows of whitened residuals, affine in standard normal noise.

Given the other wires, every collapsed site is ``location + scale · ε``; so each wire is
offset + Σ_k columns[k] u_k + Σ_g own[g] · ε_g, where u are coordinates of the noise of the
*dense* sites (ε = shift + T u) and ε_g is the noise of a *group* site, which may only act element
by element. Every normal observation then says that its residuals r0 + R u + D ε_g are standard
normal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from ppcore.diagram import Box, Diagram
from ppcore.dist import build
from ppcore.recording.record import evaluate
from ppcore.recording.template import from_template
from ppcore.rewrite.arrow import normal_arrow
from ppcore.rewrite.build import is_lifted
from ppcore.rewrite.sites import told
from ppcore.semantics.affine import AFFINE, CONSTANT, degrees

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)
_ELEMENTWISE = frozenset(
    f"numpy.{n}" for n in "add subtract multiply divide true_divide negative positive".split()
) | {"deterministic"}


class Blocked(Exception):
    """Sites cannot be collapsed as planned: ``choices`` of sites to give up, and why.

    With ``dense`` they may be kept if they are no groups.
    """

    def __init__(self, choices: list[frozenset[str]], why: str, dense: bool = False):
        super().__init__(why)
        self.choices, self.why, self.dense = choices, why, dense


@dataclass(frozen=True, eq=False)
class Affine:
    """offset + Σ_k columns[k] u_k + Σ_g own[g] · ε_g.

    ``columns``: float[p, *shape]; ``own``: {group site: float[*shape]}; ``sites``: all that it
    depends on.
    """

    offset: Any
    columns: Any
    own: dict[str, Any]
    sites: frozenset[str]


@dataclass(frozen=True, eq=False)
class Rows:
    """Residuals that are standard normal given u and ε.

    ``offset``: float[*lead, m]; ``columns``: float[p, *lead, m]; ``own``: {site: float[*lead, m]}.
    For rows of groups, ``lead`` is (J,), one element a group.
    """

    offset: Any
    columns: Any
    own: dict[str, Any]


@dataclass(frozen=True)
class Sites:
    """What is collapsed: dense sites with their places in ε, and group sites; static.

    ``proper`` says of each element of ε whether it has a standard normal prior; ``diagonal``, that
    the elements of u are independent given the rest.
    """

    dense: tuple[tuple[str, int, int], ...]
    groups: tuple[str, ...]
    proper: tuple[bool, ...]
    diagonal: bool = False

    @property
    def names(self) -> frozenset[str]:
        return frozenset(n for n, _, _ in self.dense) | frozenset(self.groups)


@dataclass(eq=False)
class Found:
    """All rows, the log of what they are normalised by, and the collapsed sites' values."""

    rows: list[Rows] = field(default_factory=list)
    log_constant: Any = 0.0
    values: dict[str, Affine] = field(default_factory=dict)


_SPENT = object()  # the log weight of an arrow whose rows have been taken


def walk(diagram: Diagram, inputs: Any, sites: Sites, shift: Any, basis: Any) -> Found:
    """The rows of a diagram whose collapsed sites are inside; raises :class:`Blocked`."""
    found = Found()
    wires: list[Any] = list(inputs)
    for node in diagram.nodes:
        values = [wires[w] for w in node.inputs]
        wires.extend(_box(node.box, values, sites, shift, basis, found))
    return found


def _box(
    box: Box, values: list[Any], sites: Sites, shift: Any, basis: Any, found: Found
) -> list[Any]:
    if box.op == "sample" and box.name not in sites.names:
        raise Blocked([_sites(values)], f"enters the prior of {box.name!r}")
    if box.op == "sample":
        made = _sample(box, values, sites, shift, basis)
        found.values[str(box.name)] = made
        return [made]
    if box.op == "observe":
        _observe(box, values, found)
        return []
    if box.op == "factor":
        if values[0] is not _SPENT:
            raise Blocked([_sites(values)], f"enters the factor {box.name!r}")
        return []
    if not any(isinstance(v, Affine) for v in values):
        return evaluate(box, values)
    if is_lifted(box, normal_arrow):
        _arrow(box, values, found)
        return [_SPENT]
    return _array(box, values)


def _sites(values: list[Any]) -> frozenset[str]:
    return frozenset().union(*(v.sites for v in values if isinstance(v, Affine)))


def _array(box: Box, values: list[Any]) -> list[Any]:
    sites = _sites(values)
    if not box.deterministic or box.body is not None:
        raise Blocked([sites], f"enters {str(box)!r}, which is not linear")
    given = [AFFINE if isinstance(v, Affine) else CONSTANT for v in values]
    found, primitive = degrees(box, given)
    if any(d > AFFINE for d in found):
        choices = [v.sites for v in values if isinstance(v, Affine)]
        both = len(choices) > 1 and not frozenset.intersection(*choices)
        why = f"enters {primitive} in {str(box)!r}, which is not linear in it"
        raise Blocked(choices if both else [sites], why)
    groups = {g for v in values if isinstance(v, Affine) for g in v.own}
    if groups and (
        box.op not in _ELEMENTWISE
        or any(
            isinstance(v, Affine) and v.own and v.offset.shape != box.cod[0].shape for v in values
        )
    ):
        raise Blocked([frozenset(groups)], f"is moved about by {str(box)!r}", dense=True)

    def run(*some: Any) -> Any:
        full, rest = list(values), iter(some)
        for i, v in enumerate(values):
            if isinstance(v, Affine):
                full[i] = next(rest)
        return tuple(evaluate(box, full))

    return _through(run, [v for v in values if isinstance(v, Affine)], sites)


def _through(run: Any, values: list[Affine], sites: frozenset[str]) -> list[Any]:
    """An affine function of affine values."""
    offsets, push = jax.linearize(run, *(v.offset for v in values))
    columns = jax.vmap(push)(*(v.columns for v in values))
    own: list[dict[str, Any]] = [{} for _ in offsets]
    for g in sorted({g for v in values for g in v.own}):
        tangents = push(*(v.own.get(g, jnp.zeros_like(v.offset)) for v in values))
        for into, t in zip(own, tangents, strict=True):
            into[g] = t
    parts = zip(offsets, columns, own, strict=True)
    return [Affine(o, c, d, sites) for o, c, d in parts]


def _parameters(box: Box, values: list[Any], location: str) -> tuple[Any, Any]:
    """The location of a normal box, and NumPyro's distribution around zero in its place.

    Raises :class:`Blocked` if anything but the location depends on collapsed sites.
    """
    site = told(box)
    loc: Any = from_template(site.arguments.get(location, 0.0), values)
    others = {k: t for k, t in site.arguments.items() if k != location}
    spoilt = _inside([*others.values(), *site.masks], values)
    if spoilt:
        raise Blocked([spoilt], f"enters the scale or a mask of {box.name!r}")
    if not isinstance(loc, Affine):
        inner = _inside([site.arguments.get(location)], values)
        if inner:
            raise Blocked([inner], f"enters a list in {box.name!r}")
        loc = jnp.asarray(loc, jnp.result_type(float))
    described = from_template(box.spec[0], [None if isinstance(v, Affine) else v for v in values])
    while described.kind == "method":
        described = described.arguments[0][1]
    arguments = tuple((k, v) for k, v in described.arguments if k != location)
    zero = jnp.zeros(loc.offset.shape if isinstance(loc, Affine) else loc.shape)
    kept = type(described)(described.kind, described.name, ((location, zero), *arguments))
    return loc, build(kept, lambda v: v)


def _inside(templates: list[Any], values: list[Any]) -> frozenset[str]:
    """Collapsed sites that templates read."""
    from ppcore.semantics.gaussian_site import holes

    read = set().union(*(holes(t) for t in templates))
    return _sites([values[i] for i in read])


def _sample(box: Box, values: list[Any], sites: Sites, shift: Any, basis: Any) -> Affine:
    name, shape = str(box.name), box.cod[0].shape
    own_sites = frozenset((name,))
    place = next(((a, b) for n, a, b in sites.dense if n == name), None)
    p = basis.shape[1]
    if told(box).family == "ImproperUniform":
        assert place is not None
        return Affine(*_noise(shape, place, shift, basis), {}, own_sites)
    loc, distribution = _parameters(box, values, "loc")
    if not isinstance(loc, Affine):
        loc = Affine(loc, jnp.zeros((p, *loc.shape), loc.dtype), {}, frozenset())
    offset = jnp.broadcast_to(loc.offset, shape)
    columns = _spread(loc.columns, shape)
    if loc.own and loc.offset.shape != shape:
        raise Blocked([frozenset(loc.own)], f"is repeated in {name!r}", dense=True)
    if place is None:
        scale = _scale(distribution, shape)
        own = {g: jnp.broadcast_to(v, shape) for g, v in loc.own.items()} | {name: scale}
        return Affine(offset, columns, own, loc.sites | own_sites)
    noise, directions = _noise(shape, place, shift, basis)
    if told(box).family == "Normal":
        scale = _scale(distribution, shape)
        noise, directions = scale * noise, scale * directions
    else:
        root = distribution.scale_tril
        noise = jnp.einsum("...ij,...j->...i", root, noise)
        directions = jnp.einsum("...ij,p...j->p...i", root, directions)
    return Affine(offset + noise, columns + directions, dict(loc.own), loc.sites | own_sites)


def _scale(distribution: Any, shape: tuple[int, ...]) -> Any:
    return jnp.broadcast_to(jnp.asarray(distribution.scale, jnp.result_type(float)), shape)


def _noise(shape: Any, place: tuple[int, int], shift: Any, basis: Any) -> tuple[Any, Any]:
    a, b = place
    return shift[a:b].reshape(shape), basis[a:b].T.reshape(-1, *shape)


def _spread(columns: Any, shape: tuple[int, ...]) -> Any:
    """Columns of something that is broadcast to ``shape``."""
    p, inner = columns.shape[0], columns.shape[1:]
    padded = columns.reshape(p, *(1,) * (len(shape) - len(inner)), *inner)
    return jnp.broadcast_to(padded, (p, *shape))


def _observe(box: Box, values: list[Any], found: Found) -> None:
    site = told(box)
    if site.family not in ("Normal", "LogNormal", "MultivariateNormal"):
        raise Blocked([_sites(values)], f"is in the likelihood of {box.name!r}, a {site.family}")
    y, shape = values[-1], box.dom[-1].shape
    loc, distribution = _parameters(box, values, "loc")
    assert isinstance(loc, Affine)
    if site.family == "LogNormal":
        found.log_constant -= jnp.sum(jnp.log(y))
        y = jnp.log(y)
    offset = jnp.broadcast_to(loc.offset, shape) - y
    columns = _spread(loc.columns, shape)
    own = {g: jnp.broadcast_to(v, shape) for g, v in loc.own.items()}
    if site.masks or (own and loc.offset.shape != shape):
        dense = not site.masks
        raise Blocked([frozenset(own) if dense else loc.sites], f"meets {box.name!r}", dense=dense)
    size = box.dom[-1].size
    if site.family == "MultivariateNormal":
        if own:
            raise Blocked([frozenset(own)], f"meets {box.name!r}", dense=True)
        root = jnp.broadcast_to(distribution.scale_tril, (*shape, shape[-1]))

        def white(v: Any) -> Any:
            return jax.scipy.linalg.solve_triangular(root, v[..., None], lower=True)[..., 0]

        offset, columns = white(offset), jax.vmap(white)(columns)
        log_scale = jnp.sum(jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)))
    else:
        scale = _scale(distribution, shape)
        offset, columns = offset / scale, columns / scale
        own = {g: v / scale for g, v in own.items()}
        log_scale = jnp.sum(jnp.log(scale))
    found.log_constant -= log_scale + size * HALF_LOG_2PI
    p = columns.shape[0]
    if own:
        flat = {g: v.reshape(-1, 1) for g, v in own.items()}
        found.rows.append(Rows(offset.reshape(-1, 1), columns.reshape(p, -1, 1), flat))
    else:
        found.rows.append(Rows(offset.reshape(-1), columns.reshape(p, -1), {}))


def _arrow(box: Box, values: list[Any], found: Found) -> None:
    """The rows of :func:`ppcore.rewrite.arrow.normal_arrow`."""
    _, keywords = from_template(box.spec[1], values)
    groups = keywords["groups"]
    rest, rest_rhs, tail, scale = values[:4]
    spoilt = _sites(values[3:4])
    if spoilt:
        raise Blocked([spoilt], "enters the scale of observations")
    own: Any = values[4:7] if groups else ()
    atoms = values[7:] if groups else values[4:]
    tangled = frozenset(g for v in atoms[groups:] if isinstance(v, Affine) for g in v.own)
    if tangled:
        raise Blocked([tangled], "acts on all observations at once", dense=True)
    s = jnp.reshape(scale, ())
    random = [i for i, v in enumerate(atoms) if isinstance(v, Affine)]

    def run(*some: Any) -> Any:
        full = list(atoms)
        for i, v in zip(random, some, strict=True):
            full[i] = v
        b = jnp.concatenate([jnp.zeros(0, rest.dtype), *(jnp.ravel(v) for v in full[groups:])])
        shared = (rest @ b - rest_rhs) / s
        if not groups:
            return (shared,)
        a = jnp.stack([jnp.ravel(v) for v in full[:groups]], -1)
        return shared, (jnp.sum(own[0] * a[:, None, :], -1) + own[1] @ b - own[2]) / s

    made = _through(run, [atoms[i] for i in random], frozenset())
    found.rows.append(Rows(made[0].offset, made[0].columns, {}))
    for part in made[1:]:
        if part.own:
            found.rows.append(Rows(part.offset, part.columns, part.own))
        else:
            p = part.columns.shape[0]
            found.rows.append(Rows(part.offset.reshape(-1), part.columns.reshape(p, -1), {}))
    found.log_constant += -0.5 * tail[0] / s**2 - tail[1] * jnp.log(s) - tail[2]
