"""Walk and jump: gather noisy measurements of the target by Langevin walks, then denoise."""

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


@dataclass(frozen=True)
class WalkJump(Settings):
    """Sample y_1, …, y_m, y_t = u + σ ε_t with u ~ γ, one after the other; then u given them all.

    In the frame of the reference: given y_1 … y_{t−1} the law of y_t is smoother than γ, and
    log-concave for σ large enough; each y_t starts near the mean so far and makes ``walk``
    Langevin steps with ∇ log p(y_t | y_{<t}) = (E[u | y_{≤t}] − y_t)/σ², which depends on the
    measurements through their mean. The conditional means are Monte Carlo estimates. At the end
    the jump is a draw u ~ q = N(E[u | y], v/(1 + v) I), v = σ²/m, and not the mean itself, so that
    the result can be weighed: with F the walk's steps and B the same steps backwards,

    w = γ(u)/q(u) Π_t N(y_t; u, σ²)/p_0(y_t^0) Π_k B(y_t^k | y_t^{k+1})/F(y_t^{k+1} | y_t^k).

    Given a point, the randomness of the estimate made there has the same law in the numerator and
    cancels: properly weighted with E[w] = Z, however short the walks and rough the estimates.

    Parameters
    ----------
    measurements : int
        m.
    noise : float
        σ, in units of the reference's scale.
    walk : int
        Langevin steps for each measurement.
    step_size : float
        Of the walks, in units of σ².
    draws : int
        Points in each estimate of a conditional mean.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Saremi, Park & Bach 2023, arXiv:2305.19473.

    >>> WalkJump(measurements=2).contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    measurements: int = 5
    noise: float = 0.7
    walk: int = 2
    step_size: float = 0.3
    draws: int = 16
    contract: ClassVar[Contract] = ProperlyWeighted()

    def __post_init__(self) -> None:
        for name in ("measurements", "walk", "draws"):
            check_count(name, getattr(self, name), 1)
        check_between("noise", self.noise, 0, 100)
        check_between("step_size", self.step_size, 0, 2)

    @property
    def stage(self) -> WalkJump:
        """The same algorithm from the reference to the target."""
        return self

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        k_frame, k_path = random.split(key)
        frame = framed(k_frame, target)
        blank = jnp.zeros_like(population.x)
        u, log_w = random.each(lambda k, u: self._path(k, frame, u), k_path, blank)
        return weighed(frame.place(u), log_w)

    def _path(self, key: Any, frame: Frame, blank: Any) -> tuple[Any, Any]:
        """One particle and its log weight; measurements enter through their sums."""
        k_measure, k_jump = random.split(key)
        variance = jnp.full((), self.noise**2, blank.dtype)

        def measure(k: Any, carry: Any, t: Any) -> tuple[Any, Any]:
            total, clean, log_w = carry
            y, clean, gain = self._walk(k, frame, total, clean, t)
            return (total + y, clean, log_w + gain), y

        counts = jnp.arange(1, self.measurements + 1).astype(blank.dtype)
        start = blank, blank, jnp.zeros((), blank.dtype)
        (_, clean, log_w), y = random.scan(measure, k_measure, start, counts, self.measurements)
        v = variance / self.measurements
        spread = v / (1.0 + v)
        u = clean + jnp.sqrt(spread) * random.normal(k_jump, blank.shape, blank.dtype)
        fit = jnp.sum(log_normal(y, u, variance)) - log_normal(u, clean, spread)
        return u, log_w + frame.log_density(u) + fit

    def _walk(self, key: Any, frame: Frame, total: Any, clean: Any, t: Any) -> tuple[Any, Any, Any]:
        """Measurement number t, the conditional mean after it, and log Π B / (p_0 Π F)."""
        k_start, k_first, k_steps = random.split(key, 3)
        variance = jnp.full((), self.noise**2, total.dtype)
        h = self.step_size * variance
        before = jnp.where(t > 1, variance / jnp.maximum(t - 1.0, 1.0), 1.0)
        wide = variance + before / (1.0 + before * (t > 1))
        y = clean + jnp.sqrt(wide) * random.normal(k_start, total.shape, total.dtype)

        def estimated(k: Any, y: Any) -> Any:
            points = denoised(k, frame, (total + y) / t, variance / t, self.draws, 1)
            return points.mean(0)

        def move(k: Any, carry: Any, _: Any) -> tuple[Any, None]:
            y, here, gain = carry
            k_noise, k_score = random.split(k)
            forth = y + h * (here - y) / variance
            new = forth + jnp.sqrt(2.0 * h) * random.normal(k_noise, y.shape, y.dtype)
            there = estimated(k_score, new)
            back = new + h * (there - new) / variance
            change = log_normal(y, back, 2.0 * h) - log_normal(new, forth, 2.0 * h)
            return (new, there, gain + change), None

        start = y, estimated(k_first, y), -log_normal(y, clean, wide)
        (y, here, gain), _ = random.scan(move, k_steps, start, None, self.walk)
        return y, here, gain

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted particles; see :class:`ppcore.engine.PopulationEngine`."""
        cost = self.measurements * (self.walk + 1) * 2 * self.draws + 1
        return populate(self, "walk-jump", cost, (key, target, n), report)
