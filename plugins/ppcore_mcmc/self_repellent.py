"""A random walk on a finite graph that avoids where it has been."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Consistent, Contract
from ppcore.engine import Report, Warm
from ppcore.errors import UnsupportedError
from ppcore.settings import check_between

CHUNK = 256


class Walker(NamedTuple):
    """Where the walk is, ``x`` float[d], and how often each node was visited, float[n]."""

    x: Any
    visits: Any


def log_base(target: Any, i: Any) -> tuple[Any, Any]:
    """Metropolis–Hastings from node i to a neighbour: nodes int[k + 1], log probabilities.

    P_ij = min(1/deg_i, π_j/(π_i deg_j)), and P_ii what is left; the last entry is i itself.
    """
    near, log_mass = jnp.asarray(target.neighbours), _log_mass(target)
    to = near[i]
    degree = jnp.sum(near != jnp.arange(near.shape[0])[:, None], axis=1)
    there = log_mass[to] - log_mass[i] - jnp.log(degree[to])
    log_p = jnp.where(to == i, -jnp.inf, jnp.minimum(-jnp.log(degree[i]), there))
    stay = jnp.maximum(1.0 - jnp.sum(jnp.exp(log_p)), 0.0)
    stay = jnp.where(stay < 1e-12, 0.0, stay)
    return jnp.append(to, i), jnp.append(log_p, jnp.log(stay))


def _log_mass(target: Any) -> Any:
    return jax.vmap(target.log_density)(target.states)


def log_repelled(target: Any, i: Any, visits: Any, alpha: Any) -> tuple[Any, Any]:
    """K_ij[m] ∝ P_ij (m_j/π_j)^−α with m ∝ ``visits``; not normalised.

    For any fixed m this is reversible, for π_i (m_i/π_i)^−α Σ_j P_ij (m_j/π_j)^−α; at m = π it is
    P itself.
    """
    to, log_p = log_base(target, i)
    log_mass = _log_mass(target)
    return to, log_p - alpha * (jnp.log(visits[to]) - log_mass[to])


@dataclass(frozen=True)
class SelfRepellentKernel:
    """One step of the walk; ``params`` is α. The visits are a part of the state.

    X' ~ K[m](X, ·) with m the visits so far (:func:`log_repelled`), then the visit to X' is
    counted. Nothing is invariant; see :class:`SelfRepellent`.
    """

    contract: ClassVar[Contract] = Consistent()
    needs: ClassVar[tuple[str, ...]] = ()
    auxiliary: ClassVar[tuple[str, ...]] = ("visits",)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Walker:
        """At ``x``, with one visit to each node on account."""
        return Walker(x, jnp.ones(target.neighbours.shape[0], x.dtype))

    def refresh(self, target: Any, state: Walker) -> Walker:
        return state

    def step(
        self, key: Any, target: Any, state: Walker, params: Any
    ) -> tuple[Walker, dict[str, Any]]:
        i = target.code(state.x)
        to, log_k = log_repelled(target, i, state.visits, params)
        j = to[random.categorical(key, log_k)]
        x = target.states[j].astype(state.x.dtype)
        info = {"log_density": target.log_density(x), "moved": j != i}
        return Walker(x, state.visits.at[j].add(1.0)), info


KERNEL = SelfRepellentKernel()


@partial(jax.jit, static_argnames="n")
def walk(
    key: Any, target: Any, at: Walker, alpha: Any, n: int
) -> tuple[Walker, tuple[Any, dict[str, Any]]]:
    """``n`` steps of every chain; rows (x, info), each [n, chains, ...]."""

    def one(k: Any, at: Walker, _: Any) -> tuple[Walker, Any]:
        at, info = random.each(lambda k, s: KERNEL.step(k, target, s, alpha), k, at)
        return at, (at.x, info)

    return random.scan(one, key, at, None, n)


@dataclass(frozen=True)
class SelfRepellent:
    """A walk on a finite graph whose next step is less likely where it has been more often.

    From a chain P reversible for π (Metropolis–Hastings on the graph's edges) the walk uses
    K_ij[m] ∝ P_ij (m_j/π_j)^−α, m the measure of its visits so far. m converges to π almost surely
    from any start, and averages have an asymptotic variance that falls like 1/α: below that of P,
    and, for α large, below that of independent draws. It adapts for as long as it runs, so it
    leaves nothing invariant and its contract is ``Consistent()``; R-hat and effective sizes, which
    take chains for stationary, understate it.

    Parameters
    ----------
    alpha : float
        Strength of the repulsion, α ≥ 0; 0 is P.

    Raises
    ------
    ppcore.errors.SettingsError
        If ``alpha`` is negative.

    Source: Doshi, Hu & Eun 2023, arXiv:2305.05097.

    >>> from ppcore.fit import infer
    >>> from ppcore_mcmc.graph_target import graph
    >>> ring = graph([(i, (i + 1) % 5) for i in range(5)], np.log([1.0, 2.0, 3.0, 2.0, 1.0]))
    >>> fit = infer(ring, SelfRepellent(), draws=2000, chains=4, seed=1)
    >>> visits = np.bincount(np.asarray(fit.posterior["node"]).ravel()) / 8000
    >>> bool(np.abs(visits - np.array([1, 2, 3, 2, 1]) / 9).max() < 0.02)
    True
    """

    alpha: float = 5.0
    contract: ClassVar[Contract] = Consistent()
    auxiliary: ClassVar[tuple[str, ...]] = ("visits",)
    finite: ClassVar[bool] = True
    compiled: ClassVar[bool] = True
    block_size: ClassVar[int] = CHUNK
    default_chains: int = field(default=4, init=False)
    default_draws: int = field(default=4096, init=False)

    def __post_init__(self) -> None:
        if self.alpha != 0:
            check_between("alpha", self.alpha, 0, 1e6)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Uniform starts: nothing is tuned, and what the walk learns it learns while sampling.

        Raises
        ------
        UnsupportedError
            If the target is not a finite graph.
        """
        _check(target)
        x = np.asarray(target.states)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        start = x[rng.integers(0, len(x), chains)]
        return Warm(np.asarray(self.alpha, start.dtype), start)

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Walker:
        """Walkers at ``x``: float[chains, d], with one visit to each node on account."""
        _check(target)
        return Walker(x, jnp.ones((x.shape[0], target.neighbours.shape[0]), x.dtype))

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Walker, n: int
    ) -> tuple[Walker, Any, dict[str, Any]]:
        """``n`` steps of every chain; draws: float[chains, n, d]."""
        carry, rows = walk(key, target, carry, tuned, n)
        x, info = jax.tree.map(lambda row: jnp.swapaxes(row, 0, 1), rows)
        return carry, x, info


def _check(target: Any) -> None:
    if not all(hasattr(target, part) for part in ("neighbours", "states", "code")):
        raise UnsupportedError(
            "The self-repellent walk needs a target on a finite graph, and "
            f"{type(target).__name__} is none: build one with "
            "ppcore_mcmc.graph_target.graph(edges, log_mass)."
        )
