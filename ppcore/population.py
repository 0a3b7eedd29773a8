"""Weighted populations and the stages that carry them from one target to the next."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ppcore.contract import Contract
from ppcore.errors import PopulationError


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Population:
    """N weighted particles and an estimate of the evidence so far.

    *Properly weighted* for γ when E[exp(log_z) Σ_i W_i f(x_i)] = ∫ f γ for all bounded f,
    with W = softmax(log_weight): ``log_weight`` matters only up to a constant, and ``log_z``
    carries the whole evidence.

    Attributes
    ----------
    x : float[N, d]
    log_weight : float[N]
    log_z : float[]

    >>> import jax.numpy as jnp
    >>> p = Population(jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros(()))
    >>> p.ess.item()
    2.0
    """

    x: Any
    log_weight: Any
    log_z: Any

    def tree_flatten(self) -> tuple[tuple[Any, Any, Any], None]:
        return (self.x, self.log_weight, self.log_z), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any, Any]) -> Population:
        return cls(*leaves)

    @property
    def size(self) -> int:
        """N."""
        return int(self.x.shape[0])

    @property
    def weights(self) -> Any:
        """W = softmax(log_weight): float[N], summing to one."""
        return jax.nn.softmax(self.log_weight)

    @property
    def ess(self) -> Any:
        """1 / Σ W²: between 1 and N."""
        return 1.0 / jnp.sum(self.weights**2)

    def estimate(self, f: Callable[[Any], Any]) -> Any:
        """Σ W_i f(x_i), the self-normalised estimate of π(f)."""
        values = jax.vmap(f)(self.x)
        return jnp.tensordot(self.weights, values, axes=1)


def equally_weighted(x: Any) -> Population:
    """Draws ``x`` (float[N, d]) from a normalised distribution, as a population for it."""
    zero = jnp.zeros((), x.dtype)
    return Population(x, jnp.zeros(x.shape[0], x.dtype), zero)


def reweight(population: Population, log_g: Any) -> Population:
    """Multiply the weights by g_i: Ẑ grows by Σ W_i g_i, so the population stays proper.

    Parameters
    ----------
    population : Population
    log_g : float[N]
        Incremental log weights, −inf allowed. If all are, log_z is −inf (an estimate of zero)
        and the weights become equal, so that nothing downstream sees NaN.
    """
    log_weight = jax.nn.log_softmax(population.log_weight) + log_g
    increment = jax.nn.logsumexp(log_weight)
    dead = jnp.isneginf(increment)
    log_weight = jnp.where(dead, 0.0, log_weight - jnp.where(dead, 0.0, increment))
    return Population(population.x, log_weight, population.log_z + increment)


def standard_error(population: Population) -> float | None:
    """Standard error of log_z where it is that of N independent draws, weighed once; None of one.

    The relative standard deviation of the mean weight, √((N/ESS − 1)/(N − 1)).

    >>> import jax.numpy as jnp
    >>> p = reweight(equally_weighted(jnp.zeros((2, 1))), jnp.log(jnp.array([1.0, 3.0])))
    >>> round(standard_error(p), 6)
    0.5
    """
    n = population.size
    return float(max(n / population.ess - 1.0, 0.0) / (n - 1)) ** 0.5 if n > 1 else None


def require_alive(population: Population, stage: str, temperature: float | None = None) -> None:
    """Raise :class:`ppcore.errors.PopulationError`, with the population, if it is dead.

    Dead is: log_z is −inf (all weights vanished), or log_z or a weight is NaN or +inf.
    """
    log_z = float(population.log_z)
    if math.isfinite(log_z) and not bool(jnp.isnan(population.log_weight).any()):
        return
    at = f"{stage}, inverse temperature {temperature:.3g}" if temperature is not None else stage
    if log_z == -math.inf:
        what = (
            f"all {population.size} weights vanish: no particle is where the target has mass. "
            "Use more particles or smaller steps in temperature, check that the data lie in the "
            "support of the likelihood, or start from a reference nearer to the target."
        )
    else:
        what = (
            "a weight is NaN or infinite: the log density is not a finite number at some particle. "
            "Check data for NaN, and the model for an unbounded or undefined likelihood."
        )
    raise PopulationError(f"In stage {at}: {what}", population, stage, temperature)


@runtime_checkable
class Stage(Protocol):
    """A kernel from populations for ``source`` to populations for ``target``.

    With ``ProperlyWeighted``: a population proper for the source becomes one proper for the
    target. ``key`` may be a script (:mod:`ppcore.random`) where the targets are finite.
    """

    contract: Contract

    def __call__(
        self, key: Any, source: Any, target: Any, population: Population
    ) -> Population: ...
