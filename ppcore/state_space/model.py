"""State-space models: a model with one scan, read as start, transition and emission.

With s₀ the scan's first carry, z_t the sites of step t and y_t its evidence,

    γ(θ, s₀, z_{1:T}) = p(θ) p(s₀ | θ) G₀ Π_t p(z_t | s_{t−1}, θ) G_t,   s_t = f_t(s_{t−1}, z_t, θ),

where G_t is the density of y_t and of the factors of step t, given what came before them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.diagram import Box, Diagram
from ppcore.errors import UnsupportedError
from ppcore.semantics.interpret import Handler, interpret, refuse, site_key
from ppcore.semantics.log_density import bijection
from ppcore.state_space.plan import Plan, plan_of

Values = dict[str, Any]


class Free(NamedTuple):
    """A site's value in unconstrained coordinates; its density then counts the Jacobian."""

    u: Any


class Start(NamedTuple):
    """What comes before the first step: ``values`` of its latent sites, the scan's ``inputs``.

    ``log_p`` is the density of the sites whose values were given, ``log_g`` = log G₀.
    """

    carry: tuple[Any, ...]
    inputs: tuple[Any, ...]
    values: Values
    log_p: Any
    log_g: Any


class Moved(NamedTuple):
    """One step: s_t, z_t, log p of the given part of z_t, and log G_t."""

    carry: tuple[Any, ...]
    values: Values
    log_p: Any
    log_g: Any


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class StateSpace:
    """A model with exactly one ``pp.scan``, its data and evidence.

    Parameters
    ----------
    joint : Diagram
        Data → all sites; static.
    observed : tuple of str
        Sites with evidence; static.
    data, evidence : tuples of arrays
        Leaves.
    """

    joint: Diagram
    observed: tuple[str, ...]
    data: tuple[Any, ...]
    evidence: tuple[Any, ...]

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        return (self.data, self.evidence), (self.joint, self.observed)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], leaves: tuple[Any, ...]) -> StateSpace:
        return cls(*static, *leaves)

    @property
    def plan(self) -> Plan:
        """What is static about the chain."""
        return plan_of(self.joint, self.observed)

    @property
    def length(self) -> int:
        """T, the number of steps."""
        return int(self.plan.chain.box.spec.length)

    def start(self, key: Any, given: Mapping[str, Any]) -> Start:
        """Everything before the first step; sites without an entry in ``given`` are drawn.

        ``key`` may be a script if what is drawn is finite, and None if nothing is.
        """
        chain = self.plan.chain
        known = {**self._evidence(chain.before), **given}
        outs, found = _walk(chain.before, self.data, self.observed, known, key)
        inputs = outs[len(outs) - len(chain.inputs) :]
        k = chain.box.spec.carry
        values, log_p, log_g = found
        return Start(_arrays(inputs[:k]), tuple(inputs[k:]), values, log_p, log_g)

    def step(
        self, key: Any, inputs: Any, carry: Any, element: Any, given: Mapping[str, Any]
    ) -> Moved:
        """One step from ``carry``; ``element`` is one of :meth:`elements`."""
        box = self.plan.chain.box
        assert box.body is not None
        xs, evidence = element
        outs, found = _walk(
            box.body,
            (*carry, *xs, *inputs[box.spec.xs :]),
            self.observed,
            {**evidence, **given},
            key,
        )
        return Moved(_arrays(outs[: box.spec.carry]), *found)

    def elements(self, inputs: Any) -> tuple[Any, Any]:
        """Stacked inputs and evidence of the steps, in the order of the walk; leading axis T."""
        box = self.plan.chain.box
        evidence = self._evidence(box.body)
        return self.turned((list(inputs[: box.spec.xs]), evidence))

    def turned(self, stacked: Any) -> Any:
        """Stacked values between the site's order and the order of the walk (its own inverse)."""
        if not self.plan.chain.box.spec.reverse:
            return stacked
        return jax.tree.map(lambda a: a[::-1], stacked)

    def _evidence(self, diagram: Diagram | None) -> Values:
        assert diagram is not None
        inside = set(diagram.named("sample"))
        found = zip(self.observed, self.evidence, strict=True)
        return {n: jnp.asarray(v) for n, v in found if n in inside}

    def shared(self, given: tuple[str, ...]) -> tuple[bool, ...]:
        """Whether each of ``Start.inputs`` is the same for all particles when ``given`` is."""
        k = self.plan.chain.box.spec.carry
        return tuple(not (s - set(given)) for s in self.plan.sources[k:])


def state_space(target: Any) -> StateSpace:
    """A model's target as a state-space model.

    Raises
    ------
    UnsupportedError
        It is no model with one ``pp.scan`` whose evidence lies in the steps or before them, or a
        step holds a scan with random sites; the message says which and what to do.

    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def walk(n):
    ...     scale = pp.sample("scale", dist.HalfNormal(1))
    ...     def step(x, _):
    ...         x = pp.sample("x", dist.Normal(x, scale))
    ...         pp.sample("y", dist.Normal(x, 1))
    ...         return x, None
    ...     pp.scan(step, pp.sample("x0", dist.Normal(0, 1)), length=n)
    >>> space = state_space(walk(3).observe(y=[0.1, 0.2, 0.3]).target())
    >>> space.plan.parameters, space.plan.initial, space.plan.states
    (('scale',), ('x0',), ('x',))
    """
    if not hasattr(target, "joint"):
        raise UnsupportedError(
            f"Particle filters need a model with a pp.scan; {type(target).__name__} is a bare "
            "density. Declare the model with @pp.model."
        )
    space = StateSpace(target.joint, target.observed, tuple(target.data), tuple(target.evidence))
    assert space.plan is not None
    return space


class _Walker(Handler):
    """Draws sites without an entry, weighs those with one; evidence and factors make log G."""

    def __init__(self, observed: tuple[str, ...], key: Any) -> None:
        self.hidden, self.key = set(observed), key

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        name = str(box.name)
        if name in self.hidden:
            log_g = _log_prob(box, distribution, given)
            return given, {"log_g": log_g}
        if isinstance(given, Free):
            t = bijection(distribution)
            value = t(given.u)
            log_p = distribution.log_prob(value).sum()
            log_p = log_p + t.log_abs_det_jacobian(given.u, value).sum()
            return value, {"value": value, "log_p": log_p}
        if given is not None:
            log_p = _log_prob(box, distribution, given)
            return given, {"value": given, "log_p": log_p}
        if not box.spec[3]:
            raise refuse(
                name,
                "has an improper prior, which cannot be drawn from",
                "Give it a proper distribution, or a value.",
            )
        value = _draw(distribution, self.key, name)
        if box.cod[0].support.discrete:
            value = value.astype(int)
        return value, {"value": value}

    def factor(self, box: Box, log_weight: Any) -> Any:
        return {"log_g": log_weight.sum()}


def _log_prob(box: Box, distribution: Any, value: Any) -> Any:
    """log p(value) of a sample box as a sum, −inf outside a support that other values decide."""
    if box.cod[0].support.dependent:
        log_prob = distribution.log_prob(value)
        return jnp.where(distribution.support(jnp.asarray(value)), log_prob, -jnp.inf).sum()
    return distribution.log_prob(value).sum()


def _draw(distribution: Any, key: Any, name: str) -> Any:
    """A draw by key; by script, through every value of a finite support."""
    if not isinstance(key, random.Script):
        return distribution.sample(site_key(key, name))
    if not distribution.has_enumerate_support:
        raise UnsupportedError(f"Site {name!r} is not finite, so a script cannot walk its values.")
    values = distribution.enumerate_support(expand=True)
    log_p = jnp.moveaxis(distribution.log_prob(values), 0, -1)
    index = random.categorical(key, log_p)
    return jnp.take_along_axis(values, index[None], axis=0)[0]


def _walk(
    diagram: Diagram, inputs: Any, observed: tuple[str, ...], given: Values, key: Any
) -> tuple[list[Any], tuple[Values, Any, Any]]:
    outs, records = interpret(diagram, tuple(inputs), _Walker(observed, key), given)
    zero = jnp.zeros(())
    found = {n: r for n, r in records.items() if isinstance(r, dict)}
    values = {n: r["value"] for n, r in found.items() if "value" in r}
    log_p = sum((r["log_p"] for r in found.values() if "log_p" in r), zero)
    log_g = sum((r["log_g"] for r in found.values() if "log_g" in r), zero)
    return outs, (values, log_p, log_g)


def _arrays(values: Any) -> tuple[Any, ...]:
    return tuple(jnp.asarray(v) for v in values)
