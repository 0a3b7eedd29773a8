"""Mirror Langevin: short steps where a constrained coordinate is near its boundary, adjusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.chains import Chains, KernelEngine, Tuning
from ppcore.contract import Contract, Invariant
from ppcore.model_target import ModelTarget
from ppcore.tuning.adapt import Adapted
from ppcore.tuning.preconditioner import LowRank, Preconditioner
from ppcore_langevin.moves import choose, diffusion_time

ROUNDS = 8


class Mirrored(NamedTuple):
    """A scored position with log g_i(x), g the metric of the mirror map, and ∂_i log g_i."""

    x: Any
    log_density: Any
    gradient: Any
    log_metric: Any
    slope: Any


class Mirror(NamedTuple):
    """F, h, log g at the middle of the target, and 1 (0 leaves the metric out, for warm-up)."""

    preconditioner: Preconditioner
    step_size: Any
    level: Any
    weight: Any


def log_metric(target: Any, x: Any) -> Any:
    """log g_i(x) = log |∂θ/∂x_i|, θ the site of coordinate i in its own support: float[d]."""
    if not isinstance(target, ModelTarget):
        whole = jax.jacfwd(target.constrain)(x)
        squares = [jnp.sum(j.reshape(-1, x.shape[0]) ** 2, axis=0) for j in jax.tree.leaves(whole)]
        return 0.5 * jnp.log(sum(squares[1:], squares[0]))
    slices = target.site_slices

    def own(x: Any) -> dict[str, Any]:
        values = target.constrain(x)
        return {name: values[name] for name in slices}

    jacobian = jax.jacfwd(own)(x)
    parts = []
    for name, at in slices.items():
        block = jacobian[name].reshape(-1, x.shape[0])[:, at]
        parts.append(0.5 * jnp.log(jnp.sum(block**2, axis=0)))
    return jnp.concatenate(parts)


def solved(f: Preconditioner, v: Any) -> Any:
    """F⁻¹ v: float[d]."""
    if isinstance(f, LowRank):
        white = v / f.scale
        return white + ((white @ f.basis) * (1.0 / f.stretch - 1.0)) @ f.basis.T
    return jnp.linalg.solve(f.factor, v)


@dataclass(frozen=True)
class MirrorLangevin:
    """Langevin steps in the metric of the mirror map that takes constrained sites to R^d.

    A site θ = T(x) with one coordinate has T = (∇φ)⁻¹ for the convex φ with φ″(θ) = 1/T′(x), so
    that x is its dual: log θ for the entropy on θ > 0, logit θ on (0, 1). Mirror Langevin,
    dx = ∇_θ log π dt + √(2 φ″) dW, is then Langevin in x with the diffusion matrix 1/g, g = T′.
    Here, preconditioned and normalised at the middle x̄ of the target:

    D(x) = A F Fᵀ A, A = diag(√(g(x̄)/g(x))),
    y = x + h (D ∇ log γ + div D)(x) + √(2h) A F z,

    accepted with min(1, γ(y) q(y, x) / (γ(x) q(x, y))), log q(x, y) = −½|z|² − Σ log A_ii(x) and
    z′ = F⁻¹ A(y)⁻¹ (x − y − h μ(y))/√(2h) for the way back. Reversible for γ. A site with several
    coordinates (a simplex) has g_i = |∂θ/∂x_i|, and div D leaves out its cross terms, which the
    test makes up for. Sites on the real line have g = 1: there it is MALA.

    Source: Hsieh, Kavis, Rolland & Cevher 2018, arXiv:1802.10174 (mirrored Langevin); Zhang,
    Peyré, Fadili & Pereyra 2020, arXiv:2002.04363; Srinivasan, Wibisono & Wilson 2023,
    arXiv:2312.08823 (with a Metropolis test).

    >>> MirrorLangevin().contract
    Invariant(reversible=True, irreducible=True)
    """

    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ("gradient",)
    target_accept: ClassVar[float] = 0.574
    error_order: ClassVar[float] = 3.0

    def parameters(self, preconditioner: Preconditioner, step: Any, length: Any) -> Mirror:
        time = diffusion_time(step)
        dim, zero = np.shape(jax.tree.leaves(preconditioner)[0])[0], np.zeros_like(time)
        return Mirror(preconditioner, time, np.full(dim, zero), zero)

    def init(self, key: Any, target: Any, x: Any, params: Mirror) -> Mirrored:
        return self._score(target, x)

    def refresh(self, target: Any, state: Mirrored) -> Mirrored:
        return self._score(target, state.x)

    def _score(self, target: Any, x: Any) -> Mirrored:
        level, slope = jax.jvp(lambda v: log_metric(target, v), (x,), (jnp.ones_like(x),))
        return Mirrored(x, *jax.value_and_grad(target.log_density)(x), level, slope)

    def _local(self, state: Mirrored, params: Mirror) -> tuple[Any, Any]:
        """A's diagonal and the drift μ = D ∇ log γ + div D at a state: float[d] each."""
        f = params.preconditioner
        a = jnp.exp(0.5 * params.weight * (params.level - state.log_metric))
        slope = -0.5 * params.weight * state.slope * a
        variance = jnp.sum(f.push(jnp.eye(a.shape[0], dtype=a.dtype)) ** 2, axis=0)
        divergence = slope * a * variance + a * f.push(f.pull(slope))
        return a, a * f.push(f.pull(a * state.gradient)) + divergence

    def step(
        self, key: Any, target: Any, state: Mirrored, params: Mirror
    ) -> tuple[Mirrored, dict[str, Any]]:
        k_move, k_accept = random.split(key)
        f, h = params.preconditioner, params.step_size
        z = random.normal(k_move, state.x.shape, state.x.dtype)
        a, drift = self._local(state, params)
        noise = a * f.push(jnp.sqrt(2.0 * h) * z)
        new = self._score(target, state.x + h * drift + noise)
        there, back_drift = self._local(new, params)
        back = solved(f, (state.x - new.x - h * back_drift) / there) / jnp.sqrt(2.0 * h)
        kinetic = 0.5 * (jnp.sum(z**2) - jnp.sum(back**2))
        volume = jnp.sum(jnp.log(a)) - jnp.sum(jnp.log(there))
        ratio = new.log_density - state.log_density + kinetic + volume
        return choose(k_accept, ratio, new, state)


@dataclass(frozen=True)
class MirrorEngine(KernelEngine):
    """:class:`~ppcore.chains.KernelEngine` that turns the metric on once the middle is known.

    The shared warm-up finds F with the metric left out; then log g is averaged over the chains,
    and ``ROUNDS`` short rounds tune the step size anew.
    """

    def tuning(self, end: Adapted, machine: Chains) -> Tuning:
        """What is frozen at the end of a warm-up."""
        step, dtype = end.step.restart(), machine.dtype
        level = np.asarray(machine.state.log_metric, dtype).mean(0)
        one = dtype.type(1)

        def params(step: float) -> Mirror:
            made: Mirror = self.parameters(machine.target, end.precondition, dtype.type(step), 1.0)
            return made._replace(level=level, weight=np.asarray(one))

        aim = self.schedule().target_accept or self.kernel.target_accept
        for _ in range(ROUNDS):
            out = machine.run(params(step.now), 16)
            step = step.update(float(np.nan_to_num(out["acceptance_rate"]).mean()), aim)
        return Tuning(params(step.final), np.int32(end.thin))


def engine(
    target_accept: float = 0.574,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 8,
) -> MirrorEngine:
    """:class:`MirrorLangevin` with many chains in lockstep, tuned together.

    Parameters
    ----------
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
    kernel = MirrorLangevin()
    return MirrorEngine(
        kernel, warmup_draws, max_warmup_draws, target_accept, metric=metric, most_thin=most_thin
    )
