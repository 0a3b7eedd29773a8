"""A random-walk Metropolis engine, small enough to be seen through, for tests of the run layer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, Invariant
from ppcore.engine import Progress, Warm
from ppcore.errors import StartError
from ppcore.run import run
from ppcore.target import DensityTarget


class Carry(NamedTuple):
    x: Any
    log_density: Any
    steps: Any


@dataclass(frozen=True)
class Walk:
    """Proposes x + scale · N(0, I) for all chains in lockstep."""

    scale: float = 1.0
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 200
    contract: ClassVar[Contract] = Invariant(reversible=True)

    def warmup(self, key, target, chains, report):
        x = jax.random.normal(key, (chains, target.dim))
        if not np.isfinite(jax.vmap(target.log_density)(x)).any():
            raise StartError("No start has a finite log density.")
        report(Progress("warmup", 1, 1, {"step_size": self.scale}))
        return Warm({"step_size": jnp.asarray(self.scale, x.dtype)}, x, gradients=7, notes=("hi",))

    def init(self, key, target, tuned, x):
        return Carry(x, jax.vmap(target.log_density)(x), 0)

    def block(self, key, target, tuned, carry, n):
        def step(carry, key):
            move, accept = jax.random.split(key)
            proposal = carry.x + tuned["step_size"] * jax.random.normal(
                move, carry.x.shape, carry.x.dtype
            )
            log_density = jax.vmap(target.log_density)(proposal)
            u = jax.random.uniform(accept, log_density.shape, log_density.dtype)
            yes = jnp.log(u) < log_density - carry.log_density
            made = Carry(
                jnp.where(yes[:, None], proposal, carry.x),
                jnp.where(yes, log_density, carry.log_density),
                carry.steps + 1,
            )
            return made, (made.x, made.log_density, yes)

        carry, (x, log_density, yes) = jax.lax.scan(step, carry, jax.random.split(key, n))
        stats = {
            "log_density": log_density.T,
            "acceptance_rate": yes.T.astype(x.dtype),
            "diverging": jnp.zeros_like(yes.T),
            "n_gradients": jnp.ones(yes.T.shape, int),
        }
        return carry, jnp.swapaxes(x, 0, 1), stats


@dataclass(frozen=True)
class Compiled(Walk):
    """The same, compiled by itself; counts its traces."""

    traces: ClassVar[list[int]] = []

    @partial(jax.jit, static_argnums=(0, 5))
    def block(self, key, target, tuned, carry, n):
        self.traces.append(n)
        return Walk.block(self, key, target, tuned, carry, n)


def normal(x: Any, centre: Any) -> Any:
    return -0.5 * jnp.sum((x - centre) ** 2)


def target(*centre: float) -> DensityTarget:
    return DensityTarget(normal, len(centre), np.array(centre))


def go(engine: Any = None, at: Any = None, **settings: Any) -> Any:
    """A short run of an engine on a normal target."""
    settings = {"draws": 60, "chains": 3, "seed": 5, "progress": "off"} | settings
    return run(engine or Walk(), at or target(1.0, 2.0), **settings)
