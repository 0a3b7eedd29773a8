"""Products of learned laws: exact where densities are known, corrected by Feynman–Kac weights.

The combination of laws q_1 … q_m with exponents a_1 … a_m is

    γ(x) = Π_i q_i(x)^{a_i},   Z = ∫ γ,

a product of experts for a = (1, …, 1), the geometric path between two for a = (1 − b, b), a
tempered law for m = 1. Adding up scores along the noising process does not sample it:
Π_i p_{i,t}^{a_i} is not what noise makes of γ. What is missing are weights, and the path formula
has them: with γ_t = Π_i p_{i,t}^{a_i} at times 1 = t_0 > … > t_K, ρ = α_{t_k}/α_{t_{k+1}},
s = Σ_i a_i s_i(x, t_k), A = Σ_i a_i and v = (1 − ρ²)/A,

    F_k(y | x) = N(y; (x + v s)/ρ, v),   B_k(x | y) = N(x; ρy, v),
    log G_k = log γ_{t_{k+1}}(y) − log γ_{t_k}(x) + log B_k(x | y) − log F_k(y | x),

so that E[w] = Z for any number of steps, with resampling between them or without. Where all p_i are
N(0, I), as they nearly are at first, F_k and B_k are reversals of each other for N(0, I/A), and
every G_k is one. (With noise of variance 1 − ρ², as for a single law, log w would gather a variance
of order ∫β there, since the product is narrower than what that noise leaves invariant.)

Source: Du et al. 2023, arXiv:2302.11552 (why products need correction); Skreta et al. 2025,
arXiv:2503.02819 (Feynman–Kac correctors); Del Moral 2004, doi:10.1007/978-1-4684-9393-1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.paths import Markov, follow
from ppcore.population import Population, equally_weighted, reweight
from ppcore.settings import check_count
from ppcore.stages.resampling import Resample
from ppcore_diffusion.discrete_flow import LOG_2PI, standard_normal

CONTRACT: Contract = ProperlyWeighted()


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Product:
    """Π_i q_i^{a_i} of normalised densities, as a target for any engine; made by :func:`product`.

    Its reference is q_1, so that tempering goes from q_1 to the product.

    Attributes
    ----------
    parts : tuple of Normalised
        q_i, pytrees.
    exponents : float[m]
        a_i.
    beta : float
        Inverse temperature of what the product adds to q_1.
    """

    parts: tuple[Any, ...]
    exponents: Any
    beta: Any = 1.0

    @property
    def dim(self) -> int:
        return int(self.parts[0].dim)

    @property
    def has_reference(self) -> bool:
        return True

    def log_prior(self, x: Any) -> Any:
        """log q_1(x)."""
        return self.parts[0].log_prob(x)

    def log_likelihood(self, x: Any) -> Any:
        """log γ(x) − log q_1(x)."""
        logs = [part.log_prob(x) for part in self.parts]
        powers = self.exponents - jnp.zeros_like(self.exponents).at[0].set(1.0)
        return sum(power * log for power, log in zip(powers, logs, strict=True))

    def log_density(self, x: Any) -> Any:
        """log γ_β(x); float[d] -> float[]."""
        return self.log_prior(x) + self.beta * self.log_likelihood(x)

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` draws of q_1; float[n, d]."""
        return self.parts[0].sample(key, n)

    def constrain(self, x: Any) -> dict[str, Any]:
        return {"x": x}

    def tempered(self, beta: Any) -> Product:
        return replace(self, beta=beta)


def product(parts: Any, exponents: Any = None) -> Product:
    """The product of normalised densities as a target, ``infer(product(...), "smc")``.

    Parameters
    ----------
    parts : sequence of Normalised
        Learned or not: anything with ``dim``, ``sample`` and an exact ``log_prob``.
    exponents : float[m], optional
        Default: one each.

    Raises
    ------
    ppcore.errors.SettingsError
        If there are none, their dimensions differ, or exponents do not fit.
    ppcore.errors.UnsupportedError
        If a part has no density to evaluate.
    """
    parts, powers = _checked(parts, exponents)
    for i, part in enumerate(parts):
        if not (hasattr(part, "log_prob") and hasattr(part, "sample")):
            raise UnsupportedError(
                f"Part {i} ({type(part).__name__}) has no sample(key, n) and log_prob(x). A score "
                "alone is no density: combine scores with denoise_product(...)."
            )
    return Product(parts, jnp.asarray(powers, jnp.result_type(float)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Snapshot:
    """γ_t = Π_i p_{i,t}^{a_i} at one time, as a target."""

    path: NoisedProduct
    time: Any

    @property
    def dim(self) -> int:
        return self.path.dim

    @property
    def has_reference(self) -> bool:
        return False

    def log_density(self, x: Any) -> Any:
        return self.path.log_gamma(x, self.time)

    def log_prior(self, x: Any) -> Any:
        return jnp.zeros((), x.dtype)

    def log_likelihood(self, x: Any) -> Any:
        return self.log_density(x)

    def sample_reference(self, key: Any, n: int) -> Any:
        raise UnsupportedError("A product of noised laws cannot be drawn from; walk to it.")

    def constrain(self, x: Any) -> dict[str, Any]:
        return {"x": x}

    def tempered(self, beta: Any) -> Product:
        raise UnsupportedError("A product of noised laws is not tempered; its path is the noise.")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class NoisedProduct:
    """The path of γ_t = Π_i p_{i,t}^{a_i} from t = 1 (b = 0) to t = ``end`` (b = 1).

    A :class:`ppcore.paths.Path`, so that stages and :func:`ppcore.paths.follow` walk it.

    Attributes
    ----------
    parts : tuple of Noised
        With ``log_density(x, t)`` and ``score(x, t)``, and one noise for all.
    exponents : float[m]
    end : float
    """

    parts: tuple[Any, ...]
    exponents: Any
    end: Any = 0.0

    @property
    def dim(self) -> int:
        return int(self.parts[0].dim)

    @property
    def target(self) -> Snapshot:
        return self.at(1.0)

    @property
    def gauge(self) -> NoisedProduct:
        return self

    @property
    def noise(self) -> Any:
        return self.parts[0].noise

    def time(self, b: Any) -> Any:
        """t = 1 − b(1 − end)."""
        return 1.0 - b * (1.0 - self.end)

    def at(self, b: Any) -> Snapshot:
        return Snapshot(self, self.time(b))

    def change(self, x: Any) -> Any:
        """x itself: between two times all of it counts."""
        return x

    def log_ratio(self, x: Any, a: Any, b: Any) -> Any:
        """log γ_b(x) − log γ_a(x)."""
        return self.log_gamma(x, self.time(b)) - self.log_gamma(x, self.time(a))

    def log_gamma(self, x: Any, t: Any) -> Any:
        """Σ_i a_i log p_{i,t}(x)."""
        logs = jnp.stack([part.log_density(x, t) for part in self.parts])
        return jnp.sum(self.exponents * logs)

    def score(self, x: Any, t: Any) -> Any:
        """Σ_i a_i s_i(x, t)."""
        return sum(a * part.score(x, t) for a, part in zip(self.exponents, self.parts, strict=True))


def backwards(path: NoisedProduct, a: Any, b: Any, x: Any) -> tuple[Any, Any, Any]:
    """``(mean of F, ρ, v)`` from x at b_k = a to b_{k+1} = b; float[d], float[], float[]."""
    s, t = path.time(a), path.time(b)
    log_ratio = path.noise.log_alpha(s) - path.noise.log_alpha(t)
    ratio, variance = jnp.exp(log_ratio), -jnp.expm1(2.0 * log_ratio) / jnp.sum(path.exponents)
    return (x + variance * path.score(x, s)) / ratio, ratio, variance


def _forward(key: Any, path: Any, a: Any, b: Any, x: Any, params: Any) -> Any:
    mean, _, variance = backwards(path, a, b, x)
    return mean + jnp.sqrt(variance) * random.normal(key, x.shape, x.dtype)


def _log_b_over_f(path: Any, a: Any, b: Any, x: Any, y: Any, params: Any) -> Any:
    mean, ratio, variance = backwards(path, a, b, x)
    return 0.5 * (jnp.sum((y - mean) ** 2) - jnp.sum((x - ratio * y) ** 2)) / variance


DENOISING = Markov(_forward, _log_b_over_f)
"""F_k and B_k of this module, for :func:`ppcore.paths.follow`."""


def denoise_product(
    key: Any,
    parts: Any,
    n: int,
    exponents: Any = None,
    steps: int = 64,
    end: float = 0.0,
    threshold: float = 0.5,
) -> Population:
    """``n`` weighted particles for γ = Π_i p_{i,end}^{a_i}: E[exp(log_z) Σ W f] = ∫ f γ, exactly.

    Particles start from N(0, I/Σa) at t = 1, weighed for γ_1, and are denoised by the sum of the
    scores; each step is weighed by log G_k, and the population resampled by systematic resampling
    where its effective size falls to ``threshold`` · n. Few steps cost variance, and no bias.

    Runs in JAX's current precision; call it inside ``ppcore.precision.scope()`` for float64.

    Parameters
    ----------
    key : key
    parts : sequence of Noised
        With ``log_density(x, t)``, e.g. :class:`ppcore_diffusion.noising.NoisedMixture`. Without
        it, see :func:`ppcore_diffusion.score_product.denoise_scores`.
    n : int
    exponents : float[m], optional
        a_i; default: one each. Their sum must be positive.
    steps : int
        K, even in t.
    end : float
        Time to stop at, 0 for the laws themselves.
    threshold : float
        1 resamples at every step.

    Raises
    ------
    ppcore.errors.SettingsError
        If dimensions or noises differ, exponents do not fit, or a number is out of range.
    ppcore.errors.UnsupportedError
        If a part knows its score only.
    """
    path = noised_product(parts, exponents, end)
    for i, part in enumerate(path.parts):
        if not hasattr(part, "log_density"):
            raise UnsupportedError(
                f"Part {i} ({type(part).__name__}) knows its score only, so that products with it "
                "have no exact weights. Use denoise_scores(...), whose weights are right in the "
                "limit of small steps, or give it log_density(x, t)."
            )
    check_count("n", n, 1)
    check_count("steps", steps, 1)
    return _walk(key, path, np.linspace(0.0, 1.0, steps + 1), Resample(threshold=threshold), n)


@partial(jax.jit, static_argnums=(3, 4))
def _walk(key: Any, path: NoisedProduct, betas: Any, resample: Resample, n: int) -> Population:
    k_start, k_walk = random.split(key)
    x, log_q = start(k_start, path, n)
    first = path.at(0.0)
    population = reweight(equally_weighted(x), jax.vmap(first.log_density)(x) - log_q)
    return follow(
        k_walk,
        path,
        betas,
        DENOISING,
        population,
        resample=lambda k, p: resample.along(k, path, None, p),
    )


def start(key: Any, path: NoisedProduct, n: int) -> tuple[Any, Any]:
    """``n`` draws of N(0, I/Σa), which γ_1 is close to, and their log density."""
    u = random.normal(key, (n, path.dim))
    total = jnp.sum(path.exponents)
    log_q = jax.vmap(standard_normal)(u) + 0.5 * path.dim * jnp.log(total)
    return u / jnp.sqrt(total), log_q


def log_normaliser(path: NoisedProduct) -> Any:
    """log ∫ Π_i N(x; 0, I)^{a_i} dx = ½ d ((1 − A) log 2π − log A), A = Σ a_i; float[]."""
    total = jnp.sum(path.exponents)
    return 0.5 * path.dim * ((1.0 - total) * LOG_2PI - jnp.log(total))


def noised_product(parts: Any, exponents: Any = None, end: float = 0.0) -> NoisedProduct:
    """The path of a product of noised laws, checked; see :class:`NoisedProduct`.

    Raises
    ------
    ppcore.errors.SettingsError
        If dimensions or noises differ, exponents do not fit or sum to no positive number, or
        ``end`` is outside [0, 1).
    """
    parts, powers = _checked(parts, exponents)
    if not 0.0 <= end < 1.0:
        raise SettingsError(f"end={end!r} must be a time in [0, 1).")
    if powers.sum() <= 0:
        raise SettingsError(
            f"The exponents sum to {powers.sum():g}: at time 1 the product would be a Gaussian of "
            "infinite or negative variance. Their sum must be positive."
        )
    for i, part in enumerate(parts):
        if not (hasattr(part, "score") and hasattr(part, "noise")):
            raise UnsupportedError(
                f"Part {i} ({type(part).__name__}) has no score(x, t) under noise. Combine "
                "densities that have none with product(...) and an engine, such as 'smc'."
            )
        if jax.tree.leaves(part.noise) != jax.tree.leaves(parts[0].noise):
            raise SettingsError(
                f"Part {i} is noised by {part.noise}, part 0 by {parts[0].noise}: laws can be "
                "combined along one noising process only."
            )
    dtype = jnp.result_type(float)
    return NoisedProduct(parts, jnp.asarray(powers, dtype), jnp.asarray(end, dtype))


def _checked(parts: Any, exponents: Any) -> tuple[tuple[Any, ...], np.ndarray]:
    try:
        parts = tuple(parts)
    except TypeError:
        raise SettingsError("parts must be a sequence of laws, such as (p, q).") from None
    if not parts:
        raise SettingsError("There is no law to combine.")
    dims = [int(part.dim) for part in parts]
    if len(set(dims)) > 1:
        raise SettingsError(f"The laws to be combined have dimensions {dims}; they must be equal.")
    powers = np.ones(len(parts)) if exponents is None else np.asarray(exponents, float)
    if powers.shape != (len(parts),) or not np.isfinite(powers).all():
        raise SettingsError(
            f"exponents must be {len(parts)} finite numbers, one for each law; got {exponents!r}."
        )
    return parts, powers
