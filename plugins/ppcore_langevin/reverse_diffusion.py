"""Reverse diffusion Monte Carlo: noise turned into the target, its score estimated on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Report
from ppcore.population import Population
from ppcore.settings import check_between, check_count
from ppcore_langevin.populations import (
    Frame,
    Settings,
    denoised,
    framed,
    log_normal,
    populate,
    weighed,
)

WIDER = 1.3


@dataclass(frozen=True)
class ReverseDiffusion(Settings):
    """Run the Ornstein–Uhlenbeck diffusion backwards from N(0, I), and weigh what comes out.

    In the frame of the reference, u at time τ of the diffusion is e^{−τ} u(0) + √(1 − e^{−2τ}) ε.
    From u ~ N(0, I) at ``time`` each step goes back by Δ, α = e^{−Δ}, with the score
    ∇ log p_τ(u) = (e^{−τ} E[u(0) | u] − u)/(1 − e^{−2τ}): to
    N((u + (1 − α²) ∇ log p_τ)/α, v), v the variance of that step if u(0) were known and, widened,
    what is not known of it. Conditional mean and variance are Monte Carlo estimates, by importance
    sampling and Langevin steps (no network, no training). With B the diffusion's own
    kernel N(αu′, (1 − α²) I) and F the step taken,

    w = γ(u_K)/N(u_0; 0, I) Π B(u_k | u_{k+1})/F(u_{k+1} | u_k, ω_k).

    Given u_k the estimate's randomness ω_k has the same law in the numerator and cancels, so that
    E[w f(u_K)] = ∫ f γ whatever the error of the score: properly weighted, and log Ẑ = log mean w.
    Better scores make the weights more even.

    Parameters
    ----------
    steps : int
        K, evenly spaced in log(e^{2τ} − 1), with the last from the smallest noise to none.
    time : float
        Where to start; N(0, I) is off by e^{−2 time}.
    draws, walk : int
        Points in each estimate of the conditional mean, and Langevin steps for them.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Huang, Dong, Hao, Ma & Zhang 2023, arXiv:2307.02037.

    >>> ReverseDiffusion(steps=8).contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    steps: int = 10
    time: float = 2.5
    draws: int = 16
    walk: int = 2
    contract: ClassVar[Contract] = ProperlyWeighted()

    def __post_init__(self) -> None:
        for name in ("steps", "draws", "walk"):
            check_count(name, getattr(self, name), 1)
        check_between("time", self.time, 0, 20)

    @property
    def stage(self) -> ReverseDiffusion:
        """The same algorithm from the reference to the target."""
        return self

    def times(self, dtype: Any) -> Any:
        """τ_0 = ``time`` > … > τ_K = 0; float[K + 1]."""
        first = jnp.log(jnp.expm1(2.0 * self.time))
        noise = jnp.exp(jnp.linspace(first, jnp.log(0.02), self.steps, dtype=dtype))
        return jnp.concatenate([0.5 * jnp.log1p(noise), jnp.zeros(1, dtype)])

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        k_frame, k_start, k_path = random.split(key, 3)
        frame = framed(k_frame, target)
        start = random.normal(k_start, population.x.shape, population.x.dtype)
        u, log_w = random.each(lambda k, u: self._path(k, frame, u), k_path, start)
        return weighed(frame.place(u), log_w)

    def _path(self, key: Any, frame: Frame, start: Any) -> tuple[Any, Any]:
        """Where one particle ends, and its log weight."""
        times = self.times(start.dtype)

        def back(k: Any, carry: tuple[Any, Any], t: Any) -> tuple[tuple[Any, Any], None]:
            u, log_w = carry
            k_score, k_noise = random.split(k)
            now, then = t
            alpha, spread = jnp.exp(then - now), -jnp.expm1(2.0 * (then - now))
            seen, noise = jnp.exp(now) * u, jnp.expm1(2.0 * now)
            points = denoised(k_score, frame, seen, noise, self.draws, self.walk)
            clean = points.mean(0)
            total = -jnp.expm1(-2.0 * now)
            score = (jnp.exp(-now) * clean - u) / total
            mean = (u + spread * score) / alpha
            known = spread * -jnp.expm1(-2.0 * then) / total
            open_ = (jnp.exp(-then) * spread / total) ** 2 * points.var(0)
            variance = jnp.where(then > 0, known + WIDER * open_, noise / (1.0 + noise))
            new = mean + jnp.sqrt(variance) * random.normal(k_noise, u.shape, u.dtype)
            gain = log_normal(u, alpha * new, spread) - log_normal(new, mean, variance)
            return (new, log_w + gain), None

        first = start, -log_normal(start, 0.0, jnp.ones((), start.dtype))
        (u, log_w), _ = random.scan(back, key, first, (times[:-1], times[1:]), self.steps)
        return u, log_w + frame.log_density(u)

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted particles; see :class:`ppcore.engine.PopulationEngine`."""
        cost = self.steps * self.draws * (self.walk + 1) + 1
        return populate(self, "reverse diffusion", cost, (key, target, n), report)
