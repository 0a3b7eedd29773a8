"""A learned density as a proposal: a guard of heavy tails, and weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, Density
from ppcore.population import Population, equally_weighted, reweight
from ppcore_diffusion.discrete_flow import Affine
from ppcore_diffusion.samples import Samples

DEGREES, WIDER = 3.0, 2.0


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class StudentT:
    """shift + factor t, t spherical Student-t with three degrees of freedom.

    Attributes
    ----------
    axes : Affine
    """

    axes: Affine
    contract: ClassVar[Contract] = Density()

    @property
    def dim(self) -> int:
        return self.axes.dim

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        z = random.normal(key, (n, self.dim + int(DEGREES)))
        # χ² of three degrees from three normals: no gamma generator to compile.
        chi2 = jnp.sum(z[:, self.dim :] ** 2, axis=1, keepdims=True)
        u = z[:, : self.dim] * jnp.sqrt(DEGREES / chi2)
        return jax.vmap(lambda v: self.axes.forward(v)[0])(u)

    def log_prob(self, x: Any) -> Any:
        """log q(x); float[d] -> float[]."""
        u, log_det = self.axes.inverse(x)
        d = self.dim
        gamma = jax.scipy.special.gammaln
        norm = (
            gamma(0.5 * (DEGREES + d)) - gamma(0.5 * DEGREES) - 0.5 * d * jnp.log(DEGREES * jnp.pi)
        )
        return norm - 0.5 * (DEGREES + d) * jnp.log1p(jnp.sum(u**2) / DEGREES) + log_det


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Guarded:
    """(1 − ε) q + ε g: weights are bounded by those of the wide, heavy-tailed g over ε.

    Attributes
    ----------
    density, guard : Normalised
        q and g; q with ``sample_and_log_prob``.
    share : float
        ε; static.

    Source: Hesterberg 1995, doi:10.1080/00401706.1995.10484303; Owen & Zhou 2000,
    doi:10.1080/01621459.2000.10473909.
    """

    density: Any
    guard: Any
    share: float = field(metadata={"static": True})
    contract: ClassVar[Contract] = Density()

    @property
    def dim(self) -> int:
        return int(self.density.dim)

    def counted(self, key: Any, n: int) -> tuple[Any, Any]:
        """n − m draws of q and m = ⌈εn⌉ of g, and log((1 − m/n) q + (m/n) g) at all of them.

        Σ_i γ(x_i)/(n q_m(x_i)) has the mean Z with fixed counts, as it has with counts that are
        drawn; and only m points have to go back through the map. float[n, d], float[n].

        Source: Veach & Guibas 1995, doi:10.1145/218380.218498 (the balance heuristic).
        """
        m = min(n - 1, math.ceil(self.share * n))
        if m == 0:
            x, log_q = self.density.sample_and_log_prob(key, n)
            return x, log_q
        k_density, k_guard = random.split(key)
        own, log_own = self.density.sample_and_log_prob(k_density, n - m)
        other = self.guard.sample(k_guard, m)
        log_other = jax.vmap(self.density.log_prob)(other)
        x = jnp.concatenate([own, other])
        log_q = jnp.log1p(-m / n) + jnp.concatenate([log_own, log_other])
        return x, jnp.logaddexp(log_q, jnp.log(m / n) + jax.vmap(self.guard.log_prob)(x))

    def sample_and_log_prob(self, key: Any, n: int) -> tuple[Any, Any]:
        """Independent draws and their log density: float[n, d], float[n]."""
        x = self.sample(key, n)
        return x, jax.vmap(self.log_prob)(x)

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        k_which, k_density, k_guard = random.split(key, 3)
        from_guard = random.bernoulli(k_which, self.share, (n,))
        own, other = self.density.sample(k_density, n), self.guard.sample(k_guard, n)
        return jnp.where(from_guard[:, None], other, own)

    def log_prob(self, x: Any) -> Any:
        """log((1 − ε) q(x) + ε g(x)); float[d] -> float[]."""
        own = math.log1p(-self.share) + self.density.log_prob(x)
        return jnp.logaddexp(own, math.log(self.share) + self.guard.log_prob(x))


def guarded(density: Any, samples: Samples, share: float) -> Any:
    """``density`` with ``share`` of the draws from a Student-t twice as wide as ``samples``."""
    if share <= 0:
        return density
    shift, factor = samples.moments()
    dtype = jnp.result_type(float)
    axes = Affine(jnp.asarray(shift, dtype), jnp.asarray(WIDER * factor, dtype))
    return Guarded(density, StudentT(axes), float(share))


@partial(jax.jit, static_argnames="n")
def weighed(key: Any, density: Any, target: Any, n: int) -> Population:
    """x_i ~ q, w_i = γ(x_i)/q(x_i), log Ẑ = log mean w: properly weighted whatever q is.

    Draws where γ is NaN count as impossible.
    """
    draw = getattr(density, "counted", density.sample_and_log_prob)
    x, log_q = draw(key, n)
    log_gamma = jax.vmap(lambda t, v: t.log_density(v), (None, 0))(target, x)
    log_w = jnp.where(jnp.isnan(log_gamma), -jnp.inf, log_gamma) - log_q
    return reweight(equally_weighted(x), log_w)
