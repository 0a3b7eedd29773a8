"""Independence Metropolis: proposals from one fixed distribution, wherever the chain is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore_mcmc.metropolis import choose


class Weighed(NamedTuple):
    """``x`` float[d], its ``log_density`` and log importance weight log γ(x) − log q(x)."""

    x: Any
    log_density: Any
    log_weight: Any


@dataclass(frozen=True)
class Independence:
    """y ~ q, accepted with probability min(1, w(y)/w(x)), w = γ/q.

    ``params`` is q, any :class:`ppcore.transport.Normalised` that is a pytree: a fitted Student-t,
    a normalizing flow, a prior. Reversible for γ, and uniformly ergodic if w is bounded; where q
    has lighter tails than γ the chain gets stuck there. Works on finite targets too.

    Source: Hastings 1970, doi:10.1093/biomet/57.1.97; Tierney 1994, doi:10.1214/aos/1176325750.

    >>> Independence().contract.reversible
    True
    """

    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Weighed:
        log_density = target.log_density(x)
        return Weighed(x, log_density, log_density - params.log_prob(x))

    def refresh(self, target: Any, state: Weighed) -> Weighed:
        log_density = target.log_density(state.x)
        return Weighed(state.x, log_density, state.log_weight + log_density - state.log_density)

    def step(
        self, key: Any, target: Any, state: Weighed, params: Any
    ) -> tuple[Weighed, dict[str, Any]]:
        k_propose, k_accept = random.split(key)
        new = self.init(None, target, params.sample(k_propose, 1)[0], params)
        state, info = choose(k_accept, new.log_weight - state.log_weight, new, state)
        del info["diverging"]  # A proposal far out is no failure of an integrator.
        return state, info
