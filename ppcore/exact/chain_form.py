"""The steps of a linear-Gaussian chain: one affine map of (state, noise) each.

With u = (x, ε), x the state before a step and ε ~ N(0, I) its noise,

    x' = f + F u,        0 = r + J u + D η,        sites = c + C u,        η ~ N(0, I).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box
from ppcore.exact.chain import in_order
from ppcore.semantics.gaussian import (
    Records,
    Wire,
    noise_shapes,
    scan_degrees,
    split_noise,
    walk,
)
from ppcore.semantics.gaussian_site import site_of


@dataclass(frozen=True)
class Plan:
    """What is static about a chain's steps.

    Attributes
    ----------
    box : Box
        The scan.
    degrees : tuple of int
        Of the scan's inputs.
    noise : tuple of (site, shape)
        ε of one step.
    observed : tuple of str
        Sites with evidence in a step.
    state, size : int
        Lengths of x (carry and random captured values) and of u.
    """

    box: Box
    degrees: tuple[int, ...]
    noise: tuple[tuple[str, tuple[int, ...]], ...]
    observed: tuple[str, ...]
    state: int
    size: int

    @property
    def state_inputs(self) -> list[int]:
        """The scan's inputs that make up x: random carry, then random captured values."""
        return [i for i, d in enumerate(self.degrees) if d]


def plan(box: Box, wires: list[Wire], evidence: Mapping[str, Any]) -> Plan:
    """Degrees and sizes; raises :class:`ppcore.semantics.gaussian.NotGaussian`."""
    assert box.body is not None
    inside = box.body.named("sample")
    observed = tuple(n for n in inside if n in evidence)
    found = tuple(scan_degrees(box, wires, {n: evidence[n] for n in observed}))
    noise = tuple(sorted(noise_shapes(box.body, observed).items()))
    state = sum(s.size for s, d in zip(box.body.dom, found, strict=True) if d)
    q = sum(int(np.prod(s, dtype=int)) for _, s in noise)
    return Plan(box, found, noise, observed, state, state + q)


@partial(jax.jit, static_argnums=0)
def steps(plan: Plan, inputs: list[Any], evidence: dict[str, Any]) -> dict[str, Any]:
    """Coefficients of all steps, stacked in the order of the walk.

    ``inputs`` are the scan's inputs (random ones are not read); ``evidence`` the observed sites of
    a step, stacked in the order of the walk, as are the xs.
    """
    spec = plan.box.spec
    k, n = spec.carry, spec.carry + spec.xs
    xs = inputs[k:n]

    def one(carry: Any, element: Any) -> Any:
        x, given = element
        return _step(plan, [*carry, *x, *inputs[n:]], given)

    constant = [i for i in range(k) if not plan.degrees[i]]
    if constant:
        start = [jnp.asarray(v) for v in inputs[:k]]
        return jax.lax.scan(one, start, (xs, evidence), length=spec.length)[1]  # type: ignore[no-any-return]
    if not xs and not evidence:
        form = one(inputs[:k], ([], {}))[1]
        return jax.tree_util.tree_map(lambda v: jnp.broadcast_to(v, (spec.length, *v.shape)), form)
    return jax.vmap(lambda e: one(inputs[:k], e)[1])((xs, evidence))  # type: ignore[no-any-return]


def _step(plan: Plan, values: list[Any], evidence: dict[str, Any]) -> Any:
    body = plan.box.body
    assert body is not None
    k = plan.box.spec.carry

    def run(u: Any) -> Any:
        wires, at = [], 0
        for value, space, degree in zip(values, body.dom, plan.degrees, strict=True):
            if degree:
                wires.append(Wire(u[at : at + space.size].reshape(space.shape), degree))
                at += space.size
            else:
                wires.append(Wire(value))
        records = Records()
        outs = walk(body, wires, evidence, split_noise(u[at:], plan.noise), records)
        moved = [jnp.ravel(outs[i].value) for i in range(k) if plan.degrees[i]]
        kept = sum(s.size for s, d in zip(body.dom[:k], plan.degrees[:k], strict=True) if d)
        following = jnp.concatenate([jnp.zeros(0), *moved, u[kept : plan.state]])
        residual = [
            jnp.ravel(records.residuals[name]) for name in _in_order(plan, records.residuals)
        ]
        parts = (following, jnp.concatenate([jnp.zeros(0), *residual]), records.sites)
        constant = [
            o.value if not d else v
            for o, d, v in zip(outs[:k], plan.degrees[:k], values[:k], strict=True)
        ]
        return parts, (constant, *records.parts()[2:])

    parts, push, (constant, spreads, masks, weights) = jax.linearize(
        run, jnp.zeros(plan.size), has_aux=True
    )
    columns = jax.vmap(push, out_axes=-1)(jnp.eye(plan.size))
    (f, r, c), (big_f, j, big_c) = parts, columns
    d, kept = _noise(plan, spreads, masks)
    form = {
        "f": f,
        "F": big_f,
        "r": jnp.where(kept, r, 0.0),
        "J": jnp.where(kept[:, None], j, 0.0),
        "D": d,
        "c": c,
        "C": big_c,
        "weight": sum((w.sum() for w in weights.values()), jnp.zeros(()))
        + 0.5 * jnp.log(2 * jnp.pi) * (~kept).sum(),
    }
    return constant, form


def _in_order(plan: Plan, names: Mapping[str, Any]) -> list[str]:
    """Observed sites in the step's order, which decides whose values determine whose."""
    assert plan.box.body is not None
    return [str(b.name) for b in plan.box.body.boxes() if b.name in names]


def _noise(plan: Plan, spreads: dict[str, Any], masks: dict[str, Any]) -> tuple[Any, Any]:
    """D: float[m, m], and which elements count; the others are given unit noise."""
    blocks, kept = [jnp.zeros((0, 0))], [jnp.zeros(0, bool)]
    boxes = {b.name: b for b in plan.box.body.boxes()} if plan.box.body is not None else {}
    for name in _in_order(plan, spreads):
        site, spread = site_of(boxes[name]), spreads[name]
        assert site is not None
        if site.dense:
            blocks.extend(spread.reshape(-1, *spread.shape[-2:]))
            kept.append(jnp.ones(int(np.prod(site.shape, dtype=int)), bool))
            continue
        mask = jnp.ravel(masks.get(name, jnp.ones(site.shape, bool)))
        blocks.append(jnp.diag(jnp.where(mask, jnp.ravel(spread), 1.0)))
        kept.append(mask)
    return jax.scipy.linalg.block_diag(*blocks), jnp.concatenate(kept)


def walked(plan: Plan, inputs: list[Any], evidence: Mapping[str, Any]) -> Any:
    """xs and evidence of the steps in the order of the walk."""
    spec = plan.box.spec
    k, n = spec.carry, spec.carry + spec.xs
    turned = in_order(list(inputs[k:n]), spec.reverse)
    given = in_order({name: evidence[name] for name in plan.observed}, spec.reverse)
    return [*inputs[:k], *turned, *inputs[n:]], given
