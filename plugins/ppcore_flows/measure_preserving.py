"""A deterministic map that nearly preserves a target: leapfrog steps and a shifted refreshment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ppcore.contract import Contract, Transport

GOLDEN = 0.6180339887498949
TINY = 1e-15


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["target", "frame", "step_size"],
    meta_fields=["leaps"],
)
@dataclass(frozen=True)
class Stir:
    """T on y = (v, ρ, u): Hamiltonian flow of (v, ρ), a shift of time u, a refreshment of ρ by it.

    x = frame(v); ρ has independent logistic coordinates, of law m(ρ) = σ(ρ)(1 − σ(ρ)); u is
    uniform on [0, 1). In turn: L leapfrog steps of size ε for −log γ − log m, volume-preserving;
    u ← u + (√5 − 1)/2 mod 1; ρ_i ← σ⁻¹(σ(ρ_i) + z_i mod 1), z_i = ½ + ½ sin(2 v_i + 2πu). All but
    the error of the leapfrog steps leaves γ(x) m(ρ) as it is, so that averages along T tend to
    those of γ; nothing is tested, nothing is drawn.

    Attributes
    ----------
    target : Target
    frame : Map
        v ↦ x, affine.
    step_size : float[]
        ε, in units of the frame.
    leaps : int
        L.

    Source: Xu, Chen & Campbell 2022, arXiv:2205.07475; Neal 2012, arXiv:1205.0070 (refreshment
    without draws).
    """

    target: Any
    frame: Any
    step_size: Any
    leaps: int
    contract: ClassVar[Contract] = Transport()

    @property
    def dim(self) -> int:
        """2d + 1."""
        return 2 * int(self.frame.dim) + 1

    def log_gamma(self, v: Any) -> Any:
        """log γ(frame(v)) + log|det ∂frame|: float[d] -> float[]."""
        x, log_det = self.frame.forward(v)
        return self.target.log_density(x) + log_det

    def log_joint(self, y: Any) -> Any:
        """log γ(v) m(ρ): float[2d + 1] -> float[]."""
        v, rho, _ = parts(y)
        return self.log_gamma(v) + jnp.sum(log_logistic(rho))

    def forward(self, y: Any) -> tuple[Any, Any]:
        """``(T(y), log|det ∂T|)``."""
        v, rho, u = parts(y)
        v, rho = self._leapfrog(v, rho, self.step_size)
        u = jnp.mod(u + GOLDEN, 1.0)
        new = _turned(rho, _shift(v, u))
        return jnp.concatenate([v, new, u[None]]), _log_det(rho, new)

    def inverse(self, y: Any) -> tuple[Any, Any]:
        """``(T⁻¹(y), log|det ∂T⁻¹|)``."""
        v, rho, u = parts(y)
        old = _turned(rho, -_shift(v, u))
        u = jnp.mod(u - GOLDEN, 1.0)
        v, before = self._leapfrog(v, old, -self.step_size)
        return jnp.concatenate([v, before, u[None]]), _log_det(rho, old)

    def _leapfrog(self, v: Any, rho: Any, step: Any) -> tuple[Any, Any]:
        score = jax.grad(self.log_gamma)
        last = self.leaps

        def leap(i: Any, at: tuple[Any, Any]) -> tuple[Any, Any]:
            v, rho = at
            kick = jnp.where((i == 0) | (i == last), 0.5, 1.0) * step
            rho = rho + kick * score(v)
            # −∂ log m/∂ρ = tanh(ρ/2): no coordinate moves faster than one.
            return v + jnp.where(i == last, 0.0, step) * jnp.tanh(0.5 * rho), rho

        return jax.lax.fori_loop(0, last + 1, leap, (v, rho))  # type: ignore[no-any-return]


def parts(y: Any) -> tuple[Any, Any, Any]:
    """(v, ρ, u) of y: float[d], float[d], float[]."""
    d = y.shape[0] // 2
    return y[:d], y[d : 2 * d], y[2 * d]


def log_logistic(rho: Any) -> Any:
    """log m(ρ) = log σ(ρ)(1 − σ(ρ)), by coordinate."""
    size = jnp.abs(rho)
    return -size - 2.0 * jnp.log1p(jnp.exp(-size))


def _shift(v: Any, u: Any) -> Any:
    return 0.5 + 0.5 * jnp.sin(2.0 * v + 2.0 * jnp.pi * u)


def _turned(rho: Any, shift: Any) -> Any:
    return logit(jnp.mod(jax.nn.sigmoid(rho) + shift, 1.0))


def logit(c: Any) -> Any:
    c = jnp.clip(c, TINY, 1.0 - TINY)
    return jnp.log(c) - jnp.log1p(-c)


def _log_det(old: Any, new: Any) -> Any:
    return jnp.sum(log_logistic(old) - log_logistic(new))
