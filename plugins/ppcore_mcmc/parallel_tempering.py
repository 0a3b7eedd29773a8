"""Parallel tempering with deterministic even–odd swaps: non-reversible, so fast across modes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.compose.base import Composed, acceptances, check_parts, moved, part_parameters
from ppcore.contract import Contract, Invariant
from ppcore.errors import CompositionError, SettingsError
from ppcore.kernel import needs
from ppcore.settings import check_between, check_count
from ppcore_mcmc.hmc import HMC


class Ladder(NamedTuple):
    """``x``: the coldest replica's position; ``replicas``: all states, coldest first; ``odd``:
    whether the next swaps are those of odd pairs."""

    x: Any
    replicas: Any
    odd: Any


@dataclass(frozen=True)
class ParallelTempering(Composed):
    """Replicas at β = 1 = b₀ > b₁ > … > b_{R−1}, moved by a kernel each, then swapped in pairs.

    Leaves Π_r γ_{b_r} invariant, of which x is the first coordinate: each replica moves by
    ``kernel`` at its temperature, then neighbours (r, r + 1), r even in one transition and odd in
    the next, swap positions with probability min(1, exp((b_r − b_{r+1})(ℓ(x_{r+1}) − ℓ(x_r)))),
    ℓ the log likelihood. Even and odd in turn makes a replica go on in its direction while swaps
    are accepted, so that a round trip takes O(R) transitions in place of O(R²).

    Parameters
    ----------
    kernel : Kernel
        Of no auxiliary variables.
    replicas : int
        R.
    hottest : float
        b_{R−1}; the others are spaced evenly in b^{1/3}, crowded near the hottest.
    settle : int
        Transitions of the hotter replicas among themselves, from prior draws, before they meet x.

    Raises
    ------
    ppcore.errors.CompositionError
        If ``kernel`` is not one, or its contract is no invariance; with a target, if the prior is
        improper and the hottest replica at 0 would have no law.
    ppcore.errors.SettingsError
        If a number is out of range.

    Source: Syed, Bouchard-Côté, Deligiannidis & Doucet 2022, arXiv:1905.02939; Okabe et al. 2001,
    doi:10.1016/S0009-2614(01)00055-0.

    >>> ParallelTempering(HMC(), replicas=4).betas.round(3).tolist()
    [1.0, 0.296, 0.037, 0.0]
    """

    kernel: Any
    replicas: int = 8
    hottest: float = 0.0
    settle: int = 64

    def __post_init__(self) -> None:
        check_parts("ParallelTempering", (self.kernel,))
        check_count("replicas", self.replicas, 2)
        check_count("settle", self.settle, 0)
        if not 0 <= self.hottest < 1:
            raise SettingsError(f"hottest={self.hottest!r} must be at least 0 and below 1.")
        if not isinstance(self.kernel.contract, Invariant) or self._auxiliary():
            raise CompositionError(
                f"ParallelTempering swaps positions between kernels that leave their target "
                f"invariant and keep nothing else; {type(self.kernel).__name__} does not."
            )

    def _auxiliary(self) -> tuple[str, ...]:
        return tuple(getattr(self.kernel, "auxiliary", ()))

    @property
    def betas(self) -> np.ndarray:
        """b_0, …, b_{R−1}: float[R]."""
        low = self.hottest ** (1 / 3)
        return np.linspace(1.0, low, self.replicas) ** 3

    @property
    def contract(self) -> Contract:
        """Invariant; irreducible as the kernel is, and not reversible."""
        return Invariant(reversible=False, irreducible=self.kernel.contract.irreducible)

    @property
    def parts(self) -> tuple[Any, ...]:
        return (self.kernel,) * self.replicas

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """The hotter replicas and whose turn it is."""
        return ("replicas", "odd")

    def check_target(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.CompositionError` where the hottest replica has no law."""
        super().check_target(target)
        if not target.has_reference:
            raise CompositionError(
                "ParallelTempering anneals from the prior, and this target has no proper one. Give "
                "every site a proper prior (or `log_reference_fn` and `sample_reference_fn`)."
            )

    def parameters(self, preconditioner: Any, step: Any, length: Any, target: Any = None) -> Any:
        """The kernel's parameters at each temperature, stacked along a leading axis."""
        rows = [
            part_parameters(self.kernel, preconditioner, share, length, target)
            for share in np.reshape(step, (self.replicas, -1))
        ]
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Ladder:
        """The coldest replica at ``x``, the others settled from draws of the reference."""
        k_hot, k_init, k_settle = random.split(key, 3)
        hot = target.sample_reference(k_hot, self.replicas - 1)
        every = jnp.concatenate([x[None], hot])
        betas = jnp.asarray(self.betas, x.dtype)
        states = random.each(
            lambda k, b, x, p: self.kernel.init(k, _at(target, b), x, p),
            k_init,
            betas,
            every,
            params,
        )
        ladder = Ladder(x, states, jnp.zeros((), bool))
        if self.settle and self.replicas > 2:
            ladder, _ = random.scan(
                lambda k, at, _: (self._transition(k, target, at, params, False)[0], ()),
                k_settle,
                ladder,
                (),
                self.settle,
            )
        return ladder._replace(odd=jnp.zeros((), bool))

    def refresh(self, target: Any, state: Ladder) -> Ladder:
        positions = state.replicas.x.at[0].set(state.x)
        return Ladder(state.x, self._refreshed(target, state.replicas, positions), state.odd)

    def step(
        self, key: Any, target: Any, state: Ladder, params: Any
    ) -> tuple[Ladder, dict[str, Any]]:
        return self._transition(key, target, state, params, True)

    def _transition(
        self, key: Any, target: Any, state: Ladder, params: Any, whole: bool
    ) -> tuple[Ladder, dict[str, Any]]:
        """Move every replica and swap; unless ``whole``, the coldest stays out of it."""
        k_move, k_swap = random.split(key)
        betas = jnp.asarray(self.betas, state.x.dtype)

        def move(k: Any, b: Any, own: Any, p: Any) -> tuple[Any, Any, Any]:
            new, info = self.kernel.step(k, _at(target, b), own, p)
            rates = acceptances(self.kernel, info, state.x.dtype)
            return new, rates, jnp.asarray(info.get("n_gradients", 0), jnp.int32)

        gone, rates, spent = random.each(move, k_move, betas, state.replicas, params)
        x = gone.x if whole else gone.x.at[0].set(state.x)
        level = jax.vmap(target.log_likelihood)(x)
        gain = (betas[:-1] - betas[1:]) * target.beta * (level[1:] - level[:-1])
        low = jnp.arange(self.replicas - 1)
        turn = (low % 2 == 1) == state.odd
        if not whole:
            turn = turn & (low > 0)
        chance = jnp.exp(jnp.minimum(0.0, jnp.where(jnp.isnan(gain), -jnp.inf, gain)))
        swap = random.bernoulli(k_swap, jnp.where(turn, chance, 0.0))
        stays = jnp.zeros(1, bool)
        up, down = jnp.concatenate([swap, stays]), jnp.concatenate([stays, swap])
        source = jnp.arange(self.replicas) + up.astype(int) - down.astype(int)
        x = x[source]
        replicas = self._refreshed(target, gone, x)
        info = {
            "acceptance_rate": jnp.nanmean(rates[0]) if rates.shape[-1] else jnp.ones(()),
            "acceptance_rates": rates.ravel(),
            "n_gradients": jnp.sum(spent) + self.replicas * ("gradient" in needs(self.kernel)),
            "swap_rate": jnp.sum(jnp.where(turn, chance, 0.0)) / jnp.maximum(jnp.sum(turn), 1),
            "log_density": target.log_density(x[0]),
        }
        return Ladder(x[0], replicas, ~state.odd), info

    def _refreshed(self, target: Any, replicas: Any, x: Any) -> Any:
        """The replicas' states at new positions, caches recomputed at their temperatures."""
        betas = jnp.asarray(self.betas, x.dtype)
        return jax.vmap(lambda b, s, v: self.kernel.refresh(_at(target, b), moved(s, v)))(
            betas, replicas, x
        )


def _at(target: Any, b: Any) -> Any:
    return target.tempered(b * target.beta)


def parallel_tempering(
    replicas: int = 8,
    hottest: float = 0.0,
    target_accept: float = 0.8,
    length: float = 1.5707963,
    max_steps: int = 64,
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    metric: str = "auto",
) -> KernelEngine:
    """Chains of :class:`ParallelTempering` over :class:`ppcore_mcmc.hmc.HMC`, as an engine.

    For targets with several modes that HMC alone does not travel between.

    Parameters
    ----------
    replicas : int
        Temperatures of each chain.
    hottest : float
        The lowest inverse temperature; 0 is the prior.
    target_accept : float
        Mean acceptance probability to tune the step size of each temperature for.
    length : float
        Mean trajectory length in whitened time.
    max_steps : int
        Most leapfrog steps of a replica's transition.
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most until the chains have settled.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".

    >>> parallel_tempering(replicas=4).kernel.replicas
    4
    """
    check_between("target_accept", target_accept, 0, 1)
    return KernelEngine(
        ParallelTempering(HMC(max_steps), replicas, hottest),
        warmup_draws,
        max_warmup_draws,
        target_accept,
        length,
        metric=metric,
        default_chains=16,
    )
