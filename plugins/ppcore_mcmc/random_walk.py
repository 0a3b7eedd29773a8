"""Random-walk Metropolis with a preconditioned Gaussian step; no gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_mcmc.metropolis import Scored, Step, choose, score


@dataclass(frozen=True)
class RandomWalk:
    """A Gaussian step from where the chain is, accepted or not.

    y = x + ε F z with z ~ N(0, I), accepted with probability min(1, γ(y)/γ(x)). The proposal is
    symmetric, so the kernel is reversible for γ. The optimal acceptance is near 0.234 in many
    dimensions.

    Source: Metropolis et al. 1953, doi:10.1063/1.1699114; Roberts, Gelman & Gilks 1997,
    doi:10.1214/aoap/1034625254.

    >>> RandomWalk().contract
    Invariant(reversible=True, irreducible=True)
    """

    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()
    target_accept: ClassVar[float] = 0.234
    error_order: ClassVar[float] = 1.0

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Step:
        return Step(preconditioner, step)

    def init(self, key: Any, target: Any, x: Any, params: Step) -> Scored:
        return score(target, x)

    def refresh(self, target: Any, state: Scored) -> Scored:
        return score(target, state.x)

    def step(
        self, key: Any, target: Any, state: Scored, params: Step
    ) -> tuple[Scored, dict[str, Any]]:
        k_move, k_accept = random.split(key)
        z = random.normal(k_move, state.x.shape, state.x.dtype)
        new = score(target, state.x + params.step_size * params.preconditioner.push(z))
        return choose(k_accept, new.log_density - state.log_density, new, state)


def random_walk(
    target_accept: float = 0.234,
    warmup_draws: int = 640,
    max_warmup_draws: int = 2560,
    metric: str = "auto",
    most_thin: int | None = None,
) -> KernelEngine:
    """Chains of :class:`RandomWalk`, tuned together, as an engine.

    Parameters
    ----------
    target_accept : float
        Mean acceptance probability to tune ε for.
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most until the chains have settled.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    most_thin : int, optional
        The most transitions that may make one draw; by default 48.

    >>> random_walk(target_accept=0.3).contract.reversible
    True
    """
    return KernelEngine(
        RandomWalk(),
        warmup_draws,
        max_warmup_draws,
        target_accept,
        metric=metric,
        most_thin=most_thin,
    )
