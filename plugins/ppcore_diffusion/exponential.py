"""Exponential integrators of the probability flow: the linear part exact, steps in λ.

    x_t = (α_t/α_s) x_s − α_t ∫_{λ_s}^{λ_t} e^{−λ} ε(X_λ, λ) dλ,   ε = −σ s, λ = log(α/σ).

They are integrators as those of :mod:`ppcore_diffusion.integrators` are. ε changes slowly in λ, so
that few steps are enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ppcore.contract import Biased, Contract
from ppcore.errors import SettingsError
from ppcore_diffusion.integrators import OneStep

TERMS = 40


@dataclass(frozen=True)
class Exponential(OneStep):
    """x_t = (α_t/α_s) x_s − α_t ∫_{λ_s}^{λ_t} e^{−λ} ε dλ, the integral of order 1, 2 or 3.

    The linear part is exact and ε changes slowly in λ, so that few steps are enough. Order 1 is
    DDIM; order 2 evaluates ε once more at half of the step in λ, order 3 at thirds of it.

    Parameters
    ----------
    order : 1, 2 or 3

    Raises
    ------
    ppcore.errors.SettingsError
        For another order.

    Source: Lu et al. 2022, arXiv:2206.00927; Song, Meng & Ermon 2021, arXiv:2010.02502 (DDIM).
    """

    order: int = 2

    def __post_init__(self) -> None:
        _check_order(self.order)

    @property
    def contract(self) -> Contract:
        return Biased(order=self.order)

    def step(self, law: Any, s: Any, t: Any, x: Any, z: Any = None) -> Any:
        noise = law.noise
        begin, h = noise.log_snr(s), noise.log_snr(t) - noise.log_snr(s)
        first = epsilon(law, x, s)
        if self.order == 1:
            return exponential_sum(noise, s, t, x, (first,), h)
        if self.order == 2:
            middle = noise.time(begin + 0.5 * h)
            at = exponential_sum(noise, s, middle, x, (first,), 0.5 * h)
            return exponential_sum(noise, s, t, x, (epsilon(law, at, middle),), h)
        third, two_thirds = noise.time(begin + h / 3.0), noise.time(begin + 2.0 * h / 3.0)
        at = exponential_sum(noise, s, third, x, (first,), h / 3.0)
        slope = (epsilon(law, at, third) - first) / (h / 3.0)
        at = exponential_sum(noise, s, two_thirds, x, (first, slope), 2.0 * h / 3.0)
        slope = (epsilon(law, at, two_thirds) - first) / (2.0 * h / 3.0)
        return exponential_sum(noise, s, t, x, (first, slope), h)


@dataclass(frozen=True)
class Multistep:
    """As :class:`Exponential`, ε extrapolated in λ through the last ``order`` values of it.

    One evaluation a step (exponential Adams–Bashforth); the first ``order`` − 1 steps are those of
    ``Exponential(order)``.

    Parameters
    ----------
    order : 1, 2 or 3

    Raises
    ------
    ppcore.errors.SettingsError
        For another order.

    Source: Zhang & Chen 2023, arXiv:2204.13902; Lu et al. 2022, arXiv:2211.01095.
    """

    order: int = 2
    noises: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _check_order(self.order)

    @property
    def contract(self) -> Contract:
        return Biased(order=self.order)

    def walk(self, law: Any, x: Any, times: Any, z: Any) -> Any:
        """X at times[-1]."""
        noise, start = law.noise, Exponential(self.order)
        past: list[tuple[Any, Any]] = []
        for k in range(min(self.order - 1, times.shape[0] - 1)):
            past.insert(0, (noise.log_snr(times[k]), epsilon(law, x, times[k])))
            x = start.step(law, times[k], times[k + 1], x)

        def advance(carry: Any, at: tuple[Any, Any]) -> tuple[Any, None]:
            x, past = carry
            s, t = at
            here = (noise.log_snr(s), epsilon(law, x, s))
            known = (here, *past)
            h = noise.log_snr(t) - here[0]
            x = exponential_sum(noise, s, t, x, _powers(known), h)
            return (x, known[: self.order - 1]), None

        done = len(past)
        (x, _), _ = jax.lax.scan(advance, (x, tuple(past)), (times[done:-1], times[done + 1 :]))
        return x


def epsilon(law: Any, x: Any, t: Any) -> Any:
    """−σ_t s(x, t); float[d]."""
    return -law.noise.sigma(t) * law.score(x, t)


def exponential_sum(noise: Any, s: Any, t: Any, x: Any, powers: tuple[Any, ...], h: Any) -> Any:
    """(α_t/α_s) x − α_t ∫ e^{−λ} Σ_j powers[j] (λ − λ_s)^j dλ over the h from λ_s to λ_t."""
    carried = jnp.exp(noise.log_alpha(t) - noise.log_alpha(s)) * x
    gained = sum(_moment(j, h) * power for j, power in enumerate(powers))
    return carried - noise.sigma(t) * gained


def _moment(j: int, h: Any) -> Any:
    """∫_0^h e^{h−u} u^j du = j! Σ_{m>j} h^m/m!, without cancellation."""
    terms = [math.factorial(j) / math.factorial(m) for m in range(j + 1, j + 1 + TERMS)]
    total = jnp.zeros_like(h)
    for term in reversed(terms):
        total = total * h + term
    return total * h ** (j + 1)


def _powers(known: tuple[tuple[Any, Any], ...]) -> tuple[Any, ...]:
    """Coefficients in powers of λ − λ_0 of the polynomial through (λ_i, ε_i), latest first."""
    (l0, e0), *rest = known
    if not rest:
        return (e0,)
    (l1, e1), *further = rest
    slope = (e0 - e1) / (l0 - l1)
    if not further:
        return e0, slope
    l2, e2 = further[0]
    bend = (slope - (e1 - e2) / (l1 - l2)) / (l0 - l2)
    return e0, slope + (l0 - l1) * bend, bend


def _check_order(order: Any) -> None:
    if isinstance(order, bool) or order not in (1, 2, 3):
        raise SettingsError(f"order={order!r} must be 1, 2 or 3.")
