"""Particle marginal Metropolis–Hastings: a random walk on θ with a particle filter's likelihood.

u' = u + h F ε, Ẑ(θ') from a particle filter, a path drawn from it, and

    accept with probability min(1, p(u') Ẑ(θ') / (p(u) Ẑ(θ))).

Since E[Ẑ] = p(y | θ), the law of (θ, path) left invariant is the exact posterior, whatever the
number of particles; more of them make it move better. Ẑ(θ) is kept while θ stays.

Source: Andrieu, Doucet & Holenstein (2010), doi:10.1111/j.1467-9868.2009.00736.x; Andrieu &
Roberts (2009), arXiv:0903.5480.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_between, check_count
from ppcore.stages.resampling import check_scheme
from ppcore_smc.bootstrap_filter import Bootstrap
from ppcore_smc.guided_filter import Guided
from ppcore_smc.parameters import Split, estimate, split_target
from ppcore_smc.theta_walk import ThetaWalk, check_choice

PROPOSALS: dict[str, Any] = {"bootstrap": Bootstrap(), "guided": Guided()}


class PMMHState(NamedTuple):
    """x = (θ, path) with the estimate log p(u) Ẑ(θ) that came with it."""

    x: Any
    log_density: Any


@dataclass(frozen=True)
class PMMHKernel:
    """The kernel; ``params`` is ``{"step_size": h, "factor": F[k, k]}`` for θ ∈ R^k.

    On a target that is no state-space model the estimate is exact: a random-walk Metropolis.
    """

    particles: int = 128
    proposal: Any = Bootstrap()
    scheme: str = "systematic"
    threshold: float = 0.5
    contract: ClassVar[Contract] = Invariant(reversible=False)
    auxiliary: ClassVar[tuple[str, ...]] = ("log_density",)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> PMMHState:
        """The state at θ of ``x``, its path replaced by one of a fresh filter."""
        split = split_target(target)
        return self._at(key, target, split, x[split.index])

    def step(self, key: Any, target: Any, state: PMMHState, params: Any) -> tuple[Any, Any]:
        """One proposal of θ with a path."""
        k_walk, k_filter, k_accept = random.split(key, 3)
        split = split_target(target)
        u = state.x[split.index]
        z = random.normal(k_walk, u.shape, u.dtype)
        moved = u + params["step_size"] * (params["factor"] @ z)
        new = self._at(k_filter, target, split, moved)
        log_ratio = new.log_density - state.log_density
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        p = jnp.minimum(1.0, jnp.exp(log_ratio))
        yes = random.uniform(k_accept, (), u.dtype) < p
        state = jax.tree.map(lambda a, b: jnp.where(yes, a, b), new, state)
        info = {"acceptance_rate": p, "log_density": state.log_density}
        return state, {**info, "n_gradients": jnp.asarray(0)}

    def refresh(self, target: Any, state: PMMHState) -> PMMHState:
        """The estimate cannot be recomputed without a key; see ``init``."""
        return state

    def _at(self, key: Any, target: Any, split: Split, u: Any) -> PMMHState:
        x, log_prior, log_z = estimate(
            key, target, split, u, self.particles, self.proposal, self.scheme, self.threshold
        )
        return PMMHState(x, log_prior + log_z)


@dataclass(frozen=True)
class PMMH(ThetaWalk):
    """Exact draws of (θ, path) by :class:`PMMHKernel`; the warm-up fits h and F to θ.

    Parameters
    ----------
    particles : int
        Of each filter; enough that log Ẑ varies by about 1 at one θ.
    proposal : "bootstrap" or "guided"
    resample, threshold
        As for "particle_filter".
    warmup_rounds : int
        Of 16 transitions each.
    """

    particles: int = 128
    proposal: str = "bootstrap"
    resample: str = "systematic"
    threshold: float = 0.5
    warmup_rounds: int = 24
    contract: ClassVar[Contract] = Invariant(reversible=False)
    default_chains: ClassVar[int] = 8
    default_draws: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        check_count("particles", self.particles, 2)
        check_count("warmup_rounds", self.warmup_rounds, 8)
        check_choice("proposal", self.proposal, PROPOSALS)
        check_scheme(self.resample)
        if self.threshold != 1:
            check_between("threshold", self.threshold, 0, 1)

    @property
    def kernel(self) -> PMMHKernel:
        """The kernel with these settings."""
        return PMMHKernel(self.particles, PROPOSALS[self.proposal], self.resample, self.threshold)
