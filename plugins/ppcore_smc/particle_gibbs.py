"""Particle Gibbs with ancestor sampling: the path given θ, then θ given the path.

    path' ~ K_θ(path, ·)  (:func:`ppcore_smc.ancestor_sampling.smooth_step`),
    θ' by ``moves`` random-walk Metropolis steps on p(θ | path', y).

Each leaves the posterior of (θ, path) invariant for any number of particles; a few dozen do.

Source: Lindsten, Jordan & Schön (2014), arXiv:1401.0604.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_count
from ppcore_smc.ancestor_sampling import smooth_step
from ppcore_smc.bootstrap_filter import Bootstrap
from ppcore_smc.parameters import Split, split_target
from ppcore_smc.pmmh import PROPOSALS
from ppcore_smc.theta_walk import ThetaWalk, check_choice


class GibbsState(NamedTuple):
    """x = (θ, path); the path in its own coordinates, discrete sites included."""

    x: Any
    path: Any


@dataclass(frozen=True)
class GibbsKernel:
    """The kernel; ``params`` is ``{"step_size": h, "factor": F[k, k]}`` for θ ∈ R^k.

    On a target that is no state-space model there is no path: a random-walk Metropolis.
    """

    particles: int = 32
    moves: int = 5
    proposal: Any = Bootstrap()
    contract: ClassVar[Contract] = Invariant(reversible=False)
    auxiliary: ClassVar[tuple[str, ...]] = ("path",)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> GibbsState:
        """The state at ``x``; discrete sites are drawn given the continuous ones."""
        split = split_target(target)
        if split.space is None:
            return GibbsState(x, {})
        return GibbsState(x, split.path_of(target.complete(key, x)))

    def step(self, key: Any, target: Any, state: GibbsState, params: Any) -> tuple[Any, Any]:
        """The path, then θ."""
        k_theta, k_path, k_walk, k_join = random.split(key, 4)
        split = split_target(target)
        u, path = state.x[split.index], state.path
        if split.space is not None:
            theta = split.theta(k_theta, u)[0]
            path = smooth_step(k_path, split.space, theta, path, self.particles, self.proposal)
            path = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), path, state.path)
        u, rate, log_density = self._walk(k_walk, target, split, u, path, params)
        x = u
        if split.space is not None:
            x = split.join(target, split.theta(k_join, u)[0], path)
        info = {"acceptance_rate": rate, "log_density": log_density}
        return GibbsState(x, path), {**info, "n_gradients": jnp.asarray(0)}

    def refresh(self, target: Any, state: GibbsState) -> GibbsState:
        """Nothing is cached."""
        return state

    def _walk(
        self, key: Any, target: Any, split: Split, u: Any, path: Any, params: Any
    ) -> tuple[Any, Any, Any]:
        def log_density(v: Any) -> Any:
            found = target.log_density(v) if split.space is None else split.log_joint(v, path)
            return jnp.where(jnp.isnan(found), -jnp.inf, found)

        def move(k: Any, state: Any, _: Any) -> tuple[Any, Any]:
            u, now = state
            k_step, k_accept = random.split(k)
            z = random.normal(k_step, u.shape, u.dtype)
            new = u + params["step_size"] * (params["factor"] @ z)
            then = log_density(new)
            p = jnp.minimum(1.0, jnp.exp(then - now))
            yes = random.uniform(k_accept, (), u.dtype) < p
            return (jnp.where(yes, new, u), jnp.where(yes, then, now)), p

        now = log_density(u)
        if u.shape[0] == 0:
            return u, jnp.ones(()), now
        along = jnp.arange(self.moves)
        (u, now), rates = random.scan(move, key, (u, now), along, self.moves)
        return u, rates.mean(), now


@dataclass(frozen=True)
class ParticleGibbs(ThetaWalk):
    """Exact draws of (θ, path) by :class:`GibbsKernel`; the warm-up fits h and F to θ.

    A model without parameters is smoothed: every draw is a path, whatever the particles.

    Parameters
    ----------
    particles : int
        Of each conditional filter, the pinned one included.
    moves : int
        Steps of θ for each path.
    proposal : "bootstrap" or "guided"
    warmup_rounds : int
        Of 16 transitions each.
    """

    particles: int = 32
    moves: int = 5
    proposal: str = "bootstrap"
    warmup_rounds: int = 24
    contract: ClassVar[Contract] = Invariant(reversible=False)
    default_chains: ClassVar[int] = 8
    default_draws: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        check_count("particles", self.particles, 2)
        check_count("moves", self.moves, 1)
        check_count("warmup_rounds", self.warmup_rounds, 8)
        check_choice("proposal", self.proposal, PROPOSALS)

    @property
    def kernel(self) -> GibbsKernel:
        """The kernel with these settings."""
        return GibbsKernel(self.particles, self.moves, PROPOSALS[self.proposal])
