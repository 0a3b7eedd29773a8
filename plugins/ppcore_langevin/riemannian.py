"""Riemannian MALA: the step follows the local curvature through the softabs metric; small d."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.contract import Contract, Invariant
from ppcore.settings import check_between
from ppcore.tuning.preconditioner import Preconditioner
from ppcore_langevin.moves import Step, choose, diffusion_time, engine_of

TIE = 1e-4


class Bent(NamedTuple):
    """A scored position with −∇² log γ (float[d, d]) and −∇³ log γ (float[d, d, d])."""

    x: Any
    log_density: Any
    gradient: Any
    curvature: Any
    twist: Any


class Metric(NamedTuple):
    """The diffusion matrix D = Q diag(φ) Qᵀ at a point, and the drift, in whitened coordinates."""

    vectors: Any
    spread: Any
    drift: Any

    def root(self, v: Any) -> Any:
        """D^½ v: float[d]."""
        return self.vectors @ (jnp.sqrt(self.spread) * (self.vectors.T @ v))

    def whiten(self, v: Any) -> Any:
        """D^−½ v: float[d]."""
        return self.vectors @ ((self.vectors.T @ v) / jnp.sqrt(self.spread))


def spread(values: Any, softness: Any) -> tuple[Any, Any]:
    """φ(λ) = tanh(αλ)/λ, one over softabs(λ) = λ coth(αλ), and φ′(λ); float[d] each.

    >>> float(spread(jnp.array([0.0]), 5.0)[0][0])
    5.0
    """
    t = softness * values
    small = jnp.abs(t) < 0.02
    safe = jnp.where(small, 1.0, t)
    phi = jnp.where(small, 1.0 - t**2 / 3.0 + 2.0 * t**4 / 15.0, jnp.tanh(safe) / safe)
    steep = 1.0 / jnp.cosh(jnp.clip(safe, -300.0, 300.0)) ** 2 / safe - jnp.tanh(safe) / safe**2
    slope = jnp.where(small, -2.0 * t / 3.0 + 8.0 * t**3 / 15.0, steep)
    return softness * phi, softness**2 * slope


def divergence(values: Any, vectors: Any, twist: Any, softness: Any) -> Any:
    """Σ_j ∂_j D_ij for D = φ(H), H with eigenvalues ``values`` and derivative ``twist``.

    By Daleckii–Krein ∂_j D = Q (Γ ∘ Qᵀ ∂_j H Q) Qᵀ with Γ the divided differences of φ; as
    ∂_j H_ik is symmetric in all indices, (Qᵀ div D)_a = Σ_b Γ_ab R_abb, R the rotated ``twist``.
    """
    phi, slope = spread(values, softness)
    apart = values[:, None] - values[None, :]
    tied = jnp.abs(apart) < TIE * (1.0 + jnp.abs(values)[:, None])
    middle = 0.5 * (slope[:, None] + slope[None, :])
    ratio = (phi[:, None] - phi[None, :]) / jnp.where(tied, 1.0, apart)
    gamma = jnp.where(tied, middle, ratio)
    rotated = jnp.einsum("ijk,ia,jb,kb->ab", twist, vectors, vectors, vectors)
    return vectors @ jnp.sum(gamma * rotated, axis=1)


@dataclass(frozen=True)
class RiemannianMALA:
    """Langevin steps whose scale and direction adapt to the curvature at each point, adjusted.

    In whitened coordinates (x = F w) let H(w) = −Fᵀ∇² log γ F and D = 1/softabs(H), where
    softabs(λ) = λ coth(αλ) acts on eigenvalues and is at least 1/α. The diffusion
    dw = (D ∇ log γ + div D) dt + √(2D) dW leaves γ alone; its Euler step
    w′ = w + h (D b + div D)(w) + √(2h) D(w)^½ z is a proposal, accepted with
    min(1, γ(y) q(y, x) / (γ(x) q(x, y))), log q(x, y) = −½|z|² − ½ log det D(x). Reversible for γ.
    Third derivatives and an eigendecomposition a step: for small d.

    Parameters
    ----------
    softness : float
        α, in (0, 1000); 1/α is the least curvature that a step is scaled by.

    Raises
    ------
    ppcore.errors.SettingsError
        If ``softness`` is out of range.

    Source: Girolami & Calderhead 2011, doi:10.1111/j.1467-9868.2010.00765.x; Xifara et al. 2014,
    arXiv:1309.2983 (the drift); Betancourt 2013, arXiv:1212.4693 (softabs).

    >>> RiemannianMALA(softness=2.0).needs
    ('gradient',)
    """

    softness: float = 5.0
    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.574
    error_order: ClassVar[float] = 3.0

    def __post_init__(self) -> None:
        check_between("softness", self.softness, 0, 1000)

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Step:
        return Step(preconditioner, diffusion_time(step))

    def init(self, key: Any, target: Any, x: Any, params: Step) -> Bent:
        return self._score(target, x)

    def refresh(self, target: Any, state: Bent) -> Bent:
        return self._score(target, state.x)

    def _score(self, target: Any, x: Any) -> Bent:
        def curved(v: Any) -> tuple[Any, Any]:
            def sloped(u: Any) -> tuple[Any, Any]:
                value, gradient = jax.value_and_grad(target.log_density)(u)
                return gradient, (value, gradient)

            hessian, first = jax.jacfwd(sloped, has_aux=True)(v)
            return hessian, (hessian, *first)

        third, (hessian, value, gradient) = jax.jacfwd(curved, has_aux=True)(x)
        return Bent(x, value, gradient, -hessian, -third)

    def _metric(self, state: Bent, f: Preconditioner) -> Metric:
        pull = f.pull
        h = pull(pull(state.curvature).T)
        values, vectors = jnp.linalg.eigh(0.5 * (h + h.T))
        phi, _ = spread(values, self.softness)
        twist = pull(jnp.moveaxis(pull(jnp.moveaxis(pull(state.twist), 2, 0)), 2, 0))
        along = vectors @ (phi * (vectors.T @ pull(state.gradient)))
        drift = along + divergence(values, vectors, twist, self.softness)
        return Metric(vectors, phi, drift)

    def step(self, key: Any, target: Any, state: Bent, params: Step) -> tuple[Bent, dict[str, Any]]:
        k_move, k_accept = random.split(key)
        f, h = params
        z = random.normal(k_move, state.x.shape, state.x.dtype)
        here = self._metric(state, f)
        move = h * here.drift + here.root(jnp.sqrt(2.0 * h) * z)
        new = self._score(target, state.x + f.push(move))
        there = self._metric(new, f)
        back = there.whiten(-move - h * there.drift) / jnp.sqrt(2.0 * h)
        kinetic = 0.5 * (jnp.sum(z**2) - jnp.sum(back**2))
        volume = 0.5 * (jnp.sum(jnp.log(here.spread)) - jnp.sum(jnp.log(there.spread)))
        ratio = new.log_density - state.log_density + kinetic + volume
        return choose(k_accept, ratio, new, state)


def engine(
    softness: float = 5.0,
    target_accept: float = 0.574,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 8,
) -> KernelEngine:
    """:class:`RiemannianMALA` with many chains in lockstep, tuned together.

    Parameters
    ----------
    softness : float
        α of the softabs metric, in (0, 1000).
    target_accept : float
        Mean acceptance probability to tune the step size for, in (0, 1).
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most where chains have not settled.
    most_thin : int
        The most transitions that may make one draw.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    >>> engine(metric="diagonal").default_chains
    64
    """
    kernel = RiemannianMALA(softness)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
