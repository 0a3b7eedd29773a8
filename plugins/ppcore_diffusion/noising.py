"""Laws under noise: the schedule, Gaussian mixtures in closed form, and scores that are learned.

The noising process is dX = −½β(t) X dt + √β(t) dW for t from 0 to 1, so that X_t = α_t X_0 + σ_t ε
with α_t² + σ_t² = 1; p_t is the law of X_t, s(x, t) = ∇ log p_t(x) its score, and
ε(x, t) = −σ_t s(x, t) the noise that it tells of. λ_t = log(α_t/σ_t) is half the log of the ratio
of signal to noise, the time in which exponential integrators step.

Source: Song et al. 2021, arXiv:2011.13456; Lu et al. 2022, arXiv:2206.00927 (λ).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Density
from ppcore.engine import Report
from ppcore.errors import SettingsError
from ppcore.exact.protocol import generator
from ppcore.settings import check_between, check_count
from ppcore_diffusion.discrete_flow import LOG_2PI
from ppcore_diffusion.matching import silent
from ppcore_diffusion.regression import Schedule, regress
from ppcore_diffusion.samples import samples_of
from ppcore_diffusion.vector_field import VectorField, vector_field

EARLIEST = 1e-3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Noise:
    """β(t) = low + t (high − low).

    Attributes
    ----------
    low, high : float
    """

    low: Any = 0.1
    high: Any = 20.0

    def beta(self, t: Any) -> Any:
        """β(t)."""
        return self.low + t * (self.high - self.low)

    def log_alpha(self, t: Any) -> Any:
        """log α_t = −½ ∫_0^t β."""
        return -0.5 * (self.low * t + 0.5 * t**2 * (self.high - self.low))

    def alpha(self, t: Any) -> Any:
        """α_t."""
        return jnp.exp(self.log_alpha(t))

    def sigma(self, t: Any) -> Any:
        """σ_t = √(1 − α_t²)."""
        return jnp.sqrt(-jnp.expm1(2.0 * self.log_alpha(t)))

    def log_snr(self, t: Any) -> Any:
        """λ_t = log(α_t/σ_t)."""
        return self.log_alpha(t) - jnp.log(self.sigma(t))

    def time(self, log_snr: Any) -> Any:
        """t with λ_t = ``log_snr``."""
        # log α = −½ log(1 + exp(−2λ)), and log α is a quadratic in t.
        double = jnp.logaddexp(0.0, -2.0 * log_snr)
        slope = self.high - self.low
        return 2.0 * double / (jnp.sqrt(self.low**2 + 2.0 * slope * double) + self.low)

    def grid(self, count: int, end: float = EARLIEST, spacing: str = "log_snr") -> Any:
        """Times from 1 down to ``end`` in ``count`` steps, even in λ or in t; float[count + 1].

        Raises :class:`ppcore.errors.SettingsError` for an ``end`` outside [0, 1), and for 0 with
        steps even in λ, which is infinite there.
        """
        check_count("count", count, 1)
        if spacing not in ("log_snr", "time"):
            raise SettingsError(f"spacing={spacing!r} must be 'log_snr' or 'time'.")
        check_between("end", end, 0.0 if spacing == "log_snr" else -1e-12, 1.0)
        if spacing == "time":
            return jnp.linspace(1.0, end, count + 1)
        first, last = self.log_snr(jnp.asarray(1.0)), self.log_snr(jnp.asarray(end))
        times = self.time(first + (last - first) * jnp.arange(count + 1) / count)
        return times.at[0].set(1.0).at[-1].set(end)


@runtime_checkable
class Noised(Protocol):
    """A law p_0 and what noise makes of it: a pytree.

    With a method ``log_density(x, t)``, log p_t(x) normalised, it can be combined exactly.
    """

    noise: Noise

    @property
    def dim(self) -> int: ...

    def score(self, x: Any, t: Any) -> Any:
        """∇ log p_t(x); float[d], float[] -> float[d]."""
        ...


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoisedMixture:
    """p_t = Σ_k π_k N(α_t m_k, α_t² C_k + σ_t² I), in closed form.

    Attributes
    ----------
    log_weights : float[K]
        log π up to a constant.
    means : float[K, d]
    covariances : float[K, d, d]
    noise : Noise
    """

    log_weights: Any
    means: Any
    covariances: Any
    noise: Noise = Noise()
    contract: ClassVar[Contract] = Density()

    @property
    def dim(self) -> int:
        return int(self.means.shape[1])

    def log_density(self, x: Any, t: Any) -> Any:
        """log p_t(x); float[d], float[] -> float[]."""
        alpha = self.noise.alpha(t)
        added = -jnp.expm1(2.0 * self.noise.log_alpha(t)) * jnp.eye(self.dim, dtype=x.dtype)
        roots = jnp.linalg.cholesky(alpha**2 * self.covariances + added)
        off = (x - alpha * self.means)[..., None]
        z = jax.scipy.linalg.solve_triangular(roots, off, lower=True)[..., 0]
        scale = jnp.sum(jnp.log(jnp.diagonal(roots, axis1=-2, axis2=-1)), axis=-1)
        parts = -0.5 * jnp.sum(z**2, axis=-1) - scale - 0.5 * self.dim * LOG_2PI
        return jax.nn.logsumexp(jax.nn.log_softmax(self.log_weights) + parts)

    def score(self, x: Any, t: Any) -> Any:
        """∇ log p_t(x)."""
        return jax.grad(self.log_density)(x, t)

    def log_prob(self, x: Any) -> Any:
        """log p_0(x); float[d] -> float[]."""
        return self.log_density(x, jnp.zeros((), x.dtype))

    def sample(self, key: Any, n: int) -> Any:
        """``n`` draws of p_0; float[n, d]."""
        k_part, k_normal = random.split(key)
        part = random.categorical(k_part, self.log_weights, (n,))
        z = random.normal(k_normal, (n, self.dim), self.means.dtype)
        roots = jnp.linalg.cholesky(self.covariances)
        return self.means[part] + jnp.einsum("nij,nj->ni", roots[part], z)


def noised_mixture(
    weights: Any, means: Any, covariances: Any, noise: Noise | None = None
) -> NoisedMixture:
    """A mixture of Gaussians under noise, checked; in JAX's current precision.

    Raises
    ------
    ppcore.errors.SettingsError
        If shapes do not agree, a weight is not positive, or a covariance not positive definite.

    >>> law = noised_mixture([1.0], [[0.0]], [[[1.0]]])
    >>> round(float(law.score(jnp.array([2.0]), 0.3)[0]), 5)
    -2.0
    """
    weights, means = np.asarray(weights, float), np.asarray(means, float)
    covariances = np.asarray(covariances, float)
    if means.ndim != 2 or weights.shape != means.shape[:1]:
        raise SettingsError(f"weights {weights.shape} and means {means.shape} must be [K], [K, d].")
    if covariances.shape != (*means.shape, means.shape[1]):
        raise SettingsError(f"covariances {covariances.shape} must be [K, d, d].")
    if not (np.isfinite(weights).all() and (weights > 0).all() and np.isfinite(means).all()):
        raise SettingsError("weights must be positive, and means finite.")
    for k, covariance in enumerate(covariances):
        even = np.allclose(covariance, covariance.T) and np.isfinite(covariance).all()
        if not even or np.linalg.eigvalsh(covariance).min() <= 0:
            raise SettingsError(f"covariances[{k}] is not symmetric and positive definite.")
    dtype = jnp.result_type(float)
    return NoisedMixture(
        jnp.asarray(np.log(weights), dtype),
        jnp.asarray(means, dtype),
        jnp.asarray(covariances, dtype),
        Noise() if noise is None else noise,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LearnedScore:
    """s(x, t) = −ε(x, t)/σ_t, ε = σ_t u/ρ_t + (α_t v^½/ρ_t) N(u, t), learned from draws.

    u = (x − α_t m)/ρ_t and ρ_t² = α_t² v + σ_t², m and v the mean and variances of the draws: with
    N = 0 it is the score of a Gaussian, and the network has only to learn what that lacks.

    Attributes
    ----------
    network : VectorField
        N.
    mean, variance : float[d]
        m and v.
    noise : Noise
    """

    network: VectorField
    mean: Any
    variance: Any
    noise: Noise = Noise()

    @property
    def dim(self) -> int:
        return int(self.mean.shape[0])

    def epsilon(self, x: Any, t: Any) -> Any:
        """E[ε | X_t = x]; float[d], float[] -> float[d]."""
        mean, variance = jax.lax.stop_gradient((self.mean, self.variance))
        alpha, sigma = self.noise.alpha(t), self.noise.sigma(t)
        spread = jnp.sqrt(alpha**2 * variance + sigma**2)
        u = (x - alpha * mean) / spread
        return sigma / spread * u + alpha * jnp.sqrt(variance) / spread * self.network(u, t)

    def score(self, x: Any, t: Any) -> Any:
        """∇ log p_t(x), t > 0."""
        return -self.epsilon(x, t) / self.noise.sigma(t)


def denoising_error(model: LearnedScore, row: tuple[Any, Any, Any]) -> Any:
    """Mean of |ε(X_t, t) − ε|² over the batch; row: t[n], X_t[n, d], ε[n, d].

    Source: Vincent 2011, doi:10.1162/NECO_a_00142; Ho, Jain & Abbeel 2020, arXiv:2006.11239.
    """
    t, at, epsilon = row
    fixed = jax.lax.stop_gradient(model.noise)
    model = LearnedScore(model.network, model.mean, model.variance, fixed)
    return jnp.mean(jnp.sum((jax.vmap(model.epsilon)(at, t) - epsilon) ** 2, axis=-1))


def learn_score(
    key: Any,
    draws: Any,
    width: int = 64,
    schedule: Schedule | None = None,
    noise: Noise | None = None,
    report: Report = silent,
) -> LearnedScore:
    """The score of the law of ``draws`` under noise, by denoising; in JAX's current precision.

    Parameters
    ----------
    key : key
    draws : Fit, Population, Samples or float[n, d]
    width : int
        Neurons of both hidden layers.
    schedule : Schedule
        Steps, batch and rate of the regression.
    noise : Noise

    Raises
    ------
    ppcore.errors.SettingsError
        If the draws cannot be learned from, or a setting is out of range.
    """
    schedule = Schedule() if schedule is None else schedule
    noise = Noise() if noise is None else noise
    rng = generator(key)
    found = samples_of(draws)
    dtype = np.dtype(jnp.result_type(float))
    mean = found.weights @ found.x
    variance = found.weights @ (found.x - mean) ** 2
    low, high = float(noise.low), float(noise.high)

    def rows(rng: np.random.Generator, count: int) -> Any:
        shape = (count, schedule.batch, found.dim)
        t = EARLIEST + (1 - EARLIEST) * rng.random(shape[:2])
        log_alpha = -0.5 * (low * t + 0.5 * t**2 * (high - low))[..., None]
        epsilon = rng.standard_normal(shape)
        x = found.drawn(rng, count * schedule.batch).reshape(shape)
        at = np.exp(log_alpha) * x + np.sqrt(-np.expm1(2 * log_alpha)) * epsilon
        return tuple(np.asarray(part, dtype) for part in (t, at, epsilon))

    network = vector_field(rng, found.dim, width, dtype)
    moments = jnp.asarray(mean, dtype), jnp.asarray(variance, dtype)
    start = LearnedScore(network, *moments, jax.tree.map(lambda v: jnp.asarray(v, dtype), noise))
    made: LearnedScore = regress(rng, start, denoising_error, rows, schedule, report).model
    return made
