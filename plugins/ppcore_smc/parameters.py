"""A model with one scan as parameters θ and a path, between sites and coordinates of x."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.errors import UnsupportedError
from ppcore.semantics.log_density import layout
from ppcore.state_space import Free, StateSpace, Values, state_space
from ppcore_smc.filtering import Proposal, run_filter, traced


@dataclass(frozen=True)
class Split:
    """Where θ lies in x, of a target of any kind.

    A target that is a bare density is all parameters and no path.

    Attributes
    ----------
    space : StateSpace or None
    at : dict of site to slice
        θ's coordinates in x.
    shapes : dict of site to shape
        Of its unconstrained values.
    """

    space: StateSpace | None
    at: dict[str, slice]
    shapes: dict[str, tuple[int, ...]]
    dim: int

    @property
    def index(self) -> np.ndarray:
        """θ's places in x: int[k]."""
        if self.space is None:
            return np.arange(self.dim)
        return np.concatenate([np.zeros(0, int), *(np.r_[w] for w in self.at.values())])

    def free(self, u: Any) -> dict[str, Free]:
        """float[k] -> {site: unconstrained value}."""
        found, done = {}, 0
        for site, where in self.at.items():
            size = where.stop - where.start
            found[site] = Free(u[done : done + size].reshape(self.shapes[site]))
            done += size
        return found

    def theta(self, key: Any, u: Any) -> tuple[Values, Any]:
        """θ in its own coordinates, and its log prior density at u, Jacobian included."""
        assert self.space is not None
        start = self.space.start(key, self.free(u))
        return {s: start.values[s] for s in self.at}, start.log_p

    def log_joint(self, u: Any, path: Values) -> Any:
        """log γ of θ(u) and the path, evidence included; float[].

        ``path`` holds the initial sites, and the sites of the steps stacked in the walk's order.
        """
        space = self.space
        assert space is not None
        inside = {s: path[s] for s in space.plan.states}
        start = space.start(None, {**self.free(u), **{s: path[s] for s in space.plan.initial}})

        def step(carry: Any, now: Any) -> tuple[Any, Any]:
            element, values = now
            moved = space.step(None, start.inputs, carry, element, values)
            kept = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), moved.carry, carry)
            return kept, moved.log_p + moved.log_g

        along = (space.elements(start.inputs), inside)
        terms = jax.lax.scan(step, start.carry, along, space.length)[1]
        return start.log_p + start.log_g + terms.sum()

    def path_of(self, values: Values) -> Values:
        """What of the sites' values is the path, in the walk's order."""
        assert self.space is not None
        plan = self.space.plan
        inside = self.space.turned({s: values[s] for s in plan.states})
        return {**{s: values[s] for s in plan.initial}, **inside}

    def join(self, target: Any, theta: Values, path: Values) -> Any:
        """x: float[d] of θ and a path."""
        assert self.space is not None
        states = self.space.plan.states
        inside = self.space.turned({s: path[s] for s in states})
        return target.unconstrain({**theta, **path, **inside})


def split_target(target: Any) -> Split:
    """The parameters of a target.

    Raises :class:`ppcore.errors.UnsupportedError` for a model that is no single scan, or with a
    discrete parameter.
    """
    if not hasattr(target, "joint"):
        return Split(None, {}, {}, target.dim)
    space = state_space(target)
    spaces = dict(zip(space.joint.output_names, space.joint.cod, strict=True))
    for site in space.plan.parameters:
        if spaces[site].support.discrete:
            raise UnsupportedError(
                f"Parameter {site!r} is discrete, which the walk over parameters cannot move. Use "
                "'particle_filter', which draws it with every particle, or observe it."
            )
    where = layout(target.diagram)
    shapes = dict(zip(where.names, where.shapes, strict=True))
    names = space.plan.parameters
    at = {s: where.slices[s] for s in names}
    return Split(space, at, {s: shapes[s] for s in names}, where.dim)


def estimate(
    key: Any,
    target: Any,
    split: Split,
    u: Any,
    particles: int,
    proposal: Proposal,
    scheme: str = "systematic",
    threshold: float = 0.5,
) -> tuple[Any, Any, Any]:
    """``(x, log p(u), log Ẑ(θ))``, x holding θ and a path of a particle filter at θ; traceable.

    E[Ẑ] = p(y | θ). Of a target without a scan, the likelihood itself.
    """
    if split.space is None:
        log_prior = target.log_prior(u)
        return u, log_prior, target.log_density(u) - log_prior
    k_theta, k_filter, k_last = random.split(key, 3)
    theta, log_prior = split.theta(k_theta, u)
    filtered = run_filter(k_filter, split.space, theta, particles, proposal, scheme, threshold)
    last = random.categorical(k_last, filtered.last.log_weight)
    first, inside = traced(filtered, last)
    before = {s: filtered.start.values[s][first] for s in split.space.plan.initial}
    x = split.join(target, theta, {**before, **inside})
    # A path that overflows on its way to R^d is one that the chain must not take.
    return x, log_prior, jnp.where(jnp.isfinite(x).all(), filtered.log_z, -jnp.inf)
