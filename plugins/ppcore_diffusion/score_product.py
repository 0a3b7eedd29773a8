"""Products of laws whose scores alone are known: Feynman–Kac weights in the limit of small steps.

Along dX = (½βX + (β/A) s) dτ + √(β/A) dW, τ = 1 − t, s = Σ_i a_i s_i, A = Σ_i a_i, weights that
grow as

    d log w/dτ = ½β Σ_i a_i [(1/A − 1) ∇·s_i − |s_i|²] + ½(β/A) |s|² − ½β(A − 1) d

make the particles proper for γ_t = Π_i p_{i,t}^{a_i}. Divergences are exact traces, d directional
derivatives each. (With noise √β dW they would cancel, and log w would gather a variance of order
∫β while all p_i are still N(0, I); with √(β/A) dW it gathers none there.) In steps of size h
the weights are off by O(h), and the scores by what their training missed: for laws with densities
:mod:`ppcore_diffusion.combination` has weights without either error.

Source: Skreta et al. 2025, arXiv:2503.02819.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Biased, Contract
from ppcore.population import Population, equally_weighted, reweight
from ppcore.settings import check_count
from ppcore.stages.resampling import Resample
from ppcore_diffusion.combination import (
    NoisedProduct,
    backwards,
    log_normaliser,
    noised_product,
    start,
)

CONTRACT: Contract = Biased(order=1)


def denoise_scores(
    key: Any,
    parts: Any,
    n: int,
    exponents: Any = None,
    steps: int = 256,
    end: float = 1e-3,
    threshold: float = 0.5,
) -> Population:
    """``n`` particles for Π_i p_{i,end}^{a_i}, weighed by scores alone: off by O(1/steps).

    Runs in JAX's current precision; call it inside ``ppcore.precision.scope()`` for float64.

    Parameters
    ----------
    key : key
    parts : sequence of Noised
        E.g. :class:`ppcore_diffusion.noising.LearnedScore`.
    n : int
    exponents : float[m], optional
        a_i; default: one each. Their sum must be positive.
    steps : int
        Even in t.
    end : float
        Above 0 where the score is learned, since it was not learned at 0.
    threshold : float
        Resampled where the effective size falls to this share of n.

    Raises
    ------
    ppcore.errors.SettingsError
        If dimensions or noises differ, exponents do not fit, or a number is out of range.
    """
    path = noised_product(parts, exponents, end)
    check_count("n", n, 1)
    check_count("steps", steps, 1)
    return _walk(key, path, np.linspace(0.0, 1.0, steps + 1), Resample(threshold=threshold), n)


def growth(path: NoisedProduct, x: Any, t: Any) -> Any:
    """d log w/dτ at x; float[d], float[] -> float[]."""
    total = jnp.sum(path.exponents)
    rate, together = jnp.zeros((), x.dtype), jnp.zeros_like(x)
    for a, part in zip(path.exponents, path.parts, strict=True):
        score = part.score(x, t)
        divergence = jnp.trace(jax.jacfwd(part.score)(x, t))
        rate = rate + a * ((1.0 / total - 1.0) * divergence - jnp.sum(score**2))
        together = together + a * score
    rate = rate + jnp.sum(together**2) / total - (total - 1.0) * path.dim
    return 0.5 * path.noise.beta(t) * rate


@partial(jax.jit, static_argnums=(3, 4))
def _walk(key: Any, path: NoisedProduct, betas: Any, resample: Resample, n: int) -> Population:
    k_start, k_walk = random.split(key)
    x, _ = start(k_start, path, n)
    population = equally_weighted(x)
    population = Population(x, population.log_weight, log_normaliser(path))

    def advance(key: Any, population: Population, at: Any) -> tuple[Population, None]:
        a, b = at
        k_resample, k_move = random.split(key)
        s, t = path.time(a), path.time(b)
        log_g = (s - t) * jax.vmap(lambda x: growth(path, x, s))(population.x)
        population = reweight(population, log_g)
        population = resample.along(k_resample, path, None, population)

        def move(k: Any, x: Any) -> Any:
            mean, _, variance = backwards(path, a, b, x)
            return mean + jnp.sqrt(variance) * random.normal(k, x.shape, x.dtype)

        y = random.each(move, k_move, population.x)
        return Population(y, population.log_weight, population.log_z), None

    betas = jnp.asarray(betas, x.dtype)
    return random.scan(advance, k_walk, population, (betas[:-1], betas[1:]), len(betas) - 1)[0]
