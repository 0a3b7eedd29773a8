"""Mean-field underdamped Langevin: N particles that push each other, all chains at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.chains import KernelEngine, Tuning
from ppcore.contract import Biased, Contract
from ppcore.engine import Report, Warm
from ppcore.errors import SettingsError
from ppcore.settings import check_between, check_count, check_metric
from ppcore.tuning.noise import is_traced
from ppcore_langevin.moves import engine_of
from ppcore_langevin.underdamped import OBABO, Moving, refreshed

CHUNK = 16
Interaction = Callable[[Any, Any], Any]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Crowd:
    """The joint law of N particles, Π_i γ(x_i) exp(−(s/2N) Σ_ij W(x_i, x_j)), as log densities."""

    target: Any
    strength: Any
    interaction: Interaction | None

    def tree_flatten(self) -> tuple[tuple[Any, Any], Interaction | None]:
        return (self.target, self.strength), self.interaction

    @classmethod
    def tree_unflatten(cls, static: Interaction | None, leaves: tuple[Any, Any]) -> Crowd:
        return cls(*leaves, static)

    def log_densities(self, x: Any) -> tuple[Any, Any]:
        """The sum of all, and log γ(x_i) for each particle; x: float[N, d]."""
        own = jax.vmap(self.target.log_density)(x)
        if self.interaction is None:
            return own.sum(), own
        w = self.interaction
        pairs = jax.vmap(lambda a: jax.vmap(lambda b: w(a, b))(x))(x)
        return own.sum() - 0.5 * self.strength * pairs.mean(1).sum(), own

    def score(self, x: Any) -> tuple[Any, Any]:
        """log γ(x_i), float[N], and the force on each particle, float[N, d]."""
        force, own = jax.grad(self.log_densities, has_aux=True)(x)
        return own, force


@partial(jax.jit, static_argnames=("slots",))
def crowd_draws(
    key: Any, crowd: Crowd, tuned: Tuning, state: Moving, at: tuple[Any, Any], slots: int
) -> tuple[Moving, dict[str, Any]]:
    """Draws ``at[0]``, … of a block, ``at[1]`` of ``slots``, each ``tuned.thin`` OBABO steps."""
    f, h, friction = tuned.params
    decay = jnp.exp(-0.5 * friction * h)
    shape, dtype = state.x.shape, state.x.dtype

    def step(j: Any, carry: tuple[Moving, Any, Any]) -> tuple[Moving, Any, Any]:
        state, key, _ = carry
        z = jax.random.normal(jax.random.fold_in(key, j), (2, *shape), dtype)
        p = refreshed(state.p, z[0], decay) + 0.5 * h * f.pull(state.gradient)
        x = state.x + h * f.push(p)
        own, force = crowd.score(x)
        sound = jnp.isfinite(own) & jnp.all(jnp.isfinite(force), axis=-1)
        p = refreshed(p + 0.5 * h * f.pull(force), z[1], decay)
        moved = Moving(x, p, own, force)
        kept = [
            jnp.where(sound.reshape(-1, *[1] * (a.ndim - 1)), a, b)
            for a, b in zip(moved, state, strict=True)
        ]
        return Moving(*kept), key, ~sound

    def draw(i: Any, carry: tuple[Moving, dict[str, Any]]) -> tuple[Moving, dict[str, Any]]:
        state, rows = carry
        own_key = jax.random.fold_in(key, at[0] + i)
        start = state, own_key, jnp.zeros(shape[0], bool)
        state, _, lost = jax.lax.fori_loop(0, tuned.thin, step, start)
        row = {"x": state.x, "log_density": state.log_density, "diverging": lost}
        row["n_gradients"] = jnp.broadcast_to(jnp.asarray(tuned.thin, jnp.int32), shape[:1])
        return state, {name: rows[name].at[i].set(v) for name, v in row.items()}

    rows = {
        "x": jnp.zeros((slots, *shape), dtype),
        "log_density": jnp.zeros((slots, shape[0]), dtype),
        "diverging": jnp.zeros((slots, shape[0]), bool),
        "n_gradients": jnp.zeros((slots, shape[0]), jnp.int32),
    }
    return jax.lax.fori_loop(0, at[1], draw, (state, rows))


@dataclass(frozen=True)
class MeanField:
    """Underdamped Langevin for N chains with the energy −Σ log γ(x_i) + (s/2N) Σ_ij W(x_i, x_j).

    Each chain is a particle; all feel the same F, step size h and friction γ, and take OBABO steps
    of the joint dynamics. As N grows the particles become independent draws from the mean-field
    law that minimises E_ρ[−log γ] + (s/2) E_{ρ⊗ρ}[W] + entropy: ρ ∝ γ exp(−s ∫ W(·, y) ρ(dy)).
    With W = None that is γ itself, and the chains are independent. Biased: O(h²) by the splitting,
    and, with an interaction, O(1/N) by the number of particles; it is ρ and not γ that is sampled.

    Parameters
    ----------
    interaction : callable, optional
        W(x, y) -> float[], symmetric, for x, y: float[d] unconstrained; a module-level function.
    strength : float
        s.
    friction : float
        γ, in (0, 1000).
    target_accept : float
        Mean of min(1, exp(−ΔH)) of a step without interaction, to tune the step size for.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with (without interaction), and the most.
    equilibrate : int
        Draws of the interacting particles that are thrown away before sampling.
    most_thin : int
        The most steps that may make one draw.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Fu & Wilson 2023, arXiv:2312.16360; Chen, Lin, Ren & Wang 2024, arXiv:2307.02956
    (uniform-in-time propagation of chaos).

    >>> MeanField().contract
    Biased(order=2, in_='step_size')
    """

    interaction: Interaction | None = None
    strength: float = 1.0
    friction: float = 1.0
    target_accept: float = 0.99
    metric: str = "auto"
    warmup_draws: int = 320
    max_warmup_draws: int = 1280
    equilibrate: int = 50
    most_thin: int = 16
    default_chains: int = field(default=64, init=False)
    default_draws: int = field(default=400, init=False)
    contract: ClassVar[Contract] = Biased(order=2)
    compiled: ClassVar[bool] = True
    auxiliary: ClassVar[tuple[str, ...]] = ("p",)

    def __post_init__(self) -> None:
        if self.interaction is not None and not callable(self.interaction):
            raise SettingsError(f"interaction={self.interaction!r} must be a function of (x, y).")
        check_between("strength", self.strength, -1e6, 1e6)
        check_between("target_accept", self.target_accept, 0, 1)
        check_metric(self.metric, 0)
        check_count("equilibrate", self.equilibrate, 0)
        self.single.schedule()

    @property
    def kernel(self) -> OBABO:
        """One particle's step where there is no interaction, whose order is that of the whole."""
        return OBABO(self.friction)

    @property
    def single(self) -> KernelEngine:
        """The engine of non-interacting particles, which warms up."""
        rest = self.warmup_draws, self.max_warmup_draws, self.most_thin
        return engine_of(self.kernel, self.target_accept, self.metric, *rest)

    def crowd(self, target: Any, dtype: Any) -> Crowd:
        """The joint law of the particles."""
        return Crowd(target, np.asarray(self.strength, dtype), self.interaction)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Starts and tuning without interaction, then ``equilibrate`` draws with it.

        Raises :class:`ppcore.errors.StartError` if no finite log density is found.
        """
        k_warm, k_init, k_block = jax.random.split(key, 3)
        warm = self.single.warmup(k_warm, target, chains, report)
        if self.interaction is None or not self.equilibrate:
            return warm
        carry = self.init(k_init, target, warm.tuned, warm.x)
        carry, _, stats = self.block(k_block, target, warm.tuned, carry, self.equilibrate)
        spent = int(np.sum(stats["n_gradients"]))
        return Warm(warm.tuned, np.asarray(carry.x), warm.gradients + spent, warm.notes)

    def init(self, key: Any, target: Any, tuned: Tuning, x: Any) -> Moving:
        """Positions ``x`` (float[chains, d]) with fresh momenta and the forces there."""
        x = jnp.asarray(x)
        p = jax.random.normal(key, x.shape, x.dtype)
        own, force = _score(self.crowd(target, x.dtype), x)
        return Moving(x, p, own, force)

    def block(
        self, key: Any, target: Any, tuned: Tuning, carry: Moving, n: int
    ) -> tuple[Moving, Any, dict[str, Any]]:
        """``n`` draws of every chain; draws: float[chains, n, d]."""
        crowd = self.crowd(target, carry.x.dtype)
        if is_traced(key, target, tuned, carry):
            at = jnp.int32(0), jnp.int32(n)
            carry, rows = crowd_draws(key, crowd, tuned, carry, at, n)
            rows = {name: jnp.swapaxes(v, 0, 1) for name, v in rows.items()}
            return carry, rows.pop("x"), rows
        parts = []
        for first in range(0, n, CHUNK):
            active = min(CHUNK, n - first)
            at = np.int32(first), np.int32(active)
            carry, rows = crowd_draws(key, crowd, tuned, carry, at, CHUNK)
            parts.append({name: np.asarray(v)[:active] for name, v in rows.items()})
        rows = {k: np.swapaxes(np.concatenate([p[k] for p in parts]), 0, 1) for k in parts[0]}
        return carry, rows.pop("x"), rows


@jax.jit
def _score(crowd: Crowd, x: Any) -> tuple[Any, Any]:
    return crowd.score(x)
