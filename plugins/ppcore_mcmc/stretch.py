"""The affine-invariant stretch move: walkers propose along lines through one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.contract import Contract, Invariant
from ppcore.engine import Progress, Report, Warm
from ppcore.errors import SettingsError
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore.tuning.search import search

CHUNK = 50
BATCH = 256


class Walkers(NamedTuple):
    """Positions ``x`` float[N, d] of all walkers with their ``log_density`` float[N]."""

    x: Any
    log_density: Any


def move_half(
    key: Any, target: Any, moving: Walkers, others: Walkers, a: Any
) -> tuple[Walkers, Any]:
    """One stretch move of every walker of ``moving`` against partners drawn from ``others``.

    y = x_j + z (x_i − x_j), z ~ g(z) ∝ 1/√z on [1/a, a], accepted with probability
    min(1, z^{d−1} γ(y)/γ(x_i)): reversible for γ given the others.
    """
    k_partner, k_stretch, k_accept = random.split(key, 3)
    (n, d), dtype = moving.x.shape, moving.x.dtype
    partner = others.x[random.randint(k_partner, (n,), others.x.shape[0])]
    u = random.uniform(k_stretch, (n,), dtype)
    z = (1 + (a - 1) * u) ** 2 / a
    x = partner + z[:, None] * (moving.x - partner)
    log_density = jax.vmap(target.log_density)(x)
    log_ratio = (d - 1) * jnp.log(z) + log_density - moving.log_density
    p = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio), 0.0))
    accept = random.bernoulli(k_accept, p)
    moved = Walkers(
        jnp.where(accept[:, None], x, moving.x),
        jnp.where(accept, log_density, moving.log_density),
    )
    return moved, p


def sweep(key: Any, target: Any, at: Walkers, a: Any) -> tuple[Walkers, Any]:
    """The first half of the walkers moves against the second, then the second against it."""
    half = at.x.shape[0] // 2
    k_first, k_second = random.split(key)
    first, second = Walkers(*(leaf[:half] for leaf in at)), Walkers(*(leaf[half:] for leaf in at))
    first, p = move_half(k_first, target, first, second, a)
    second, q = move_half(k_second, target, second, first, a)
    return Walkers(*(jnp.concatenate(pair) for pair in zip(first, second, strict=True))), (
        jnp.concatenate([p, q])
    )


@partial(jax.jit, static_argnames="n")
def sweeps(
    key: Any, target: Any, at: Walkers, a: Any, n: int
) -> tuple[Walkers, tuple[Any, Any, Any]]:
    """``n`` sweeps; rows (x, log_density, acceptance), each [n, N, ...]."""

    def one(k: Any, at: Walkers, _: Any) -> tuple[Walkers, Any]:
        at, p = sweep(k, target, at, a)
        return at, (at.x, at.log_density, p)

    return random.scan(one, key, at, None, n)


@jax.jit
def scored(target: Any, x: Any) -> Walkers:
    """Walkers at ``x``: float[N, d]."""
    return Walkers(x, jax.vmap(target.log_density)(x))


def log_densities(target: Any, x: np.ndarray) -> tuple[np.ndarray, None]:
    """log γ at each row of ``x``: float[N, d], in batches of one shape; and no gradient."""
    padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % BATCH, axis=0)])
    parts = padded.reshape(-1, BATCH, x.shape[1])
    return np.concatenate([np.asarray(scored(target, p)[1]) for p in parts])[: len(x)], None


@dataclass(frozen=True)
class Stretch:
    """An ensemble of N walkers whose moves commute with every affine map of the space.

    A transition moves one half of the walkers against partners from the other half, then the other
    way round; see :func:`move_half`. It leaves γ ⊗ … ⊗ γ (N factors) invariant. No gradient, no
    metric, no step size: a correlated Gaussian is as easy as an isotropic one. It needs N ≥ 2 d
    walkers that span the space, and grows slow beyond some tens of dimensions.

    Parameters
    ----------
    stretch : float
        a > 1, the largest stretch.
    warmup_draws : int
        Transitions before the first draw is kept; nothing is tuned.

    Raises
    ------
    ppcore.errors.SettingsError
        If a parameter is out of range.

    Source: Goodman & Weare 2010, doi:10.2140/camcos.2010.5.65; Foreman-Mackey et al. 2013,
    arXiv:1202.3665 (halves in parallel).

    >>> Stretch(stretch=3.0).default_chains
    64
    """

    stretch: float = 2.0
    warmup_draws: int = 1000
    contract: ClassVar[Contract] = Invariant(reversible=False)
    coupled: ClassVar[bool] = True
    compiled: ClassVar[bool] = True
    block_size: ClassVar[int] = CHUNK
    default_chains: int = field(default=64, init=False)
    default_draws: int = field(default=1000, init=False)

    def __post_init__(self) -> None:
        check_between("stretch", self.stretch, 1, 1e6)
        check_count("warmup_draws", self.warmup_draws, 1)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Walkers that have forgotten their start, as far as ``warmup_draws`` transitions can.

        Raises
        ------
        SettingsError
            With fewer than 2 (d + 1) walkers, half of which could not span the space.
        StartError
            If no finite log density is found.
        """
        least = 2 * (target.dim + 1)
        if chains < least:
            raise SettingsError(
                f"chains={chains}: the stretch move in {target.dim} dimensions needs at least "
                f"{least} walkers, since those of either half must span the space. Pass "
                f"chains={least} or more."
            )
        host_key, prior_key, walk_key = spawned(key, 3)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(host_key)).ravel())
        dtype = jnp.result_type(float)
        a = np.asarray(self.stretch, dtype)
        evaluate: Any = partial(log_densities, target)
        start = search(evaluate, rng, prior_key, target, chains)
        at = scored(target, start.x.astype(dtype))
        rounds = -(-self.warmup_draws // CHUNK)
        for i, k in enumerate(spawned(walk_key, rounds)):
            at, _ = sweeps(k, target, at, a, CHUNK)
            report(Progress("warmup", (i + 1) * CHUNK, rounds * CHUNK))
        return Warm(a, np.asarray(at.x))

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Walkers:
        """Walkers at ``x``: float[N, d]."""
        return scored(target, x)

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Walkers, n: int
    ) -> tuple[Walkers, Any, dict[str, Any]]:
        """``n`` transitions of every walker; draws: float[N, n, d]."""
        carry, rows = sweeps(key, target, carry, tuned, n)
        x, log_density, p = (jnp.swapaxes(row, 0, 1) for row in rows)
        return carry, x, {"log_density": log_density, "acceptance_rate": p}
