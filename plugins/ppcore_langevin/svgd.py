"""Stein variational gradient descent, weighed: leaders make the map, followers take it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.engine import Populated, Report
from ppcore.population import Population, reweight
from ppcore.settings import check_between, check_count
from ppcore_langevin.populations import Frame, Settings, framed, populate

CONTRACTION = 0.5


def direction(point: Any, leaders: Any, gradients: Any, width: Any) -> Any:
    """φ(u) = (1/m) Σ_j [k(a_j, u) ∇ log γ(a_j) + ∇_{a_j} k(a_j, u)], k = exp(−|a − u|²/2ℓ²)."""
    apart = point - leaders
    k = jnp.exp(-0.5 * jnp.sum(apart**2, axis=-1) / width**2)
    return (k @ gradients + k @ apart / width**2) / leaders.shape[0]


@dataclass(frozen=True)
class SVGD(Settings):
    """Move particles along the kernelised gradient of KL(q ‖ γ), with weights that make it exact.

    In the frame of the reference, m leaders a_j, drawn from it, are moved by a ← a + ε φ(a), φ of
    :func:`direction`: Stein variational gradient descent. Their finite number leaves a bias that
    no weight could undo, as they depend on each other. The particles returned are followers,
    independent draws from the reference that take the same maps T_k(u) = u + ε_k φ_k(u), which
    depend on the leaders alone: given these, a follower has the density of a flow and the weight

    w = γ(T(u)) |det ∂T/∂u| / γ_0(u),

    so that E[w f(T(u))] = ∫ f γ: properly weighted, with E[Ẑ] = Z, however few the leaders and
    steps. ε_k is at most ``step_size`` and at most ½/L_k, L_k a bound on the Lipschitz constant of
    φ_k, so that every T_k is a bijection: L_k = G e^{−½}/ℓ + 1/ℓ², G the mean of |∇ log γ(a_j)|, to
    which longer gradients are cut, ℓ the root mean square distance of leaders over √(2 log(m + 1)).

    All of it happens in unconstrained coordinates. For sites on (0, ∞) and (0, 1) these are the
    dual coordinates of the entropic mirror map, and this is SVGD in the mirrored space; on a
    simplex or another support it is SVGD in the coordinates of the support's bijection.

    Parameters
    ----------
    leaders : int
        m.
    steps : int
        Maps to compose.
    step_size : float
        The most that ε_k may be.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Liu & Wang 2016, arXiv:1608.04471; Han & Liu 2017, arXiv:1704.05201 (leaders and
    followers); Shi, Liu & Mackey 2021, arXiv:2106.12506 (mirrored).

    >>> SVGD(leaders=16).contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    leaders: int = 32
    steps: int = 200
    step_size: float = 1.0
    contract: ClassVar[Contract] = ProperlyWeighted()

    def __post_init__(self) -> None:
        check_count("leaders", self.leaders, 2)
        check_count("steps", self.steps, 1)
        check_between("step_size", self.step_size, 0, 100)

    @property
    def stage(self) -> SVGD:
        """The same algorithm from the reference to the target."""
        return self

    def __call__(self, key: Any, source: Any, target: Any, population: Population) -> Population:
        k_frame, k_leaders = random.split(key)
        frame = framed(k_frame, target)
        drawn = target.sample_reference(k_leaders, self.leaders)
        lead = (drawn - frame.middle) / frame.scale
        follow = (population.x - frame.middle) / frame.scale
        zero = jnp.zeros(follow.shape[0], follow.dtype)
        moved, volume = self.flow(frame, lead, (follow, zero))
        x = frame.place(moved)
        before = jax.vmap(source.log_density)(population.x)
        log_g = jax.vmap(target.log_density)(x) - before + volume
        log_g = jnp.where(jnp.isnan(log_g), -jnp.inf, log_g)
        return reweight(Population(x, population.log_weight, population.log_z), log_g)

    def flow(self, frame: Frame, lead: Any, follow: tuple[Any, Any]) -> tuple[Any, Any]:
        """Followers (float[N, d]) and log |det ∂T/∂u| (float[N]) after all maps."""
        gradient = jax.vmap(jax.grad(frame.log_density))
        eye = jnp.eye(lead.shape[1], dtype=lead.dtype)

        def move(_: Any, carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
            lead, follow, volume = carry
            slopes = gradient(lead)
            slopes = jnp.where(jnp.isfinite(slopes), slopes, 0.0)
            apart = jnp.sqrt(2.0 * jnp.sum(jnp.var(lead, axis=0)))
            width = jnp.maximum(apart, 1e-6) / jnp.sqrt(2.0 * jnp.log(self.leaders + 1.0))
            lengths = jnp.linalg.norm(slopes, axis=-1)
            steep = jnp.mean(lengths) + 1e-300
            slopes = slopes * jnp.minimum(1.0, steep / jnp.maximum(lengths, 1e-300))[:, None]
            limit = jnp.exp(-0.5) * steep / width + 1.0 / width**2
            step = jnp.minimum(self.step_size, CONTRACTION / limit)

            def field(u: Any) -> Any:
                return direction(u, lead, slopes, width)

            moved = follow + step * jax.vmap(field)(follow)
            slope = jax.vmap(jax.jacfwd(field))(follow)
            volume = volume + jnp.linalg.slogdet(eye + step * slope)[1]
            return lead + step * jax.vmap(field)(lead), moved, volume

        _, moved, volume = jax.lax.fori_loop(0, self.steps, move, (lead, *follow))
        return moved, volume

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted followers; see :class:`ppcore.engine.PopulationEngine`."""
        made = populate(self, "SVGD", 1, (key, target, n), report)
        return Populated(made.population, n + self.leaders * self.steps, made.log_z_error)
