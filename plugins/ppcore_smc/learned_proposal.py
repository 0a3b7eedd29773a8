"""A proposal learnt from pilot runs: a mixture of experts with logistic weights, by online EM.

In the step's unconstrained coordinates u, with features φ = (1, centre of the transition, y_t),

    q(u | φ) = ε p(u | s_{t−1}) + (1 − ε) Σ_k π_k(φ) N(u; B_k φ, Σ_k),   π_k ∝ exp(a_k · φ).

A pilot filter walks the scan with the q of the moment; after every step its weighted particles
update, with r_ik the responsibilities and step sizes γ_t,

    S ← (1 − γ_t) S + γ_t Σ_i W_i r_ik (1, φφᵀ, φuᵀ, uuᵀ),    B_k, Σ_k from S,
    a_k ← a_k + γ_t · ½ S_φφ⁻¹ Σ_i W_i (r_ik − π_k(φ_i)) φ_i.

This descends KL(p(· | s, y) ‖ q). What is learnt is frozen before the filter that counts, so that
its evidence stays unbiased.

Source: Cornebise, Moulines & Olsson (2014), arXiv:1108.2836; Cappé & Moulines (2009),
arXiv:0712.4273 (online EM).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.state_space import Moved, StateSpace
from ppcore.state_space.coordinates import centre, coordinates, split
from ppcore_smc.bootstrap_filter import Bootstrap
from ppcore_smc.filtering import Cloud, advance
from ppcore_smc.ground import Ground, begin

RIDGE = 1e-4


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Experts:
    """q, as data.

    Attributes
    ----------
    gate : float[K, f]
        a_k.
    slope : float[K, k, f]
        B_k.
    factor : float[K, k, k]
        Lower Cholesky factors of Σ_k.
    defence : float[]
        ε.
    """

    gate: Any
    slope: Any
    factor: Any
    defence: Any

    def draw(
        self, key: Any, ground: Ground, carry: Any, root: Any, element: Any
    ) -> tuple[Moved, Any]:
        """z_t ~ q, and log p G / q."""
        k_prior, k_expert, k_normal, k_which = random.split(key, 4)
        phi = features(ground, carry, root, element)
        expert = random.categorical(k_expert, self.gate @ phi)
        z = random.normal(k_normal, (self.factor.shape[-1],), phi.dtype)
        u = self.slope[expert] @ phi + self.factor[expert] @ z
        from_prior = ground.step(k_prior, carry, root, element, {})
        mine = ground.mine(element, root)
        prior = coordinates(ground.space, ground.own(root), carry, mine, from_prior.values)
        u = jnp.where(random.bernoulli(k_which, self.defence), prior, u)
        return self._weighed(ground, carry, root, element, phi, u)

    def weigh(
        self, ground: Ground, carry: Any, root: Any, element: Any, values: Any
    ) -> tuple[Moved, Any]:
        """The step at given z_t, and log p G / q."""
        mine = ground.mine(element, root)
        u = coordinates(ground.space, ground.own(root), carry, mine, values)
        return self._weighed(
            ground, carry, root, element, features(ground, carry, root, element), u
        )

    def look(self, ground: Ground, carry: Any, root: Any, element: Any) -> Any:
        """No first stage."""
        return jnp.zeros(())

    def log_parts(self, phi: Any, u: Any) -> Any:
        """log π_k(φ) N(u; B_k φ, Σ_k): float[K]."""

        def log_normal(slope: Any, factor: Any) -> Any:
            z = jax.scipy.linalg.solve_triangular(factor, u - slope @ phi, lower=True)
            log_det = jnp.sum(jnp.log(jnp.diagonal(factor)))
            return -0.5 * (z @ z + len(z) * jnp.log(2 * jnp.pi)) - log_det

        return jax.nn.log_softmax(self.gate @ phi) + jax.vmap(log_normal)(self.slope, self.factor)

    def _weighed(
        self, ground: Ground, carry: Any, root: Any, element: Any, phi: Any, u: Any
    ) -> tuple[Moved, Any]:
        moved = ground.step(None, carry, root, element, split(ground.space, u))
        log_mixture = jax.nn.logsumexp(self.log_parts(phi, u))
        log_q = jnp.logaddexp(
            jnp.log(self.defence) + moved.log_p, jnp.log1p(-self.defence) + log_mixture
        )
        return moved, moved.log_p + moved.log_g - log_q


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[],
    meta_fields=["experts", "sweeps", "particles", "defence"],
)
@dataclass(frozen=True)
class Unlearned:
    """How to learn :class:`Experts`.

    Parameters
    ----------
    experts : int
        K.
    sweeps : int
        Pilot filters, one after the other, that learn.
    particles : int
        Of each.
    defence : float
        ε of the q that is learnt, and of the pilots.
    """

    experts: int = 2
    sweeps: int = 3
    particles: int = 256
    defence: float = 0.1

    def learn(self, key: Any, space: StateSpace) -> Experts:
        """Experts fitted to this model and these data."""
        return _learn(self, key, space)


class Statistics(NamedTuple):
    """Running means of 1, φφᵀ, φuᵀ, uuᵀ for each expert."""

    one: Any
    phi_phi: Any
    phi_u: Any
    u_u: Any


def features(ground: Ground, carry: Any, root: Any, element: Any) -> Any:
    """φ = (1, centre, y_t): float[f]."""
    mine = ground.mine(element, root)
    middle = centre(ground.space, ground.own(root), carry, mine)
    given = [jnp.ravel(mine[1][name]).astype(middle.dtype) for name in sorted(mine[1])]
    return jnp.concatenate([jnp.ones(1, middle.dtype), middle, *given])


@partial(jax.jit, static_argnums=0)
def _learn(how: Unlearned, key: Any, space: StateSpace) -> Experts:
    k_first, k_rest = jax.random.split(key)
    start = begin(k_first, space, {}, how.particles)
    element = jax.tree.map(lambda a: a[0], start.ground.elements)
    first = jax.tree.map(lambda a: a[0], start.carry)
    phi = features(start.ground, first, jnp.asarray(0), element)
    k, f = len(coordinates_of(start.ground, first, element)), len(phi)
    single = Experts(
        jnp.zeros((1, f)), jnp.zeros((1, k, f)), jnp.eye(k)[None], jnp.asarray(how.defence)
    )
    _, moments = _sweep(k_first, space, how, single, _nothing(1, k, f), jnp.asarray(0.0))
    one = _maximised(single, moments)
    # Experts start as copies of the single one, apart by their share of its spread.
    spread = jnp.linspace(-1.0, 1.0, how.experts)[:, None] * jnp.diagonal(one.factor[0])
    slope = jnp.repeat(one.slope, how.experts, 0).at[:, :, 0].add(spread * (how.experts > 1))
    many = Experts(
        jnp.zeros((how.experts, f)),
        slope,
        jnp.repeat(one.factor, how.experts, 0),
        one.defence,
    )
    begun = jax.tree.map(lambda a: jnp.repeat(a, how.experts, 0) / how.experts, moments)

    def sweep(state: Any, now: Any) -> tuple[Any, None]:
        kk, done = now
        experts, moments = _sweep(kk, space, how, state[0], state[1], done * space.length)
        return (experts, moments), None

    keys = jax.random.split(k_rest, how.sweeps)
    along = (keys, 1.0 + jnp.arange(how.sweeps))
    return jax.lax.scan(sweep, (many, begun), along)[0][0]


def _sweep(
    key: Any, space: StateSpace, how: Unlearned, experts: Experts, moments: Statistics, done: Any
) -> tuple[Experts, Statistics]:
    """A pilot filter: a single expert learns from the bootstrap filter, many from themselves."""
    k_start, k_walk = random.split(key)
    start = begin(k_start, space, {}, how.particles)
    ground, alone = start.ground, experts.gate.shape[0] == 1

    def step(k: Any, state: Any, now: Any) -> tuple[Any, None]:
        cloud, experts, moments = state
        t, element = now
        proposal = Bootstrap() if alone else experts
        made = advance(k, ground, cloud, element, proposal, "systematic", 0.5)
        old = jax.tree.map(lambda a: a[made.ancestors], cloud)

        def seen(carry: Any, root: Any, values: Any) -> tuple[Any, Any]:
            mine = ground.mine(element, root)
            u = coordinates(space, ground.own(root), carry, mine, values)
            return features(ground, carry, root, element), u

        phi, u = jax.vmap(seen)(old.carry, old.root, made.values)
        usable = jnp.isfinite(phi).all(1) & jnp.isfinite(u).all(1)
        w = jnp.where(usable, jnp.exp(made.cloud.log_weight), 0.0)
        phi, u = (jnp.where(usable[:, None], a, 0.0) for a in (phi, u))
        gain = (1.0 + done + t) ** -0.6
        experts, moments = _updated(experts, moments, w, phi, u, gain)
        return (made.cloud, experts, moments), None

    first = Cloud(start.carry, jnp.arange(how.particles), start.log_weight)
    along = (jnp.arange(space.length) * 1.0, ground.elements)
    state = (first, experts, moments)
    (_, experts, moments), _ = random.scan(step, k_walk, state, along, space.length)
    return experts, moments


def _updated(
    experts: Experts, old: Statistics, w: Any, phi: Any, u: Any, gain: Any
) -> tuple[Experts, Statistics]:
    log_parts = jax.vmap(experts.log_parts)(phi, u)
    r = jax.nn.softmax(log_parts, axis=1)
    wr = w[:, None] * r
    new = Statistics(
        wr.sum(0),
        jnp.einsum("ik,if,ig->kfg", wr, phi, phi),
        jnp.einsum("ik,if,iu->kfu", wr, phi, u),
        jnp.einsum("ik,iu,iv->kuv", wr, u, u),
    )
    moments = jax.tree.map(lambda a, b: (1 - gain) * a + gain * b, old, new)
    pull = jnp.einsum("ik,if->kf", w[:, None] * (r - jax.nn.softmax(phi @ experts.gate.T)), phi)
    total = _ridged(moments.phi_phi.sum(0))
    gate = experts.gate + gain * 0.5 * jnp.linalg.solve(total, pull.T).T
    return _maximised(replace(experts, gate=gate), moments), moments


def _maximised(experts: Experts, m: Statistics) -> Experts:
    """B_k and Σ_k that maximise the expected log density under the running means."""

    def one(share: Any, phi_phi: Any, phi_u: Any, u_u: Any) -> tuple[Any, Any]:
        slope = jnp.linalg.solve(_ridged(phi_phi), phi_u).T
        off = u_u - slope @ phi_u - phi_u.T @ slope.T + slope @ phi_phi @ slope.T
        covariance = off / jnp.maximum(share, 1e-6)
        size = jnp.trace(u_u) / jnp.maximum(share, 1e-6) + 1e-12
        # Wider than fitted: weights stay bounded where the tails of p G are heavier.
        return slope, jnp.linalg.cholesky(1.2 * covariance + 1e-4 * size * jnp.eye(len(off)))

    slope, factor = jax.vmap(one)(*m)
    usable = jnp.isfinite(slope).all((1, 2)) & jnp.isfinite(factor).all((1, 2))
    usable = usable & (m.one > 1e-3)
    keep = usable[:, None, None]
    return replace(
        experts,
        slope=jnp.where(keep, slope, experts.slope),
        factor=jnp.where(keep, factor, experts.factor),
    )


def _ridged(matrix: Any) -> Any:
    size = jnp.diagonal(matrix)
    return matrix + jnp.diag(RIDGE * size + 1e-10)


def _nothing(experts: int, k: int, f: int) -> Statistics:
    return Statistics(
        jnp.zeros(experts),
        jnp.zeros((experts, f, f)),
        jnp.zeros((experts, f, k)),
        jnp.zeros((experts, k, k)),
    )


def coordinates_of(ground: Ground, carry: Any, element: Any) -> Any:
    """The centre of one particle's step, for its size; float[k]."""
    return centre(ground.space, ground.own(0), carry, ground.mine(element, 0))
