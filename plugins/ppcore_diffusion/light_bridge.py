"""Schrödinger bridges whose potential is a mixture of Gaussians: plans and drift in closed form.

Of all laws of a path with given laws p_0 of X_0 and p_1 of X_1, the bridge is the one nearest in
KL to Brownian motion √ε W. Its ends are coupled by the entropic plan

    π(x, y) = p_0(x) exp(⟨x, y⟩/ε) v(y)/c(x),   c(x) = ∫ exp(⟨x, y⟩/ε) v(y) dy,

and given its ends it is a Brownian bridge. With v(y) = Σ_k α_k N(y; r_k, V_k) and S_k = V_k/ε,

    c(x) = Σ_k a_k(x),   a_k(x) = α_k exp((⟨x, S_k x⟩ + 2⟨r_k, x⟩)/2ε),
    π(y | x) = Σ_k a_k(x)/c(x) · N(y; r_k + S_k x, V_k),

and KL(true plan ‖ π) = E_{p_0} log c(x) − E_{p_1} log v(y) + const, which needs draws of both ends
and nothing else. Plans do not change when p_0 and p_1 are shifted: here x and y are centred.

Source: Korotin, Gushchin & Burnaev 2024, arXiv:2310.01174.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Density
from ppcore.engine import Report
from ppcore.exact.protocol import generator
from ppcore.settings import check_between, check_count
from ppcore_diffusion.discrete_flow import LOG_2PI, Affine
from ppcore_diffusion.gaussian_bridge import gaussian_plan
from ppcore_diffusion.matching import silent
from ppcore_diffusion.regression import Schedule, regress
from ppcore_diffusion.samples import Samples, samples_of

LARGE = 4096


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Potential:
    """log v, in units of the target's moments: what is trained.

    Attributes
    ----------
    log_alpha : float[K]
    offset : float[K, d]
    log_scale : float[K, d]
        Logarithm of the diagonal of the factor of V_k.
    below : float[K, d, d]
        The factor below its diagonal.
    """

    log_alpha: Any
    offset: Any
    log_scale: Any
    below: Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LightBridge:
    """The bridge of this module, from x at time 0 to y at time 1.

    Attributes
    ----------
    potential : Potential
    origin : float[d]
        The mean of p_0.
    frame : Affine
        Mean of p_1 and the factor of its covariance.
    epsilon : float[]
        ε, the variance that Brownian motion gathers from 0 to 1, in squared units of x.
    """

    potential: Potential
    origin: Any
    frame: Affine
    epsilon: Any

    @property
    def dim(self) -> int:
        return int(self.origin.shape[0])

    @property
    def centres(self) -> Any:
        """r_k; float[K, d]."""
        return self.potential.offset @ self.frame.factor.T

    @property
    def factors(self) -> Any:
        """C_k, lower triangular with C_k C_kᵀ = V_k; float[K, d, d]."""
        p = self.potential
        own = jnp.tril(p.below, -1) + jax.vmap(jnp.diag)(jnp.exp(p.log_scale))
        return jnp.einsum("ij,kjl->kil", self.frame.factor, own)

    def conditional(self, x: Any) -> tuple[Any, Any]:
        """``(log of the weights, means)`` of the parts of π(y | x); float[d] -> [K], [K, d]."""
        x = x - self.origin
        pulled = jnp.einsum("kji,j->ki", self.factors, x) / self.epsilon
        log_a = self.potential.log_alpha + self.centres @ x / self.epsilon
        log_a = log_a + 0.5 * jnp.sum(pulled**2, axis=-1)
        shifted = jnp.einsum("kij,kj->ki", self.factors, pulled)
        return jax.nn.log_softmax(log_a), self.frame.shift + self.centres + shifted

    def log_plan(self, x: Any, y: Any) -> Any:
        """log π(y | x); float[d], float[d] -> float[]."""
        log_a, means = self.conditional(x)
        return jax.nn.logsumexp(log_a + gaussians(y, means, self.factors))

    def sample(self, key: Any, x: Any) -> Any:
        """One y ~ π(· | x_i) for each row of ``x``; float[n, d]."""
        k_part, k_normal = random.split(key)
        log_a, means = jax.vmap(self.conditional)(x)
        part = random.categorical(k_part, log_a)
        z = random.normal(k_normal, x.shape, x.dtype)
        here = jnp.take_along_axis(means, part[:, None, None], axis=1)[:, 0]
        return here + jnp.einsum("nij,nj->ni", self.factors[part], z)

    def paths(self, key: Any, x: Any, times: Any) -> Any:
        """X at ``times`` (ascending, in [0, 1]) from X_0 = ``x``; float[n, d] -> float[T, n, d].

        Exact: y ~ π(· | x), then a Brownian bridge between them.
        """
        k_end, k_walk = random.split(key)
        y = self.sample(k_end, x)

        def walk(key: Any, carry: tuple[Any, Any], t: Any) -> tuple[tuple[Any, Any], Any]:
            here, s = carry
            left = jnp.maximum(1.0 - s, jnp.finfo(x.dtype).tiny)
            share = jnp.clip((t - s) / left, 0.0, 1.0)
            spread = jnp.sqrt(self.epsilon * (t - s) * (1.0 - share))
            here = here + share * (y - here) + spread * random.normal(key, x.shape, x.dtype)
            return (here, t), here

        times = jnp.asarray(times, x.dtype)
        start = (x, jnp.zeros((), x.dtype))
        return random.scan(walk, k_walk, start, times, times.shape[0])[1]

    def drift(self, x: Any, t: Any) -> Any:
        """b(x, t) of dX = b dt + √ε dW, (E[X_1 | X_t = x] − x)/(1 − t), 0 ≤ t < 1; float[d].

        y | X_t = x is a mixture with precisions V_k⁻¹ + t/(ε(1 − t)) I.
        """
        left = self.epsilon * (1.0 - t)

        def part(log_alpha: Any, centre: Any, factor: Any) -> tuple[Any, Any]:
            inverse = jnp.linalg.inv(factor)
            mean = self.frame.shift + centre
            precision = inverse.T @ inverse + (t / left) * jnp.eye(self.dim, dtype=x.dtype)
            pull = inverse.T @ (inverse @ mean) - self.origin / self.epsilon + x / left
            root = jnp.linalg.cholesky(precision)
            half = jax.scipy.linalg.solve_triangular(root, pull, lower=True)
            height = log_alpha + 0.5 * jnp.sum(half**2) - 0.5 * jnp.sum((inverse @ mean) ** 2)
            height = height - jnp.sum(jnp.log(jnp.diagonal(root)))
            height = height + jnp.sum(jnp.log(jnp.abs(jnp.diagonal(inverse))))
            return height, jax.scipy.linalg.solve_triangular(root.T, half, lower=False)

        height, means = jax.vmap(part)(self.potential.log_alpha, self.centres, self.factors)
        return (jax.nn.softmax(height) @ means - x) / (1.0 - t)

    def marginal(self, x: Any, weights: Any = None) -> Marginal:
        """The law of X_1 if X_0 is one of the rows of ``x`` (float[m, d]), with its density."""
        x = jnp.asarray(x)
        even = jnp.full(x.shape[0], 1.0 / x.shape[0], x.dtype)
        return Marginal(self, x, jnp.log(even if weights is None else jnp.asarray(weights)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Marginal:
    """q(y) = Σ_j w_j π(y | x_j): a normalised mixture of m · K Gaussians.

    Attributes
    ----------
    bridge : LightBridge
    points : float[m, d]
        x_j.
    log_weights : float[m]
        log w_j.
    """

    bridge: LightBridge
    points: Any
    log_weights: Any
    contract: ClassVar[Contract] = Density()

    @property
    def dim(self) -> int:
        return self.bridge.dim

    def sample(self, key: Any, n: int) -> Any:
        """``n`` independent draws; float[n, d]."""
        k_point, k_bridge = random.split(key)
        start = random.categorical(k_point, self.log_weights, (n,))
        return self.bridge.sample(k_bridge, self.points[start])

    def log_prob(self, y: Any) -> Any:
        """log q(y); float[d] -> float[]."""
        log_a, means = jax.vmap(self.bridge.conditional)(self.points)
        parts = jax.vmap(lambda m: gaussians(y, m, self.bridge.factors))(means)
        return jax.nn.logsumexp(self.log_weights[:, None] + log_a + parts)

    def sample_and_log_prob(self, key: Any, n: int) -> tuple[Any, Any]:
        """Draws and their log density: float[n, d], float[n]."""
        y = self.sample(key, n)
        # One after the other in bundles: all at once would hold n · m · K · d numbers.
        return y, jax.lax.map(self.log_prob, y, batch_size=64)


def gaussians(y: Any, means: Any, factors: Any) -> Any:
    """log N(y; m_k, C_k C_kᵀ); float[d], float[K, d], float[K, d, d] -> float[K]."""
    z = jax.scipy.linalg.solve_triangular(factors, (y - means)[..., None], lower=True)[..., 0]
    diagonal = jnp.diagonal(factors, axis1=-2, axis2=-1)
    scale = jnp.sum(jnp.log(diagonal), axis=-1)
    return -0.5 * jnp.sum(z**2, axis=-1) - scale - 0.5 * y.shape[-1] * LOG_2PI


def plan_divergence(bridge: LightBridge, row: tuple[Any, Any]) -> Any:
    """mean log c(x) − mean log v(y), KL(true plan ‖ π) up to a constant; row: x, y of float[n, d].

    Source: Korotin, Gushchin & Burnaev 2024, arXiv:2310.01174 (proposition 3.1).
    """
    x, y = row
    fixed = jax.lax.stop_gradient(bridge)
    bridge = replace(fixed, potential=bridge.potential)
    factors, centres, log_alpha = bridge.factors, bridge.centres, bridge.potential.log_alpha

    def log_c(x: Any) -> Any:
        pulled = jnp.einsum("kji,j->ki", factors, x) / bridge.epsilon
        linear = centres @ x / bridge.epsilon
        return jax.nn.logsumexp(log_alpha + linear + 0.5 * jnp.sum(pulled**2, axis=-1))

    def log_v(y: Any) -> Any:
        return jax.nn.logsumexp(log_alpha + gaussians(y, centres, factors))

    above = jax.vmap(log_c)(x - bridge.origin)
    return jnp.mean(above) - jnp.mean(jax.vmap(log_v)(y - bridge.frame.shift))


@dataclass(frozen=True)
class Bridging:
    """What bridge to learn, and how long.

    Parameters
    ----------
    components : int
        K.
    epsilon : float
        ε, in units of the mean variance of the target.
    steps, batch, rate
        See :class:`ppcore_diffusion.regression.Schedule`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range.
    """

    components: int = 16
    epsilon: float = 1.0
    steps: int = 600
    batch: int = 256
    rate: float = 2e-2

    def __post_init__(self) -> None:
        check_count("components", self.components, 1)
        check_between("epsilon", self.epsilon, 0, 1e6)
        _ = self.schedule

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.batch, self.rate)


@dataclass(frozen=True)
class Bridged:
    """A bridge that was learned, the losses of its training, and whether it diverged."""

    bridge: LightBridge
    losses: np.ndarray
    notes: tuple[str, ...] = ()


def light_bridge(
    key: Any, source: Any, target: Any, plan: Bridging | None = None, report: Report = silent
) -> Bridged:
    """Learn the Schrödinger bridge between two laws from draws of both.

    One part alone begins, and ends, at the bridge between Gaussians with the moments of the two
    ends; more parts begin at points of the target.

    Runs in JAX's current precision; call it inside ``ppcore.precision.scope()`` for float64.

    Parameters
    ----------
    key : key
    source, target : Fit, Population, Samples, float[n, d], or a density that can draw
    plan : Bridging

    Raises
    ------
    ppcore.errors.SettingsError
        If draws are of different dimensions, not finite, or too few.
    """
    plan = Bridging() if plan is None else plan
    rng = generator(key)
    k_source, k_target = random.split(key)
    goal = _samples(k_target, target, "the target's draws", None)
    start = _samples(k_source, source, "the source's draws", goal.dim)
    begin = beginning(rng, start, goal, plan)
    dtype = begin.origin.dtype

    def rows(rng: np.random.Generator, count: int) -> Any:
        shape = (count, plan.batch, goal.dim)
        flat = count * plan.batch
        ends = start.drawn(rng, flat), goal.drawn(rng, flat)
        return tuple(np.asarray(end.reshape(shape), dtype) for end in ends)

    made = regress(rng, begin, plan_divergence, rows, plan.schedule, report)
    return Bridged(made.model, made.losses, made.notes)


def beginning(
    rng: np.random.Generator, source: Samples, target: Samples, plan: Bridging
) -> LightBridge:
    """The bridge before training; for one component, that of two Gaussians."""
    dtype, dim, parts = np.dtype(jnp.result_type(float)), target.dim, plan.components
    (origin, root), (shift, factor) = source.moments(), target.moments()
    epsilon = plan.epsilon * float(np.mean(np.sum(factor**2, axis=1)))
    _, covariance = gaussian_plan(root @ root.T, factor @ factor.T, epsilon)
    unit = np.linalg.solve(factor, np.linalg.cholesky(covariance))
    offset = np.zeros((parts, dim))
    if parts > 1:
        picked = target.drawn(rng, parts) - shift
        offset = np.linalg.solve(factor, picked.T).T
        unit = 0.5 * unit
    below = np.tile(np.tril(unit, -1), (parts, 1, 1))
    log_scale = np.tile(np.log(np.diagonal(unit)), (parts, 1))
    trained = (np.full(parts, -np.log(parts)), offset, log_scale, below)
    potential = Potential(*(jnp.asarray(part, dtype) for part in trained))
    frame = Affine(jnp.asarray(shift, dtype), jnp.asarray(factor, dtype))
    return LightBridge(potential, jnp.asarray(origin, dtype), frame, jnp.asarray(epsilon, dtype))


def _samples(key: Any, law: Any, what: str, dim: int | None) -> Samples:
    if hasattr(law, "sample") and hasattr(law, "log_prob"):
        law = np.asarray(law.sample(key, LARGE), float)
    return samples_of(law, what, dim)
