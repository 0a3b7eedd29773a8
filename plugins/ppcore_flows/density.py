"""The law of T(u), u from a base: a flow one can draw from and evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import contract as rules
from ppcore import random
from ppcore.contract import Contract
from ppcore.population import Population, equally_weighted, reweight


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Flow:
    """log q(x) = log q_0(T⁻¹(x)) + log|det ∂T⁻¹/∂x|, normalised by construction.

    Also a reference to anneal from (``log_density``, ``sample_reference``).

    Attributes
    ----------
    base : Normalised
        q_0.
    map : Map
        T.

    Raises
    ------
    ppcore.errors.CompositionError
        From ``contract``: if the base is no density or the map no transport.

    Source: Rezende & Mohamed 2015, arXiv:1505.05770.
    """

    base: Any
    map: Any

    @property
    def contract(self) -> Contract:
        """Derived from those of the base and the map."""
        return rules.push(self.base.contract, self.map.contract)

    @property
    def dim(self) -> int:
        return int(self.base.dim)

    @property
    def has_reference(self) -> bool:
        return True

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        return jax.vmap(lambda u: self.map.forward(u)[0])(self.base.sample(key, n))

    def sample_reference(self, key: Any, n: int) -> Any:
        """As :meth:`sample`."""
        return self.sample(key, n)

    def log_prob(self, x: Any) -> Any:
        """log q(x); float[d] -> float[]."""
        u, log_det = self.map.inverse(x)
        return self.base.log_prob(u) + log_det

    def log_density(self, x: Any) -> Any:
        """As :meth:`log_prob`."""
        return self.log_prob(x)

    def sample_and_log_prob(self, key: Any, n: int) -> tuple[Any, Any]:
        """Draws with their log q by the forward map alone: float[n, d], float[n]."""
        u = self.base.sample(key, n)
        x, log_det = jax.vmap(self.map.forward)(u)
        return x, jax.vmap(self.base.log_prob)(u) - log_det


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Defended:
    """(1 − ε) q + ε g with a wide, heavy-tailed g: weights are bounded by those of g over ε.

    A flow trained by reverse KL may leave out mass without any weight telling so. Draws of g find
    it, and their weights then show in k̂ and in the effective sample size.

    Attributes
    ----------
    density, guard : Flow
        q and g.
    share : float[]
        ε.

    Source: Hesterberg 1995, doi:10.1080/00401706.1995.10484303; Owen & Zhou 2000,
    doi:10.1080/01621459.2000.10473909.
    """

    density: Any
    guard: Any
    share: Any

    @property
    def contract(self) -> Contract:
        """That of the two parts."""
        return self.density.contract  # type: ignore[no-any-return]

    @property
    def dim(self) -> int:
        return int(self.density.dim)

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        k_which, k_density, k_guard = random.split(key, 3)
        from_guard = random.bernoulli(k_which, jnp.full(n, self.share))
        own, other = self.density.sample(k_density, n), self.guard.sample(k_guard, n)
        return jnp.where(from_guard[:, None], other, own)

    def log_prob(self, x: Any) -> Any:
        """log((1 − ε) q(x) + ε g(x)); float[d] -> float[]."""
        own = jnp.log1p(-self.share) + self.density.log_prob(x)
        return jnp.logaddexp(own, jnp.log(self.share) + self.guard.log_prob(x))

    def sample_and_log_prob(self, key: Any, n: int) -> tuple[Any, Any]:
        """Draws with their log density: float[n, d], float[n]."""
        x = self.sample(key, n)
        return x, jax.vmap(self.log_prob)(x)


def weigh(key: Any, density: Any, target: Any, n: int) -> Population:
    """x_i ~ q, w_i = γ(x_i)/q(x_i), log Ẑ = log mean w: properly weighted whatever q is."""
    x, log_q = density.sample_and_log_prob(key, n)
    log_gamma = jax.vmap(lambda t, v: t.log_density(v), (None, 0))(target, x)
    return reweight(equally_weighted(x), log_gamma - log_q)


weighed = jax.jit(weigh, static_argnames="n")


def standard_error(population: Population) -> float:
    """Relative standard deviation of the mean weight, √((N/ESS − 1)/N)."""
    n = population.size
    return float(jnp.maximum(n / population.ess - 1.0, 0.0) / n) ** 0.5
