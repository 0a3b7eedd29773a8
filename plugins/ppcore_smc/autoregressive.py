"""Moves that are reversible for a Gaussian fitted to the population: independence, relaxed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.errors import SettingsError
from ppcore.tuning.preconditioner import Dense, Preconditioner
from ppcore_smc.hmc import Position


class About(NamedTuple):
    """The Gaussian N(mean, F Fᵀ) and the share of novelty ε in (0, 1]."""

    mean: Any
    preconditioner: Preconditioner
    step_size: Any


@dataclass(frozen=True)
class Autoregressive:
    """y = m + √(1 − ε²) (x − m) + ε F z; accept with min(1, γ(y) q(x) / γ(x) q(y)).

    The proposal is reversible for q = N(m, F Fᵀ), the population's mean and covariance, so only
    the ratios to q matter and large dimensions are no obstacle where γ is near to Gaussian. At
    ε = 1 it is independence Metropolis. Reversible for γ; needs no gradient.

    Source: Cotter, Roberts, Stuart & White 2013, arXiv:1202.0709; South, Pettitt & Drovandi 2019,
    doi:10.1214/18-BA1129, for independent proposals in SMC.

    >>> Autoregressive().first_step
    0.9
    """

    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()
    target_accept: ClassVar[float] = 0.4
    error_order: ClassVar[float] = 1.0
    first_step: ClassVar[float] = 0.9

    def parameters_about(self, mean: Any, preconditioner: Preconditioner, step: Any) -> About:
        """ε = ``step``, at most 1."""
        return About(mean, preconditioner, jnp.minimum(step, 1.0))

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> About:
        raise SettingsError(
            "Autoregressive moves need a mean to move about: use them in SMC, where the "
            "population gives it."
        )

    def init(self, key: Any, target: Any, x: Any, params: About) -> Position:
        return Position(x)

    def refresh(self, target: Any, state: Position) -> Position:
        return state

    def step(
        self, key: Any, target: Any, state: Position, params: About
    ) -> tuple[Position, dict[str, Any]]:
        k_propose, k_accept = random.split(key)
        x, m, e = state.x, params.mean, params.step_size
        z = random.normal(k_propose, x.shape, x.dtype)
        fresh = e * params.preconditioner.push(z)
        y = m + jnp.sqrt(1.0 - e**2) * (x - m) + fresh
        points = jnp.stack([x, y])
        log_gamma = jax.lax.map(target.log_density, points)
        white = _whiten(params.preconditioner, points - m)
        log_ratio = log_gamma[1] - log_gamma[0] + 0.5 * (white[1] @ white[1] - white[0] @ white[0])
        odds = jnp.exp(jnp.minimum(0.0, jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)))
        accept = random.bernoulli(k_accept, odds)
        info = {
            "acceptance_rate": odds,
            "n_gradients": jnp.asarray(2, jnp.int32),
            "log_density_before": log_gamma[0],
            "log_density": jnp.where(accept, log_gamma[1], log_gamma[0]),
        }
        return Position(jnp.where(accept, y, x)), info


def _whiten(f: Preconditioner, v: Any) -> Any:
    """F⁻¹ v for each row; F lower triangular, or diagonal."""
    if isinstance(f, Dense):
        return solve_triangular(f.factor, v.T, lower=True).T
    return v / f.scale
