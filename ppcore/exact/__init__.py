"""Exact inference: what a solver takes, what it gives back, and how solvers are tried in turn.

A *solver* is a function ``solve_x(joint, data, evidence) -> Solution``:

- ``joint`` is the joint diagram, data → all sites, as :attr:`ppcore.declare.Model.diagram` and
  ``ModelTarget.joint`` hold it (``ppcore.diagram.condition`` turns sites into effects);
- ``data`` are the values of its inputs, in order;
- ``evidence`` maps observed sites to their values (stacked for sites inside scans).

It returns a :class:`~ppcore.exact.protocol.Solution`, or raises
:class:`~ppcore.exact.protocol.NotExact`, which names the box in the way and why. A solver computes
on the host in float64 and never approximates. One solver a module: ``ppcore.exact.tensor``
(finite), ``ppcore.exact.gaussian`` (linear-Gaussian), ``ppcore.exact.conjugate``; each is listed in
``ppcore.exact.solve.SOLVERS`` and loaded when its turn comes. The functors that solvers are built
on (what one box means) are in ``ppcore.semantics``; operations that turn a diagram into a diagram
are in ``ppcore.causal`` and ``ppcore.rewrite``.

Evidence at a computed site enters as a sample box with ``dist.Delta(expression)``: the indicator of
equality on finite values, a noise-free observation for a Gaussian.
"""

from ppcore.exact.protocol import (
    FiniteMarginal,
    GaussianMarginal,
    Marginal,
    NamedMarginal,
    NotExact,
    Solution,
    ZeroEvidenceError,
)
from ppcore.exact.solve import solve

__all__ = [
    "FiniteMarginal",
    "GaussianMarginal",
    "Marginal",
    "NamedMarginal",
    "NotExact",
    "Solution",
    "ZeroEvidenceError",
    "solve",
]
