"""The engine that solves a model exactly, or says which box stands in the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ppcore.contract import Contract, Density
from ppcore.exact import NotExact, Solution, solve
from ppcore.model_target import ModelTarget


@dataclass(frozen=True)
class Exact:
    """Draws are independent and follow p(sites | evidence), which is computed, not approximated.

    Parameters
    ----------
    solvers : sequence of str, optional
        Which to try, in turn: "tensor" (finite sites), "gaussian" (linear-Gaussian), "conjugate".
        By default all.

    >>> import ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def coin():
    ...     fair = pp.sample("fair", dist.Bernoulli(0.5))
    ...     pp.sample("heads", dist.Bernoulli(np.where(fair, 0.5, 0.9)))
    >>> import numpy as np
    >>> fit = coin().observe(heads=1).infer(Exact(), seed=0)
    >>> fit.solution.marginal("fair").probs.round(4)
    array([0.6429, 0.3571])
    """

    solvers: Sequence[str] | None = None
    contract: ClassVar[Contract] = Density()
    default_draws: ClassVar[int] = 1000

    def solve(self, target: Any) -> Solution:
        """The posterior of a model's target.

        Raises
        ------
        NotExact
            No solver takes the model; the message holds the reason of each.
        ZeroEvidenceError
            The evidence has probability zero.
        """
        if not isinstance(target, ModelTarget):
            raise NotExact(
                "exact",
                type(target).__name__,
                "it is a bare density, with no boxes to solve. Declare the model with @pp.model, "
                "or use a sampling engine.",
            )
        evidence = dict(zip(target.observed, target.evidence, strict=True))
        return solve(target.joint, target.data, evidence, self.solvers)
