"""All modes that many climbs from a wide box find, and a mixture of heavy-tailed laws there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from ppcore import random
from ppcore.errors import StartError, UnsupportedError
from ppcore.tuning.laplace import Laplace, newton
from ppcore.tuning.lbfgs import Paths, climb, dense_inverse_hessian
from ppcore.tuning.modes import Counted, reference_draws
from ppcore.tuning.noise import spawned
from ppcore_smc.laplace import DIFFERENCES_UP_TO, exact_newton

ROUND, CALLS, AGAIN = 128, 60, 4
WIDER = (1.0, 2.0, 4.0, 1.0)
"""How many times as far out as the reference successive climbs begin."""
BOX = 20.0
SETTLED, SAME, NEGLIGIBLE = 1e-2, 0.5, 30.0
DEGREES = (2.0, 4.0, 8.0, 32.0, 1e6)
DEFENCE = 0.05
OFTEN = 4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ModeMixture:
    """ε r(x) + (1 − ε) Σ_k a_k Π_i t_ν(z_i; s)/|L_k|, z = L_k⁻¹(x − m_k): a reference at all modes.

    Coordinates of z are independent Student-t with the curvature of N(0, 1) at 0, s² = (ν + 1)/ν,
    so that at each mode it agrees with γ to second order whatever its tails are; r is the target's
    own reference.

    Attributes
    ----------
    log_share : float[K]
        log a_k; −∞ for places that are not used.
    mean : float[K, d]
    factor, inverse : float[K, d, d]
        L_k, lower triangular, and L_k⁻¹.
    degrees : float[]
        ν.
    target : Target
        Whose reference is r.
    defence : float[]
        ε; 0 where the target has no reference.
    """

    log_share: Any
    mean: Any
    factor: Any
    inverse: Any
    degrees: Any
    target: Any
    defence: Any

    @property
    def dim(self) -> int:
        return int(self.mean.shape[1])

    @property
    def has_reference(self) -> bool:
        return True

    def log_density(self, x: Any) -> Any:
        """log q(x), normalised; float[d] -> float[]."""
        nu, d = self.degrees, self.dim
        z = jnp.einsum("kij,kj->ki", self.inverse, x - self.mean)
        # With s² = (ν + 1)/ν the argument z²/(ν s²) is z²/(ν + 1).
        shape = -0.5 * (nu + 1) * jnp.sum(jnp.log1p(z**2 / (nu + 1)), axis=1)
        norm = gammaln(0.5 * (nu + 1)) - gammaln(0.5 * nu) - 0.5 * jnp.log(jnp.pi * (nu + 1))
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.inverse, axis1=1, axis2=2)), axis=1)
        own = jax.nn.logsumexp(self.log_share + shape + log_det) + d * norm
        if not self.target.has_reference:
            return own
        far = jnp.log(self.defence) + self.target.log_prior(x)
        return jnp.logaddexp(jnp.log1p(-self.defence) + own, far)

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` draws; float[n, d]. Student-t by the polar method, for any ν.

        Source: Bailey 1994, doi:10.1090/S0025-5718-1994-1203735-5.
        """
        k_which, k_t, k_far, k_draw = random.split(key, 4)
        which = random.categorical(k_which, self.log_share, (n,))
        u = random.uniform(k_t, (2, n, self.dim), self.mean.dtype)
        radius = jnp.sqrt((self.degrees + 1) * jnp.expm1(-2 / self.degrees * jnp.log1p(-u[0])))
        z = radius * jnp.cos(2 * jnp.pi * u[1])
        x = self.mean[which] + jnp.einsum("nij,nj->ni", self.factor[which], z)
        if not self.target.has_reference:
            return x
        far = random.uniform(k_far, (n, 1), x.dtype) < self.defence
        return jnp.where(far, self.target.sample_reference(k_draw, n), x)


@dataclass(frozen=True)
class Modes:
    """What a search found.

    Attributes
    ----------
    modes : list of Laplace
    seen : int[K]
        How many climbs ended at each.
    climbs, gradients : int
    """

    modes: list[Laplace]
    seen: np.ndarray
    climbs: int
    gradients: int

    @property
    def unseen(self) -> float:
        """The share of starts that would lead to a mode not seen yet: those seen once, over climbs.

        Source: Good 1953, doi:10.1093/biomet/40.3-4.237.
        """
        return float((self.seen == 1).sum()) / max(1, self.climbs)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaled:
    """γ in coordinates u of x = centre + scale · u, up to a constant."""

    target: Any
    centre: Any
    scale: Any

    def log_density(self, u: Any) -> Any:
        """log γ(centre + scale · u); float[d] -> float[]."""
        return self.target.log_density(self.centre + self.scale * u)


def search(key: Any, target: Any, climbs: int) -> Modes:
    """Climb in rounds of 128 until every mode found was reached at least four times.

    By then a mode that is as hard to reach as the hardest of them is unlikely to be unseen.

    Climbs begin at reference draws, as they are or two and four times as far from their middle
    (from far out, directions decide which mode is reached, and modes near the middle do not take
    all); without a reference, on (−20, 20)^d. Each end that no known mode explains is sharpened by
    Newton steps. At most ``climbs``, in whole rounds.

    Raises :class:`ppcore.errors.StartError` if the log density is finite at no start.
    """
    k_draw, k_rng = spawned(key, 2)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(k_rng)).ravel())
    rounds = -(-climbs // ROUND)
    draws = _draws(k_draw, target, rng, rounds * ROUND)
    centre, scale = np.median(draws, axis=0), draws.std(0) + 1e-12
    score = Counted(Scaled(target, centre, scale))
    found: list[Laplace] = []
    seen: list[int] = []
    for i in range(rounds):
        wider = np.resize(WIDER, ROUND)[:, None]
        ends = _climbed(score, wider * (draws[i * ROUND : (i + 1) * ROUND] - centre) / scale)
        for paths, j in ends:
            _note(score, paths, j, found, seen)
        known = Modes(found, np.array(seen, int), (i + 1) * ROUND, score.spent)
        if found and min(seen) >= OFTEN:
            break
    moved = [_unscaled(mode, centre, scale) for mode in found]
    return replace(known, modes=moved, gradients=score.spent)


def _draws(key: Any, target: Any, rng: np.random.Generator, n: int) -> np.ndarray:
    if target.has_reference:
        return np.asarray(reference_draws(key, target, n), float)
    return rng.uniform(-BOX, BOX, (n, int(target.dim)))


def _climbed(score: Counted, u: np.ndarray) -> list[tuple[Paths, int]]:
    """Ends of the climbs from ``u``, each as the row of the paths that know its curvature."""
    value, gradient = score(u)
    good = np.isfinite(value) & np.isfinite(gradient).all(-1)
    if not good.any():
        raise StartError(
            f"The log density is not finite at any of {len(u)} points to climb from (reference "
            "draws, and up to four times as far out). Check the data, or the reference."
        )
    paths = Paths(u[good], value[good], gradient[good])
    ends = []
    for _ in range(AGAIN):
        climb(score, paths, CALLS, SETTLED)
        done = paths.decrement < SETTLED
        ends += [(paths, int(j)) for j in np.flatnonzero(done)]
        left = ~done
        if not left.any():
            break
        paths = Paths(paths.x[left], paths.log_density[left], paths.gradient[left])
    return ends


def _note(score: Counted, paths: Paths, j: int, found: list[Laplace], seen: list[int]) -> None:
    """Count the end of one climb for the mode that explains it, new or known."""
    for k, mode in enumerate(found):
        if _same(mode, paths.x[j]):
            seen[k] += 1
            return
    if paths.x.shape[1] <= DIFFERENCES_UP_TO:
        mode = newton(score, paths.x[j], dense_inverse_hessian(paths.steps[j], paths.changes[j]))
    else:
        mode, hessians = exact_newton(score, score.target, paths.x[j])
        score.spent += hessians * paths.x.shape[1]
    if not mode.converged:
        return
    for k, other in enumerate(found):
        if _same(other, mode.mode):
            seen[k] += 1
            return
    found.append(mode)
    seen.append(1)


def _same(mode: Laplace, u: np.ndarray) -> bool:
    off = np.linalg.solve(mode.factor, u - mode.mode)
    return bool(np.linalg.norm(off) < SAME)


def _unscaled(mode: Laplace, centre: np.ndarray, scale: np.ndarray) -> Laplace:
    x, factor = centre + scale * mode.mode, scale[:, None] * mode.factor
    return Laplace(x, factor, mode.log_density, mode.converged)


def mixture(found: Modes, target: Any, most: int) -> ModeMixture:
    """The mixture at the modes, before its tails are chosen: half by Laplace evidence, half even.

    The number of places is a power of two, so that a mode more compiles nothing anew. Modes 30 nats
    below the best, and those beyond ``most``, are left out.

    Raises :class:`ppcore.errors.UnsupportedError` without a mode.
    """
    if not found.modes:
        raise UnsupportedError(
            f"None of {found.climbs} climbs ended at a mode with a definite Hessian (a funnel or a "
            "ridge has none). Use 'smc' from the prior."
        )
    level = np.array([m.log_density + np.linalg.slogdet(m.factor)[1] for m in found.modes])
    kept = [i for i in np.argsort(-level)[:most] if level[i] > level.max() - NEGLIGIBLE]
    share = np.exp(level[kept] - level.max())
    share = 0.5 * share / share.sum() + 0.5 / len(kept)
    places = 1 << (len(kept) - 1).bit_length()
    pad = np.resize(np.arange(len(kept)), places)
    covariance = [found.modes[kept[i]].factor @ found.modes[kept[i]].factor.T for i in pad]
    lower = np.linalg.cholesky(np.stack(covariance))
    unused = np.arange(places) >= len(kept)
    log_share = np.where(unused, -np.inf, np.log(share[pad]))
    dtype = jnp.result_type(float)
    mean = np.stack([found.modes[kept[i]].mode for i in pad])
    defence = DEFENCE if target.has_reference else 0.0
    return ModeMixture(
        log_share=jnp.asarray(log_share, dtype),
        mean=jnp.asarray(mean, dtype),
        factor=jnp.asarray(lower, dtype),
        inverse=jnp.asarray(np.linalg.inv(lower), dtype),
        degrees=jnp.asarray(DEGREES[0], dtype),
        target=target,
        defence=jnp.asarray(defence, dtype),
    )


def with_tails(key: Any, law: ModeMixture, n: int) -> tuple[ModeMixture, np.ndarray]:
    """``law`` with the ν of a few for which log γ − log q varies least over ``n`` draws of q."""
    dtype = law.degrees.dtype
    tried = [replace(law, degrees=jnp.asarray(nu, dtype)) for nu in DEGREES]
    spreads = np.array([float(_spread(key, one, n)) for one in tried])
    best = int(np.argmin(np.where(np.isfinite(spreads), spreads, np.inf)))
    return tried[best], spreads


@partial(jax.jit, static_argnames="n")
def _spread(key: Any, law: ModeMixture, n: int) -> Any:
    # The defence is left out: it says nothing about the tails at the modes.
    near = replace(law, defence=jnp.zeros_like(law.defence))
    x = near.sample_reference(key, n)
    log_w = jax.vmap(lambda v: law.target.log_density(v) - near.log_density(v))(x)
    return jnp.std(log_w)
