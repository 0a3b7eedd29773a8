"""Twin networks: what would have happened, for the same noise.

A functional model is a deterministic function of exogenous random sites. Its twin copies the
deterministic boxes and shares the exogenous ones; evidence enters the factual copy, the
intervention the other. A random site in the middle is a function of a noise of its own if its
distribution is a reparameterisation, x = loc + scale · ε; then the counterfactual is
x' = loc' + scale' · (x − loc) / scale, and no noise has to be inferred. A discrete kernel does not
say which function of which noise it stands for, so it is refused.

Source: Balke & Pearl, "Probabilistic evaluation of counterfactual queries" (1994); Jacobs,
Kissinger & Zanasi (2019), arXiv:1811.08338.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from ppcore.causal.do import computed_site, constant_site
from ppcore.causal.rebuild import descendants, first_wires, site_box, start, tidy
from ppcore.diagram import Box, Diagram
from ppcore.dist import Description
from ppcore.errors import UnsupportedError
from ppcore.recording.recorder import Recorder, recording
from ppcore.recording.template import StaticArray, from_template, to_template
from ppcore.recording.wire import Wire
from ppcore.semantics.finite_dist import strip

PREFIX = "cf."
_LOC_SCALE = frozenset({"Normal", "Laplace", "Cauchy", "Logistic", "Gumbel", "StudentT"})
_SCALE = frozenset({"HalfNormal", "HalfCauchy"})


def twin(
    diagram: Diagram,
    data: Sequence[Any],
    do: Mapping[str, Any],
    computed_evidence: Sequence[str] = (),
    share: bool = True,
) -> tuple[Diagram, tuple[Any, ...]]:
    """The twin of a joint: its sites, and ``cf.<site>`` for each under the interventions.

    Parameters
    ----------
    diagram, data
        A joint and the values of its inputs.
    do : mapping of str to array
        Values at which sites are held in the counterfactual copy.
    computed_evidence : sequence of str
        Computed sites that will be observed: they become ``Delta`` boxes.
    share : bool
        Share every box that the interventions do not reach, not only the exogenous ones.

    Raises
    ------
    UnsupportedError
        A random box would have to be copied and is not a function of a noise of its own.
    """
    held = {site_box(diagram, name)[0]: name for name in do}
    exogenous = _exogenous(diagram)
    reached = descendants(diagram, held)
    recorder, inputs = start(diagram)
    refs: list[Any] = [*inputs, *[None] * (len(diagram.wires) - len(inputs))]
    other = list(refs)
    starts = first_wires(diagram)
    maker = {
        w: k
        for k, (s, n) in enumerate(zip(starts, diagram.nodes, strict=True))
        for w in range(s, s + len(n.box.cod))
    }
    with recording(recorder):
        for k, node in enumerate(diagram.nodes):
            given = tuple(refs[w] for w in node.inputs)
            box = _as_delta(node.box) if node.box.name in computed_evidence else node.box
            made = [w.ref for w in recorder.add(box, given)]
            if k in held:
                twins = [_held(recorder, held[k], node.box, do[held[k]])]
            elif k in exogenous or (share and k not in reached):
                twins = made
            else:
                moved = tuple(other[w] for w in node.inputs)
                twins = _copy(recorder, node.box, given, moved, made)
            refs[starts[k] : starts[k] + len(made)] = made
            other[starts[k] : starts[k] + len(made)] = twins
        outputs = [refs[w] for w in diagram.outputs]
        names = list(diagram.output_names)
        for wire, name in zip(diagram.outputs, diagram.output_names, strict=True):
            k = maker.get(wire, -1)
            if name is None or (k in exogenous and k not in held):
                continue
            ref = other[wire]
            if PREFIX + name not in _names(recorder):
                ref = computed_site(
                    recorder, PREFIX + name, Wire(recorder, ref, recorder.space(ref)), plates=()
                ).ref
            outputs.append(ref)
            names.append(PREFIX + name)
    out = recorder.freeze(outputs, tuple(names))
    return tidy(out, (*data, *recorder.data))


def _names(recorder: Recorder) -> set[str | None]:
    return {box.name for box, _ in recorder.nodes}


def _exogenous(diagram: Diagram) -> set[int]:
    """Random boxes that no random box reaches."""
    carried: set[int] = set()
    found = set()
    starts = first_wires(diagram)
    for k, node in enumerate(diagram.nodes):
        below = any(w in carried for w in node.inputs)
        if not below and not node.box.deterministic:
            found.add(k)
        if below or not node.box.deterministic:
            carried.update(range(starts[k], starts[k] + len(node.box.cod)))
    return found


def _held(recorder: Recorder, name: str, old: Box, value: Any) -> Any:
    if old.body is not None:
        raise UnsupportedError(f"twin(do={name}): the site is inside a scan; unroll it first.")
    return constant_site(recorder, PREFIX + name, old.cod[0], value, old).ref


def _copy(
    recorder: Recorder, box: Box, given: tuple[Any, ...], moved: tuple[Any, ...], made: list[Any]
) -> list[Any]:
    """The counterfactual copy of a box."""
    if box.deterministic:
        name = PREFIX + box.name if box.name is not None else None
        return [w.ref for w in recorder.add(replace(box, name=name), moved)]
    if box.op == "factor":
        return []
    if box.op != "sample":
        raise UnsupportedError(
            f"twin: box {str(box)!r} is random and depends on what the intervention changes. "
            "Unroll the scan, or write it as a function of exogenous noise."
        )
    old = _arguments(recorder, box, given)
    new = _arguments(recorder, box, moved)
    family = str(strip(box.spec[0]).kind).rsplit(":", 1)[-1]
    same = {k for k in old if _same(old[k], new[k])}
    x = Wire(recorder, made[0], recorder.space(made[0]))
    value = replay(str(box.name), family, old, new, same, x)
    wire = computed_site(recorder, PREFIX + str(box.name), value, box.cod[0], box.plates)
    return [wire.ref]


def _arguments(recorder: Recorder, box: Box, refs: tuple[Any, ...]) -> dict[str, Any]:
    base = strip(box.spec[0])
    wires = [Wire(recorder, r, recorder.space(r)) for r in refs]
    found = {k: from_template(t, wires) for k, t in zip(base.keys, base.items, strict=True)}
    return {k: v.array() if isinstance(v, StaticArray) else v for k, v in found.items()}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Wire) or isinstance(b, Wire):
        return isinstance(a, Wire) and isinstance(b, Wire) and a.ref == b.ref
    return True


def replay(
    site: str, family: str, old: dict[str, Any], new: dict[str, Any], same: set[str], x: Any
) -> Any:
    """The value under the parameters ``new`` for the noise that gave ``x`` under ``old``.

    ``same`` names the parameters that have not changed.

    Raises :class:`UnsupportedError` for families that are no function of one noise.
    """
    p, q = _Parameters(old), _Parameters(new)
    if family in _LOC_SCALE:
        return q.loc + q.scale * ((x - p.loc) / p.scale)
    if family == "LogNormal":
        return np.exp(q.loc + q.scale * ((np.log(x) - p.loc) / p.scale))
    if family in _SCALE:
        return x * (q.scale / p.scale)
    if family == "Exponential" or (family == "Gamma" and "concentration" in same):
        return x * (p.rate / q.rate)
    if family == "Uniform":
        return q.low + (q.high - q.low) * ((x - p.low) / (p.high - p.low))
    if family == "Weibull":
        return q.scale * (x / p.scale) ** (p.concentration / q.concentration)
    if family == "MultivariateNormal" and set(old) - {"loc"} <= same:
        return q.loc + (x - p.loc)
    if family == "Delta":
        return q.v
    raise UnsupportedError(
        f"twin: site {site!r} ~ {family} depends on what the intervention changes, and {family} "
        "does not say which function of which noise it is, so the counterfactual is not defined. "
        "Write the mechanism out: for a binary site, u = pp.sample('u', dist.Uniform(0, 1)) and "
        f"pp.deterministic({site!r}, u < p)."
    )


class _Parameters:
    """Parameters by name, with NumPyro's defaults for what was not given."""

    _DEFAULTS: ClassVar[dict[str, float]] = {
        "loc": 0.0,
        "scale": 1.0,
        "rate": 1.0,
        "low": 0.0,
        "high": 1.0,
    }

    def __init__(self, values: dict[str, Any]):
        self.values = values

    def __getattr__(self, name: str) -> Any:
        value = self.values.get(name)
        return self._DEFAULTS[name] if value is None else value


def _as_delta(box: Box) -> Box:
    """A computed site as a sample box with a point mass, so that it can be observed."""
    if box.op != "deterministic":
        return box
    hole = box.spec.items[0].items[0]
    template = to_template(Description("dist", "Delta", (("v", hole),)), lambda v: None)
    space = box.cod[0]
    return replace(
        box, op="sample", spec=(template, space.shape, 0, True), deterministic=False, plates=()
    )


__all__ = ["PREFIX", "replay", "twin"]
