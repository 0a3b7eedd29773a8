"""Normal observations with one scale: a sum of squares in the place of a density for each.

Σ_n log N(y_n; m_n, s) = −½ Σ r_n² / s² − n log s − n/2 log 2π: the scale is divided by once and its
logarithm taken once, not for every observation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ppcore.diagram import Hole
from ppcore.recording.template import from_template
from ppcore.rewrite.build import Builder
from ppcore.rewrite.protocol import NotApplicable, Problem, Rewritten
from ppcore.rewrite.sites import has_labels, told


@dataclass(frozen=True)
class Parameters:
    """Templates of location and scale, kept from being filled before their box runs."""

    loc: Any
    scale: Any


def normal_residuals(*values: Any, parameters: Parameters) -> Any:
    """Σ log N(y; m, s) with s a number; ``values``: the box's inputs, y last."""
    import jax.numpy as jnp

    *inputs, y = values
    loc = from_template(parameters.loc, inputs)
    s = jnp.reshape(jnp.asarray(from_template(parameters.scale, inputs), y.dtype), ())
    n = y.size
    squares = jnp.sum((y - loc) ** 2)
    return -0.5 * squares / s**2 - n * jnp.log(s) - 0.5 * n * math.log(2 * math.pi)


@dataclass(frozen=True)
class Residuals:
    """Let normal observations that share a scale enter by their sum of squares.

    The density at every point is unchanged. For what no statistics can replace: predictors that are
    not linear, or of several large groups.

    >>> Residuals().name
    'residuals'
    """

    name: ClassVar[str] = "residuals"
    summary: ClassVar[str] = "normal observations with one scale enter by their sum of squares"

    def apply(self, problem: Problem) -> Rewritten | NotApplicable:
        """The problem with every such site replaced."""
        if has_labels(problem.diagram):
            return NotApplicable("discrete sites are summed out here, observation by observation.")
        found = [k for k, n in enumerate(problem.diagram.nodes) if _applies(n.box)]
        if not found:
            return NotApplicable("no normal site is observed with one scale for many values.")
        builder = Builder()
        tokens = builder.copy(problem, frozenset(found))
        for k in found:
            node = problem.diagram.nodes[k]
            site = told(node.box)
            parameters = Parameters(
                site.arguments.get("loc", 0.0), site.arguments.get("scale", 1.0)
            )
            inputs = [tokens[w] for w in node.inputs]
            name, dtype = str(node.box.name), site.space.dtype
            builder.weight(name, normal_residuals, inputs, dtype, parameters=parameters)
        names = ", ".join(str(problem.diagram.nodes[k].box.name) for k in found)
        return Rewritten(builder.finish(), None, f"{names}: one sum of squares")


def _applies(box: Any) -> bool:
    if box.op != "observe":
        return False
    site = told(box)
    if site.family != "Normal" or site.masks or site.space.size < 2:
        return False
    if np.dtype(site.space.dtype).kind != "f":
        return False
    loc, scale = site.arguments.get("loc", 0.0), site.arguments.get("scale", 1.0)
    one = not isinstance(scale, Hole) or box.dom[scale.index].size == 1
    plain = all(isinstance(t, Hole | float | int) for t in (loc, scale))
    return plain and one
