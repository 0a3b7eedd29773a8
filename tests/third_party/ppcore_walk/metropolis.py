"""Random-walk Metropolis for many chains: propose x + L ε, accept with min(1, γ(x')/γ(x))."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore.contract import Contract, Invariant
from ppcore.engine import Progress, Report, Warm
from ppcore.errors import SettingsError, StartError


class State(NamedTuple):
    """Positions and their log densities: float[chains, d], float[chains]."""

    x: Any
    log_density: Any


@dataclass(frozen=True)
class RandomWalk:
    """πK = π by detailed balance; the proposal's covariance is learned across chains, then frozen.

    Parameters
    ----------
    scale : float
        The proposal is N(x, scale² Σ / d), Σ the covariance over the chains in the warm-up.
    rounds, steps : int
        The warm-up re-estimates Σ ``rounds`` times, every ``steps`` steps.
    """

    scale: float = 2.4
    rounds: int = 8
    steps: int = 100
    contract: ClassVar[Contract] = Invariant(reversible=True)
    default_chains: ClassVar[int] = 64
    default_draws: ClassVar[int] = 1000

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise SettingsError(f"scale={self.scale} must be positive; 2.4 is a good choice.")

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        start, key = jax.random.split(key)
        if target.has_reference:
            x = target.sample_reference(start, chains)
        else:
            x = jax.random.normal(start, (chains, target.dim))
        if not jnp.isfinite(jax.vmap(target.log_density)(x)).all():
            raise StartError("walk: the log density is not finite at a start; use another engine.")
        tuned = jnp.eye(target.dim, dtype=x.dtype) * self.scale / target.dim**0.5
        run = jax.jit(partial(self.block, n=self.steps))
        for done in range(self.rounds):
            carry = self.init(key, target, tuned, x)
            carry, draws, _ = run(jax.random.fold_in(key, done), target, tuned, carry)
            x = carry.x
            spread = jnp.cov(draws.reshape(-1, target.dim), rowvar=False).reshape(tuned.shape)
            spread = spread + 1e-10 * jnp.eye(target.dim, dtype=x.dtype)
            tuned = jnp.linalg.cholesky(spread) * self.scale / target.dim**0.5
            report(Progress("warmup", (done + 1) * self.steps, self.rounds * self.steps))
        return Warm(tuned, x)

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> State:
        return State(x, jax.vmap(target.log_density)(x))

    def block(
        self, key: Any, target: Any, tuned: Any, carry: State, n: int
    ) -> tuple[State, Any, dict[str, Any]]:
        def step(state: State, key: Any) -> tuple[State, tuple[Any, Any, Any]]:
            noise, uniform = jax.random.split(key)
            x = state.x + jax.random.normal(noise, state.x.shape, state.x.dtype) @ tuned.T
            log_density = jax.vmap(target.log_density)(x)
            # A NaN compares false: such a proposal is rejected.
            ratio = jnp.exp(jnp.minimum(0.0, log_density - state.log_density))
            accept = jax.random.uniform(uniform, ratio.shape, ratio.dtype) < ratio
            x = jnp.where(accept[:, None], x, state.x)
            log_density = jnp.where(accept, log_density, state.log_density)
            return State(x, log_density), (x, log_density, accept.astype(x.dtype))

        carry, (x, log_density, accept) = jax.lax.scan(step, carry, jax.random.split(key, n))
        stats = {"log_density": log_density.T, "acceptance_rate": accept.T}
        return carry, jnp.swapaxes(x, 0, 1), stats
