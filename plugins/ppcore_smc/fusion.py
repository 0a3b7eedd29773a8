"""Divide-and-conquer Fusion: draws of the product of shards from draws of the shards.

Two parts f_a, f_b with draws x_a, x_b meet in y = x_a(T) = x_b(T) after a time T. With scales Λ_c
(their covariances), A = Σ_c Λ_c⁻¹ and x̃ = A⁻¹ Σ_c Λ_c⁻¹ x_c,

    ρ₀ = exp(−½ Σ_c (x_c − x̃)ᵀ (T Λ_c)⁻¹ (x_c − x̃)),
    x_c moves by Brownian motion of covariance Λ_c, the two conditioned to meet at T,
    ρ_j = E exp(−Σ_c ∫ φ_c(X_c) dt) over the j-th interval,
    φ_c = ½ (∇log f_cᵀ Λ_c ∇log f_c + tr(Λ_c ∇²log f_c)),

and the law of y weighed by Π ρ is f_a f_b exactly. Merged parts are merged again, up a binary tree.

Between the points of the mesh X_c is a Brownian bridge. Where a bound L ≤ φ_c ≤ U is known the
expectation is estimated without bias by a Poisson number of its points, e^{−LΔ} Π (U − φ)/(U − L);
otherwise the integral is taken by the trapezoidal rule, with a bias of the order of the step.

Source: Dai, Pollock & Roberts (2019), arXiv:1901.00139; Dai, Pollock & Roberts (2023),
arXiv:2010.07146 (in time); Chan, Pollock, Johansen & Roberts (2023), arXiv:2310.03466 (trees).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.contract import Biased, Contract, ProperlyWeighted
from ppcore.engine import Populated, Progress, Report
from ppcore.errors import SettingsError
from ppcore.population import Population, require_alive
from ppcore.settings import check_between, check_count
from ppcore.stages.resampling import systematic
from ppcore.tuning.noise import spawned
from ppcore_smc.consensus import moments
from ppcore_smc.ground import normalised
from ppcore_smc.shards import Shard, draw_shards, pick, shards_of


@dataclass(frozen=True)
class Fusion:
    """Weighted draws of a product of shards, corrected for their not being Gaussian.

    Ẑ = Π_c Ẑ_c times the mean weights of all merges. Properly weighted in the limit with a
    ``bound``; without one biased by O(1/mesh). The draws of the shards come from tempered SMC.

    Parameters
    ----------
    shards : int
        C.
    time : float
        T, in units of the shards' own scales.
    mesh : int
        Intervals of time in each merge.
    bound : (float, float), optional
        L ≤ φ_c ≤ U for every merged part, in whitened coordinates; broken bounds are an error.
    threshold : float
        Resample where the weights are worth less than this share.
    """

    shards: int = 4
    time: float = 1.0
    mesh: int = 10
    bound: tuple[float, float] | None = None
    threshold: float = 0.5
    stage = None
    default_chains = 4
    default_draws = 1024

    def __post_init__(self) -> None:
        check_count("shards", self.shards, 2)
        check_between("time", self.time, 0, 100)
        check_count("mesh", self.mesh, 1)
        check_between("threshold", self.threshold, 0, 1)
        if self.bound is not None and not (len(self.bound) == 2 and self.bound[0] < self.bound[1]):
            raise SettingsError(f"bound={self.bound!r} must be (L, U) with L < U.")

    @property
    def contract(self) -> Contract:
        if self.bound is None:
            return Biased(order=1, in_="time / mesh")
        return ProperlyWeighted(unbiased_evidence=False)

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises
        ------
        UnsupportedError
            The data cannot be split.
        PopulationError
            All weights of a merge vanish.
        SettingsError
            φ left the ``bound``.
        """
        k_draw, k_merge = spawned(key, 2)
        shards = shards_of(target, self.shards)
        drawn = draw_shards(k_draw, shards, self.shards, n, report)
        parts: list[Any] = [
            (drawn.x[c], drawn.log_z[c], np.arange(self.shards) == c) for c in range(self.shards)
        ]
        spent, ess = drawn.gradients, []
        while len(parts) > 1:
            merged = []
            for i in range(0, len(parts) - 1, 2):
                k_merge, now = spawned(k_merge, 2)
                last = len(parts) == 2
                made, alive = self._merge(now, shards, parts[i], parts[i + 1], last)
                merged.append(made)
                ess.append(alive)
                spent += 4 * n * (self.mesh + 1)
                report(Progress("merging", len(ess), self.shards - 1, {}, unit="merges"))
            parts = merged + parts[2 * len(merged) :]
        x, log_z, _, log_w = parts[0]
        population = Population(jnp.asarray(x), jnp.asarray(log_w), jnp.asarray(log_z))
        require_alive(population, f"fusion, merge {len(ess)}", None)
        return Populated(population, spent, None, {"ess": np.array(ess)}, self._notes())

    def _notes(self) -> tuple[str, ...]:
        if self.bound is not None:
            return (f"Exact products of {self.shards} shards in the limit of many draws.",)
        return (
            f"Products of {self.shards} shards with path integrals by the trapezoidal rule, biased "
            f"by O({self.time:g}/{self.mesh}). A `bound` on φ removes this.",
        )

    def _merge(
        self, key: Any, shards: Shard, a: Any, b: Any, last: bool
    ) -> tuple[tuple[Any, ...], float]:
        """The merged part, resampled unless it is the last; and what its weights were worth."""
        x = np.stack([a[0], b[0]])
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
        x[1] = x[1][rng.permutation(x.shape[1])]
        scale = np.linalg.cholesky(moments(x)[1])
        members = np.stack([a[2], b[2]]).astype(float)
        bound = (0.0, 1.0) if self.bound is None else self.bound
        y, log_w, log_c, broken, least = _fused(
            self.mesh,
            self.bound is not None,
            self.threshold,
            key,
            shards,
            members,
            x,
            scale,
            self.time,
            bound,
        )
        if bool(broken):
            raise SettingsError(
                f"φ left the bound {self.bound!r} in a merge, so the weights would be wrong. Give "
                "a wider one, or leave it out."
            )
        log_w, log_z = (np.asarray(v) for v in (log_w, a[1] + b[1] + log_c))
        population = Population(y, log_w, log_z)
        require_alive(population, "fusion", None)
        if last:
            return (np.asarray(y), log_z, a[2] | b[2], log_w), float(least)
        index = np.asarray(systematic(key, population.weights))
        return (np.asarray(y)[index], log_z, a[2] | b[2]), float(least)


class Moving(NamedTuple):
    """x: float[2, N, d] and log weights at a time of the merge."""

    x: Any
    phi: Any
    log_w: Any
    log_c: Any
    broken: Any
    ess: Any


@partial(jax.jit, static_argnums=(0, 1, 2))
def _fused(
    mesh: int,
    exact: bool,
    threshold: float,
    key: Any,
    shards: Shard,
    members: Any,
    x: Any,
    scale: Any,
    time: Any,
    bound: Any,
) -> tuple[Any, ...]:
    """y: float[N, d], log weights, log of the mean weight, whether a bound broke, least ESS."""
    d, n = x.shape[2], x.shape[1]
    inverse = jax.vmap(jnp.linalg.inv)(scale)
    precision = jnp.einsum("cji,cjk->cik", inverse, inverse)
    total = precision.sum(0)
    spread = jnp.linalg.cholesky(jnp.linalg.inv(total))

    def meeting(x: Any) -> Any:
        return jnp.linalg.solve(total, jnp.einsum("cij,cnj->in", precision, x)).T

    def phi(x: Any) -> Any:
        return jax.vmap(lambda m, s, r: _phi(shards, m, s, r))(members, scale, x)

    begun = _begun(x, meeting(x), phi(x), precision, scale, spread, time)

    def step(state: Moving, now: Any) -> tuple[Moving, None]:
        j, k = now
        k_resample, k_shared, k_own, k_bridge = jax.random.split(k, 4)
        ess = 1.0 / jnp.sum(jnp.exp(2.0 * state.log_w))
        do = ess < threshold * n
        index = jnp.where(do, systematic(k_resample, jnp.exp(state.log_w)), jnp.arange(n))
        log_w = jnp.where(do, -jnp.log(n), state.log_w)
        old, before = state.x[:, index], state.phi[:, index]
        width = time / mesh
        left = time - j * width
        middle = meeting(old)
        shared = jax.random.normal(k_shared, (n, d), x.dtype) @ spread.T
        own = jnp.einsum("cij,cnj->cni", scale, jax.random.normal(k_own, x.shape, x.dtype))
        rest = jnp.maximum(left - width, 0.0)
        new = rest / left * old + width / left * middle
        new = new + width / jnp.sqrt(left) * shared + jnp.sqrt(width * rest / left) * own
        after = phi(new)
        if exact:
            log_g, broken = _poisson(
                k_bridge, phi_at(shards, members, scale), old, new, width, bound, scale
            )
        else:
            log_g, broken = -0.5 * width * (before + after), jnp.asarray(False)
        log_w, gained = normalised(log_w + _finite(log_g.sum(0)))
        least = jnp.minimum(state.ess, 1.0 / jnp.sum(jnp.exp(2.0 * log_w)))
        return Moving(new, after, log_w, state.log_c + gained, state.broken | broken, least), None

    along = (jnp.arange(mesh), jax.random.split(key, mesh))
    end, _ = jax.lax.scan(step, begun, along)
    return end.x[0], end.log_w, end.log_c, end.broken, end.ess


def _begun(
    x: Any, middle: Any, phi: Any, precision: Any, scale: Any, spread: Any, time: Any
) -> Moving:
    """ρ₀, and the normalising constants of the Gaussians that the meeting point is drawn from."""
    _, n, d = x.shape
    off = x - middle
    log_w = -0.5 * jnp.einsum("cni,cij,cnj->n", off, precision, off) / time
    log_c = -0.5 * d * jnp.log(2 * jnp.pi * time)
    log_c = log_c - jnp.sum(jnp.log(jnp.diagonal(scale, axis1=1, axis2=2)))
    log_c = log_c + jnp.sum(jnp.log(jnp.diagonal(spread)))
    log_w, gained = normalised(log_w - jnp.log(n))
    ess = 1.0 / jnp.sum(jnp.exp(2.0 * log_w))
    return Moving(x, phi, log_w, log_c + gained, jnp.asarray(False), ess)


def _finite(log_g: Any) -> Any:
    return jnp.where(jnp.isnan(log_g), -jnp.inf, log_g)


def phi_at(shards: Shard, members: Any, scale: Any) -> Any:
    """``(c, x) -> φ_c(x)`` of one part at one point."""
    return lambda c, x: _phi_one(shards, members[c], scale[c], x)


def _phi(shards: Shard, members: Any, scale: Any, x: Any) -> Any:
    return jax.lax.map(lambda r: _phi_one(shards, members, scale, r), x, batch_size=256)


def _phi_one(shards: Shard, members: Any, scale: Any, x: Any) -> Any:
    """φ at x: float[d], in coordinates whitened by ``scale``."""

    def log_f(z: Any) -> Any:
        terms = jax.lax.map(
            lambda c: pick(shards, c).log_density(x + scale @ z), jnp.arange(len(members))
        )
        return members @ terms

    zero = jnp.zeros_like(x)
    gradient, hessian = jax.grad(log_f)(zero), jax.hessian(log_f)(zero)
    return 0.5 * (gradient @ gradient + jnp.trace(hessian))


def _poisson(
    key: Any, phi: Any, old: Any, new: Any, width: Any, bound: Any, scale: Any
) -> tuple[Any, Any]:
    """log of e^{−LΔ} Π (U − φ(X_τ))/(U − L) at the points of a Poisson process of rate U − L."""
    low, high = bound
    rate = high - low
    parts, n, _ = old.shape

    def one(k: Any, c: Any, x: Any, y: Any) -> tuple[Any, Any]:
        def ahead(state: Any) -> Any:
            return state[1] < width

        def point(state: Any) -> Any:
            k, t, x, log_g, broken, at = state
            k, k_bridge, k_gap = jax.random.split(k, 3)
            # The bridge from where it was seen last, at ``at``, to y at the end of the interval.
            share = (t - at) / (width - at)
            z = scale[c] @ jax.random.normal(k_bridge, x.shape, x.dtype)
            x = x + share * (y - x) + jnp.sqrt((t - at) * (width - t) / (width - at)) * z
            value = phi(c, x)
            bad = (value < low - 1e-9) | (value > high + 1e-9)
            log_g = log_g + jnp.log(jnp.maximum((high - value) / rate, 0.0))
            gap = jax.random.exponential(k_gap, (), x.dtype) / rate
            return k, t + gap, x, log_g, broken | bad, t

        k, k_gap = jax.random.split(k)
        first = jax.random.exponential(k_gap, (), x.dtype) / rate
        zero = jnp.zeros((), x.dtype)
        state = (k, first, x, -low * width + zero, jnp.asarray(False), zero)
        *_, log_g, broken, _ = jax.lax.while_loop(ahead, point, state)
        return log_g, broken

    keys = jax.random.split(key, (parts, n))
    which = jnp.broadcast_to(jnp.arange(parts)[:, None], (parts, n))
    log_g, broken = jax.vmap(jax.vmap(one))(keys, which, old, new)
    return log_g, broken.any()
