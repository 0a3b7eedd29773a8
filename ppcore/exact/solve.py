"""Try the exact solvers in turn."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from ppcore.diagram import Diagram
from ppcore.errors import SettingsError, did_you_mean
from ppcore.exact.chain import NoChain
from ppcore.exact.protocol import NotExact, Solution

SOLVERS: dict[str, str] = {
    "forward_backward": "ppcore.exact.forward_backward_solver:solve_forward_backward",
    "tensor": "ppcore.exact.tensor:solve_tensor",
    "kalman": "ppcore.exact.kalman_solver:solve_kalman",
    "gaussian": "ppcore.exact.gaussian:solve_gaussian",
    "conjugate": "ppcore.exact.conjugate:solve_conjugate",
}
"""Solver name -> "module:function", in the order in which they are tried."""


def solve(
    joint: Diagram,
    data: Sequence[Any],
    evidence: Mapping[str, Any],
    solvers: Sequence[str] | None = None,
) -> Solution:
    """The exact posterior by the first solver that takes the model.

    Parameters
    ----------
    joint, data, evidence
        See :mod:`ppcore.exact`.
    solvers : sequence of str, optional
        Names from ``SOLVERS`` in the order to try; by default all.

    Raises
    ------
    NotExact
        None takes it; the message holds the reason of each.
    ZeroEvidenceError
        The evidence has probability zero.
    """
    reasons = []
    for name in SOLVERS if solvers is None else solvers:
        if name not in SOLVERS:
            raise SettingsError(f"No solver is called {name!r}. {did_you_mean(name, SOLVERS)}")
        module, _, attribute = SOLVERS[name].partition(":")
        try:
            solver = getattr(importlib.import_module(module), attribute)
            return solver(joint, tuple(data), dict(evidence))  # type: ignore[no-any-return]
        except NotExact as reason:
            reasons.append(reason)
    reasons = [r for r in reasons if not isinstance(r, NoChain)] or reasons
    if len(reasons) == 1:
        raise reasons[0]
    detail = "".join(f"\n  {r.solver}: {r.box!r}: {r.why}" for r in reasons)
    first = reasons[0].box if reasons else "the model"
    raise NotExact(
        "exact", first, f"no solver takes the model.{detail}\nUse a sampling engine instead."
    )
