"""Mixed HMC: one Hamiltonian trajectory through continuous and finite coordinates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.compose import restrict
from ppcore.contract import Contract, Invariant
from ppcore.errors import CompositionError
from ppcore.kernel import StepRule
from ppcore.settings import check_between, check_count
from ppcore_mcmc.hmc import Trajectory
from ppcore_mcmc.metropolis import Scored, choose, score


class Travelling(NamedTuple):
    """x: float[d + m]; whitened momentum p: float[d]; energies k of the finite ones: float[m]."""

    x: Any
    p: Any
    budget: Any


@dataclass(frozen=True)
class MixedHMC:
    """Leapfrog the continuous coordinates; in between, finite ones jump, for energies of their own.

    p ~ N(0, I) and k_j ~ Exp(1) for each finite coordinate. The trajectory alternates pieces of
    continuous motion (x += ½εFp, p += εFᵀ∇log γ, x += ½εFp) with jumps: a coordinate j drawn
    uniformly proposes another of its values, uniformly; with ΔU = log γ(x) − log γ(x̃) it jumps if
    k_j > ΔU, and then pays, k_j −= ΔU. Jumps conserve −log γ + Σ k_j, so the test at the end,
    min(1, exp(−ΔH)), H = −log γ + ½pᵀp + Σ k_j, corrects the leapfrog alone. Reversible for γ.

    Parameters
    ----------
    jumps : int
        Jumps proposed in a trajectory.
    max_steps : int
        Most leapfrog steps of a piece.

    Raises
    ------
    ppcore.errors.SettingsError
        If a number is not a positive integer.
    ppcore.errors.CompositionError
        With a target without continuous coordinates.

    Source: Zhou 2020, arXiv:1909.04852.

    >>> MixedHMC(jumps=10).contract
    Invariant(reversible=True, irreducible=True)
    """

    jumps: int = 8
    max_steps: int = 64
    contract: ClassVar[Contract] = Invariant(reversible=True)
    needs: ClassVar[tuple[str, ...]] = ()
    keeps_finite: ClassVar[bool] = True
    step_rules: ClassVar[tuple[StepRule, ...]] = (StepRule(0.8, 2.0, None),)

    def __post_init__(self) -> None:
        check_count("jumps", self.jumps, 1)
        check_count("max_steps", self.max_steps, 1)

    def check_target(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.CompositionError` where nothing is continuous."""
        finite = finite_of(target)
        if finite and not hasattr(target, "domain"):
            raise CompositionError(
                f"MixedHMC needs a model's finite sites; {type(target).__name__} does not say "
                "which values its coordinates take."
            )
        if len(finite) == target.dim:
            raise CompositionError(
                "MixedHMC needs continuous coordinates, and every site of this model is finite. "
                'Use KernelEngine(GibbsFinite()) or the engine "exact".'
            )

    def parameters(
        self, preconditioner: Any, step: Any, length: Any, target: Any = None
    ) -> Trajectory:
        """F of the continuous coordinates, the step size, and the whole trajectory's length."""
        return Trajectory(restrict(preconditioner, continuous_of(target)), step[0], length)

    def init(self, key: Any, target: Any, x: Any, params: Trajectory) -> Scored:
        return score(target, x)

    def refresh(self, target: Any, state: Scored) -> Scored:
        return score(target, state.x)

    def step(
        self, key: Any, target: Any, state: Scored, params: Trajectory
    ) -> tuple[Scored, dict[str, Any]]:
        k_momentum, k_budget, k_length, k_way, k_accept = random.split(key, 5)
        where, finite = np.array(continuous_of(target)), np.array(finite_of(target), int)
        dtype, jumps = state.x.dtype, self.jumps if len(finite) else 0
        p = random.normal(k_momentum, where.shape, dtype)
        budget = random.exponential(k_budget, finite.shape, dtype)
        length = params.length * (0.6 + 0.8 * random.uniform(k_length, (), dtype))
        steps = jnp.round(length / params.step_size / (jumps + 1))
        steps = jnp.clip(steps, 1, self.max_steps).astype(jnp.int32)
        energy = state.log_density - 0.5 * jnp.sum(p**2) - jnp.sum(budget)

        def piece(k: Any, at: Travelling, last: Any) -> tuple[Travelling, Any]:
            at = self._glide(target, params, where, at, steps)
            return (self._jump(k, target, finite, at, last) if jumps else at), ()

        last = jnp.arange(jumps + 1) == jumps
        start = Travelling(state.x, p, budget)
        end, _ = random.scan(piece, k_way, start, last, jumps + 1)
        new = score(target, end.x)
        after = new.log_density - 0.5 * jnp.sum(end.p**2) - jnp.sum(end.budget)
        state, info = choose(k_accept, after - energy, new, state)
        rates = info["acceptance_rate"][None]
        return state, info | {"n_gradients": steps * (jumps + 1), "acceptance_rates": rates}

    def _glide(
        self, target: Any, params: Trajectory, where: Any, at: Travelling, steps: Any
    ) -> Travelling:
        """``steps`` leapfrogs of the continuous coordinates, gradients at the midpoints."""
        f, step = params.preconditioner, params.step_size
        gradient = jax.grad(lambda z, x: target.log_density(x.at[where].set(z)))

        def leap(_: Any, now: tuple[Any, Any]) -> tuple[Any, Any]:
            z, p = now
            z = z + 0.5 * step * f.push(p)
            p = p + step * f.pull(gradient(z, at.x))
            return z + 0.5 * step * f.push(p), p

        z, p = jax.lax.fori_loop(0, steps, leap, (at.x[where], at.p))
        return Travelling(at.x.at[where].set(z), p, at.budget)

    def _jump(self, key: Any, target: Any, finite: Any, at: Travelling, last: Any) -> Travelling:
        """One finite coordinate proposes another value, and pays for it if it can."""
        lowest, count = domains(target)
        k_which, k_value = random.split(key)
        j = random.randint(k_which, (), len(finite))
        i, low, size = (jnp.asarray(v)[j] for v in (finite, lowest, count))
        u = random.uniform(k_value, (), at.x.dtype)
        shift = 1 + jnp.minimum(jnp.floor(u * (size - 1)), size - 2)
        y = at.x.at[i].set(low + jnp.mod(at.x[i] - low + shift, size))
        cost = target.log_density(at.x) - target.log_density(y)
        go = (at.budget[j] > cost) & (size > 1) & ~last
        paid = at.budget.at[j].add(-jnp.where(go, cost, 0.0))
        return Travelling(jnp.where(go, y, at.x), at.p, paid)


def finite_of(target: Any) -> tuple[int, ...]:
    """The finite coordinates of a target; none of an ordinary one."""
    return tuple(getattr(target, "finite_coordinates", ()))


def continuous_of(target: Any) -> tuple[int, ...]:
    """The other coordinates."""
    finite = set(finite_of(target))
    return tuple(i for i in range(target.dim) if i not in finite)


def domains(target: Any) -> tuple[np.ndarray, np.ndarray]:
    """The least value and the number of values of each finite coordinate: float[m] each."""
    lowest, count = [], []
    for site in target.finite_sites:
        values, at = target.domain(site), target.site_slices[site]
        lowest += [float(values[0])] * (at.stop - at.start)
        count += [float(len(values))] * (at.stop - at.start)
    return np.array(lowest), np.array(count)


def mixed_hmc(
    jumps: int = 8,
    target_accept: float = 0.8,
    length: float = 3.0,
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    metric: str = "auto",
    most_thin: int | None = None,
) -> KernelEngine:
    """Chains of :class:`MixedHMC`, tuned together, as an engine.

    Parameters
    ----------
    jumps : int
        Jumps of finite coordinates proposed in a trajectory.
    target_accept : float
        Mean acceptance probability to tune ε for.
    length : float
        Mean trajectory length of the continuous coordinates in whitened time.
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most until the chains have settled.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    most_thin : int, optional
        The most transitions that may make one draw; by default 48.

    >>> mixed_hmc(jumps=4).kernel
    MixedHMC(jumps=4, max_steps=64)
    """
    check_between("target_accept", target_accept, 0, 1)
    return KernelEngine(
        MixedHMC(jumps),
        warmup_draws,
        max_warmup_draws,
        target_accept,
        length,
        metric=metric,
        most_thin=most_thin,
    )
