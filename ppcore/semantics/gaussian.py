"""The Gaussian semantics: wires become affine functions of standard normal noise.

A functor to linear-Gaussian kernels x ↦ N(Ax + b, LLᵀ): every sample box of a Gaussian family is
``location + spread · ε``, every affine array box is itself, and composing them keeps the value of a
wire affine in the open inputs and in all ε. Whether a box is affine is proved on its program
(:mod:`ppcore.semantics.affine`); coefficients are derivatives at zero, exact for affine functions.

Source: Fritz, "A synthetic approach to Markov kernels" (2020), arXiv:1908.07021, section 6 (Gauss).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import precision
from ppcore.diagram import Box, Diagram
from ppcore.errors import UnsupportedError
from ppcore.recording.record import evaluate
from ppcore.semantics.affine import AFFINE, CONSTANT, OTHER, degrees
from ppcore.semantics.gaussian_box import apply_box
from ppcore.semantics.gaussian_kernel import GaussianKernel
from ppcore.semantics.gaussian_site import Site, apply_spread, site_of
from ppcore.semantics.interpret import distribution_of


class NotGaussian(UnsupportedError):
    """A box is not linear-Gaussian; ``box`` names it and ``why`` says why."""

    def __init__(self, box: str, why: str):
        super().__init__(f"Box {box!r} is not linear-Gaussian: {why}")
        self.box, self.why = box, why


@dataclass(frozen=True)
class Wire:
    """A value, its degree in the random quantities, and which box spoilt it if that is not 1.

    ``value`` is None where the degree is 2: nothing Gaussian may depend on it.
    """

    value: Any
    degree: int = CONSTANT
    culprit: tuple[str, str] = ("", "")


@dataclass
class Records:
    """What a walk through a diagram finds.

    Attributes
    ----------
    sites : dict
        Latent and computed sites that are affine: their values.
    residuals : dict
        Observed sites: value − location, affine.
    spreads, masks : dict
        Observed sites: see :class:`ppcore.semantics.gaussian_site.Site`; never random.
    constants : dict
        Log weights that nothing random enters.
    """

    sites: dict[str, Any] = field(default_factory=dict)
    residuals: dict[str, Any] = field(default_factory=dict)
    spreads: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)

    def parts(self) -> tuple[dict[str, Any], ...]:
        return (self.sites, self.residuals, self.spreads, self.masks, self.constants)


def noise_shapes(
    diagram: Diagram, evidence: Sequence[str], lead: tuple[int, ...] = ()
) -> dict[str, tuple[int, ...]]:
    """{latent Gaussian site: the shape of its ε}, stacked inside scans."""
    found = {}
    for node in diagram.nodes:
        box = node.box
        if box.op == "sample" and box.name not in evidence:
            site = site_of(box)
            if site is not None:
                found[str(box.name)] = lead + site.noise_shape
        elif box.op == "linear_gaussian":
            if str(box.name) in found and not box.deterministic:
                raise NotGaussian(str(box), "another box has its name; boxes with noise need one.")
            found[str(box.name)] = (*lead, box.spec[2].shape[1])
        elif box.body is not None:
            inner = (*lead, box.spec.length) if box.op == "scan" else lead
            found.update(noise_shapes(box.body, evidence, inner))
    return found


def walk(
    diagram: Diagram,
    inputs: Sequence[Wire],
    evidence: Mapping[str, Any],
    noise: Mapping[str, Any],
    records: Records,
) -> list[Wire]:
    """Outputs of a diagram as functions of its inputs and of the noise ε; traceable by JAX.

    Raises :class:`NotGaussian` naming the box in the way.
    """
    wires = list(inputs)
    for node in diagram.nodes:
        values = [wires[i] for i in node.inputs]
        wires.extend(_box(node.box, values, evidence, noise, records))
    return [wires[i] for i in diagram.outputs]


def _box(
    box: Box,
    values: list[Wire],
    evidence: Mapping[str, Any],
    noise: Mapping[str, Any],
    records: Records,
) -> list[Wire]:
    name = str(box.name)
    if box.op == "sample" and name in evidence:
        given = Wire(evidence[name])
        _observe(box, values, given, records)
        return [given]
    if box.op == "sample":
        return [_sample(box, values, noise, records)]
    if box.op == "observe":
        _observe(box, values[:-1], values[-1], records)
        return []
    if box.op == "factor":
        if values[0].degree:
            raise NotGaussian(name, "its log weight depends on random values.")
        records.constants[name] = values[0].value.sum()
        return []
    if box.op == "scan":
        return _scan(box, values, evidence, noise, records)
    if box.op == "plate":
        assert box.body is not None
        return walk(box.body, values, evidence, noise, records)
    if box.op == "linear_gaussian":
        return _given(box, values, noise)
    return _array(box, values, records)


def _array(box: Box, values: list[Wire], records: Records) -> list[Wire]:
    found, primitive = degrees(box, [v.degree for v in values])
    spoilt = next((v.culprit for v in values if v.degree == OTHER), None)
    culprit = spoilt or (str(box), f"{primitive} is not an affine function of random values")
    if all(d == OTHER for d in found):
        return [Wire(None, OTHER, culprit)] * len(found)
    made = evaluate(box, [v.value for v in values])
    out = [
        Wire(None, OTHER, culprit) if d == OTHER else Wire(v, d)
        for v, d in zip(made, found, strict=True)
    ]
    if box.op == "deterministic" and out[0].degree != OTHER:
        records.sites[str(box.name)] = out[0].value
    return out


def _gaussian_site(box: Box, values: list[Wire]) -> Site:
    """The site, after checking that its location is affine and its spread not random."""
    name, site = str(box.name), site_of(box)
    if site is None:
        raise NotGaussian(
            name, f"{_family(box)} is not Gaussian. Use a sampling engine for this model."
        )
    for hole in site.location_holes:
        if values[hole].degree == OTHER:
            culprit, why = values[hole].culprit
            raise NotGaussian(culprit, f"{why}, and the location of {name!r} depends on it.")
    for hole in site.other_holes:
        if values[hole].degree != CONSTANT:
            raise NotGaussian(
                name, "its scale depends on random values; a linear-Gaussian model has known noise."
            )
    return site


def _sample(box: Box, values: list[Wire], noise: Mapping[str, Any], records: Records) -> Wire:
    site, name = _gaussian_site(box, values), str(box.name)
    if site.masks:
        raise NotGaussian(name, "it is masked and not observed, so it has no distribution.")
    given = [v.value for v in values]
    value = site.location(given)
    if site.family != "Delta":
        value = value + apply_spread(site.spread(given), noise[name], site.dense)
    records.sites[name] = value
    return Wire(value, AFFINE)


def _observe(box: Box, values: list[Wire], data: Wire, records: Records) -> None:
    name = str(box.name)
    if site_of(box) is None and not data.degree and not any(v.degree for v in values):
        d = distribution_of(box, [v.value for v in values])
        records.constants[name] = d.log_prob(data.value).sum()
        return
    site = _gaussian_site(box, values)
    if data.degree == OTHER:
        raise NotGaussian(data.culprit[0], f"{data.culprit[1]}, and {name!r} is observed as it.")
    given = [v.value for v in values]
    residual, mask = data.value - site.location(given), site.mask(given)
    spread = site.spread(given)
    if mask is not None:
        if site.dense:
            raise NotGaussian(name, "a mask over dependent elements is not supported.")
        records.masks[name] = mask
    records.residuals[name], records.spreads[name] = residual, spread


def _family(box: Box) -> str:
    template: Any = box.spec[0]
    while getattr(template, "kind", "").startswith("describe:method:"):
        template = template.items[0]
    return str(getattr(template, "kind", "it")).rsplit(":", 1)[-1]


def scan_degrees(box: Box, inputs: Sequence[Wire], evidence: Mapping[str, Any]) -> list[int]:
    """Degrees of a scan's carry that hold from one step to the next."""
    spec, body = box.spec, box.body
    assert body is not None
    k = spec.carry
    raised = [v.degree for v in inputs]
    inside = {n: evidence[n] for n in body.named("sample") if n in evidence}
    shapes = noise_shapes(body, tuple(inside))
    data = {n: jax.ShapeDtypeStruct(np.shape(v)[1:], v.dtype) for n, v in inside.items()}
    while True:
        seen: list[int] = []

        def step(values: Any, given: Any, noise: Any, out: list[int] = seen) -> Any:
            wires = [Wire(v, d) for v, d in zip(values, raised, strict=True)]
            out.extend(w.degree for w in walk(body, wires, given, noise, Records()))
            return 0

        jax.eval_shape(
            step,
            [jax.ShapeDtypeStruct(s.shape, np.dtype(s.dtype)) for s in body.dom],
            data,
            {n: jax.ShapeDtypeStruct(s, np.dtype("float64")) for n, s in shapes.items()},
        )
        carry = [max(a, b) for a, b in zip(raised[:k], seen[:k], strict=True)]
        if OTHER in carry and OTHER not in raised[:k]:
            raise NotGaussian(str(box), "its carry is not an affine function of random values.")
        if carry == raised[:k]:
            return raised
        raised[:k] = carry


def _scan(
    box: Box,
    values: list[Wire],
    evidence: Mapping[str, Any],
    noise: Mapping[str, Any],
    records: Records,
) -> list[Wire]:
    spec, body = box.spec, box.body
    assert body is not None
    for v in values:
        if v.degree == OTHER:
            raise NotGaussian(v.culprit[0], f"{v.culprit[1]}, and a scan depends on it.")
    found = scan_degrees(box, values, evidence)
    k, n = spec.carry, spec.carry + spec.xs
    names = {b.name for b in body.boxes() if b.name is not None}
    own = {m: v for m, v in evidence.items() if m in names}
    eps = {m: v for m, v in noise.items() if m in names}
    meta: list[list[Wire]] = []

    def step(carry: Any, element: Any) -> Any:
        x, given, e = element
        wires = [
            Wire(v, d)
            for v, d in zip([*carry, *x, *(w.value for w in values[n:])], found, strict=True)
        ]
        inner = Records()
        outs = walk(body, wires, given, e, inner)
        meta.append([Wire(None, w.degree, w.culprit) for w in outs])
        ys = [jnp.zeros(()) if w.value is None else w.value for w in outs[k:]]
        return [w.value for w in outs[:k]], (ys, inner.parts())

    start = [jnp.asarray(v.value) for v in values[:k]]
    final, (stacked, parts) = jax.lax.scan(
        step,
        start,
        ([v.value for v in values[k:n]], own, eps),
        length=spec.length,
        reverse=spec.reverse,
    )
    for mine, theirs in zip(records.parts(), parts, strict=True):
        mine.update(theirs)
    kinds = meta[-1]
    return [
        Wire(None, OTHER, w.culprit) if w.degree == OTHER else Wire(v, w.degree)
        for v, w in zip([*final, *stacked], kinds, strict=True)
    ]


def _given(box: Box, values: list[Wire], noise: Mapping[str, Any]) -> list[Wire]:
    for v in values:
        if v.degree == OTHER:
            raise NotGaussian(v.culprit[0], f"{v.culprit[1]}, and {str(box)!r} depends on it.")
    degree = max((v.degree for v in values), default=CONSTANT)
    degree = degree if box.deterministic else AFFINE
    made = apply_box(box, [v.value for v in values], noise[str(box.name)])
    return [Wire(v, degree) for v in made]


def gaussian(diagram: Diagram, inputs: Mapping[int, Any] | None = None) -> GaussianKernel:
    """The linear-Gaussian kernel of a diagram: F(f >> g) = F(f) ; F(g), F(f @ g) = F(f) ⊗ F(g).

    Parameters
    ----------
    diagram : Diagram
        Its open inputs and its outputs are real; effects (observe and factor boxes) are refused.
    inputs : mapping of int to array, optional
        Values of input wires that stay fixed (a model's data).

    Returns
    -------
    GaussianKernel
        From the flattened open inputs to the flattened outputs.

    Raises
    ------
    NotGaussian
        A box is not linear-Gaussian, naming it.

    >>> from ppcore.semantics.gaussian_box import linear_gaussian
    >>> noise = linear_gaussian(np.eye(1), [1.0], np.eye(1), (1,), (1,), name="noise")
    >>> twice = gaussian(noise >> linear_gaussian(2 * np.eye(1), [0.0], None, (1,), (1,)))
    >>> twice.offset, twice.cov
    (array([2.]), array([[4.]]))
    """
    fixed = dict(inputs or {})
    for name in (*diagram.named("observe"), *diagram.named("factor")):
        raise NotGaussian(name, "it is an effect; condition a state instead.")
    shapes = tuple(sorted(noise_shapes(diagram, ()).items()))
    with precision.scope("float64"):
        try:
            parts = _coefficients(diagram, shapes, tuple(sorted(fixed)), list(fixed.values()))
        except jax.errors.JAXTypeError as error:
            raise NotGaussian("the diagram", str(error).splitlines()[0]) from None
    a, b, noise = (np.asarray(p) for p in parts)
    return GaussianKernel(a, b, noise)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _coefficients(
    diagram: Diagram, shapes: Any, places: tuple[int, ...], fixed: list[Any]
) -> tuple[Any, Any, Any]:
    given = dict(zip(places, fixed, strict=True))
    open_spaces = [s for i, s in enumerate(diagram.dom) if i not in given]
    n = sum(s.size for s in open_spaces)
    q = sum(int(np.prod(s, dtype=int)) for _, s in shapes)

    def run(x: Any) -> Any:
        wires, at = [], 0
        for i, space in enumerate(diagram.dom):
            if i in given:
                wires.append(Wire(given[i]))
                continue
            wires.append(Wire(x[at : at + space.size].reshape(space.shape), AFFINE))
            at += space.size
        outs = walk(diagram, wires, {}, split_noise(x[n:], shapes), Records())
        for w in outs:
            if w.degree == OTHER:
                raise NotGaussian(w.culprit[0], f"{w.culprit[1]}, and an output depends on it.")
        return jnp.concatenate([jnp.zeros(0), *(jnp.ravel(w.value) for w in outs)])

    b, push = jax.linearize(run, jnp.zeros(n + q))
    columns = jax.vmap(push)(jnp.eye(n + q)).T
    return columns[:, :n], b, columns[:, n:]


def split_noise(eps: Any, shapes: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Any]:
    """float[q] -> {site: ε}."""
    out, at = {}, 0
    for name, shape in shapes:
        size = int(np.prod(shape, dtype=int))
        out[name] = eps[at : at + size].reshape(shape)
        at += size
    return out
