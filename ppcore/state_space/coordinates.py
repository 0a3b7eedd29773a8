"""Unconstrained coordinates of one step's continuous sites, for proposals that are densities."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppcore.diagram import Box, Diagram
from ppcore.diagram.condition import condition
from ppcore.errors import UnsupportedError
from ppcore.semantics.interpret import Handler, interpret
from ppcore.semantics.log_density import bijection, layout
from ppcore.state_space.model import Free, StateSpace, Values


@lru_cache(maxsize=64)
def shapes(joint: Diagram, observed: tuple[str, ...], states: tuple[str, ...]) -> dict[str, Any]:
    """{site: shape of its unconstrained value in one step}.

    Raises :class:`ppcore.errors.UnsupportedError` for a discrete site.
    """
    spaces = dict(zip(joint.output_names, joint.cod, strict=True))
    for site in states:
        if spaces[site].support.discrete:
            raise UnsupportedError(
                f"Site {site!r} is discrete, so its step has no density on R^k to guide. Use the "
                "bootstrap proposal."
            )
    found = layout(condition(joint, observed))
    of = dict(zip(found.names, found.shapes, strict=True))
    return {site: of[site][1:] for site in states}


def split(space: StateSpace, u: Any) -> dict[str, Free]:
    """float[k] -> {site: unconstrained value}."""
    made, at = {}, 0
    for site, shape in shapes(space.joint, space.observed, space.plan.states).items():
        size = int(np.prod(shape, dtype=int))
        made[site] = Free(u[at : at + size].reshape(shape))
        at += size
    return made


def size(space: StateSpace) -> int:
    """k, the number of unconstrained coordinates of one step."""
    found = shapes(space.joint, space.observed, space.plan.states)
    return sum(int(np.prod(s, dtype=int)) for s in found.values())


def coordinates(space: StateSpace, inputs: Any, carry: Any, element: Any, values: Values) -> Any:
    """The sites of a step at ``values``, unconstrained; float[k]."""
    return _walk(_Unconstrain, space, inputs, carry, element, values)


def centre(space: StateSpace, inputs: Any, carry: Any, element: Any) -> Any:
    """Where the transition is centred: the means of the sites, one given the other; float[k].

    A site whose distribution has no finite mean is taken at the origin.
    """
    return _walk(_Centre, space, inputs, carry, element, {})


class _Unconstrain(Handler):
    def __init__(self, observed: tuple[str, ...]) -> None:
        self.observed_sites = set(observed)

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        if box.name in self.observed_sites:
            return given, {}
        return given, {"u": bijection(distribution).inv(given)}


class _Centre(_Unconstrain):
    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        if given is not None:
            return given, {}
        t = bijection(distribution)
        origin = jnp.zeros(t.inverse_shape(box.cod[0].shape), jnp.result_type(float))
        try:
            mean = jnp.broadcast_to(distribution.mean, box.cod[0].shape)
        except NotImplementedError:
            return t(origin), {"u": origin}
        u = t.inv(mean)
        u = jnp.where(jnp.isfinite(u), u, 0.0)
        return t(u), {"u": u}


def _walk(
    handler: Any, space: StateSpace, inputs: Any, carry: Any, element: Any, values: Values
) -> Any:
    box = space.plan.chain.box
    assert box.body is not None
    xs, evidence = element
    given = (*carry, *xs, *inputs[box.spec.xs :])
    records = interpret(box.body, given, handler(space.observed), {**evidence, **values})[1]
    parts = [jnp.ravel(records[s]["u"]) for s in space.plan.states]
    return jnp.concatenate([jnp.zeros(0), *parts])
