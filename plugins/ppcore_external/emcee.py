"""emcee's ensemble sampler as an engine: walkers on the host, densities in one compiled call."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np

from ppcore.contract import Contract, Invariant
from ppcore.engine import Progress, Report, Warm
from ppcore.errors import SettingsError, did_you_mean
from ppcore.settings import check_count
from ppcore.tuning.noise import spawned
from ppcore.tuning.search import search

CHUNK = 50
BATCH = 256
MOVES = {"stretch": "StretchMove", "walk": "WalkMove", "differential": "DEMove"}


class Walkers(NamedTuple):
    """Positions ``x`` float[N, d] of all walkers with their ``log_density`` float[N]."""

    x: Any
    log_density: Any


@jax.jit
def _log_densities(target: Any, x: Any) -> Any:
    return jax.vmap(target.log_density)(x)


def log_densities(target: Any, x: np.ndarray) -> np.ndarray:
    """log γ at each row of ``x``: float[N, d]; a NaN counts as log 0, which no walker enters."""
    found = np.asarray(_log_densities(target, x))
    return np.where(np.isnan(found), -np.inf, found)


@dataclass(frozen=True)
class Emcee:
    """emcee's ``EnsembleSampler``: N walkers that propose along lines through one another.

    A draw is one iteration of emcee: the walkers are split at random into two halves, and each
    half moves against the other, which leaves γ ⊗ … ⊗ γ (N factors) invariant. emcee keeps its
    generator and its moves; ppcore hands it positions, densities and a seed for every block, so
    that a saved run resumes exactly. Everything runs on the host: blocks cannot be traced. It
    needs N ≥ 2 (d + 1) walkers that span the space, and grows slow beyond some tens of dimensions;
    the engine ``stretch`` is the same move, compiled.

    Parameters
    ----------
    move : str
        "stretch", "walk" or "differential" (evolution), with emcee's own defaults.
    warmup_draws : int
        Iterations before the first draw is kept; nothing is tuned.

    Raises
    ------
    ppcore.errors.SettingsError
        If a setting is out of range.

    Source: Foreman-Mackey, Hogg, Lang & Goodman 2013, arXiv:1202.3665; Goodman & Weare 2010,
    doi:10.2140/camcos.2010.5.65; ter Braak & Vrugt 2008, doi:10.1007/s11222-008-9104-9.

    >>> Emcee(move="walk").contract
    Invariant(reversible=False, irreducible=True)
    """

    move: str = "stretch"
    warmup_draws: int = 1000
    contract: ClassVar[Contract] = Invariant()
    coupled: ClassVar[bool] = True
    compiled: ClassVar[bool] = True
    host: ClassVar[bool] = True
    block_size: ClassVar[int] = CHUNK
    default_chains: int = field(default=64, init=False)
    default_draws: int = field(default=1000, init=False)

    def __post_init__(self) -> None:
        if self.move not in MOVES:
            raise SettingsError(
                f"move={self.move!r} is not known. {did_you_mean(str(self.move), MOVES)}"
            )
        check_count("warmup_draws", self.warmup_draws, 1)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """Walkers that have forgotten their start, as far as ``warmup_draws`` iterations can.

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
                f"chains={chains}: emcee in {target.dim} dimensions needs at least {least} "
                f"walkers, since those of either half must span the space. Pass chains={least} "
                "or more."
            )
        host_key, prior_key, walk_key = spawned(key, 3)
        rng = np.random.default_rng(words(host_key))
        dtype = jax.numpy.result_type(float)

        def evaluate(x: np.ndarray) -> tuple[np.ndarray, None]:
            padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % BATCH, axis=0)]).astype(dtype)
            parts = padded.reshape(-1, BATCH, x.shape[1])
            return np.concatenate([log_densities(target, part) for part in parts])[: len(x)], None

        found: Any = evaluate
        x = search(found, rng, prior_key, target, chains).x.astype(dtype)
        at = self.init(prior_key, target, (), x)
        rounds = -(-self.warmup_draws // CHUNK)
        for i, k in enumerate(spawned(walk_key, rounds)):
            at, _, _ = self.block(k, target, (), at, CHUNK)
            report(Progress("warmup", (i + 1) * CHUNK, rounds * CHUNK))
        return Warm((), at.x)

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Walkers:
        """Walkers at ``x``: float[N, d]."""
        return Walkers(np.asarray(x), log_densities(target, np.asarray(x)))

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Walkers, n: int
    ) -> tuple[Walkers, Any, dict[str, Any]]:
        """``n`` iterations of emcee; draws: float[N, n, d]."""
        import emcee

        x = np.asarray(carry.x)
        walkers, dim = x.shape
        # Too few walkers are refused in the warm-up; here emcee need not ask again.
        sampler = emcee.EnsembleSampler(
            walkers,
            dim,
            lambda rows: log_densities(target, rows.astype(x.dtype)),
            moves=getattr(emcee.moves, MOVES[self.move])(live_dangerously=True),
            vectorize=True,
        )
        seeded = np.random.RandomState(words(key)).get_state()
        state = emcee.State(
            x.astype(float), np.asarray(carry.log_density, float), random_state=seeded
        )
        sampler.run_mcmc(state, n, skip_initial_state_check=True)
        draws = np.swapaxes(sampler.get_chain(), 0, 1).astype(x.dtype)
        log_density = sampler.get_log_prob().T.astype(x.dtype)
        moved = np.any(np.diff(np.concatenate([x[:, None], draws], axis=1), axis=1) != 0, axis=2)
        stats = {"log_density": log_density, "acceptance_rate": moved.astype(x.dtype)}
        return Walkers(draws[:, -1], log_density[:, -1]), draws, stats


def words(key: Any) -> list[int]:
    """A key as the seed of a generator of NumPy's."""
    return [int(word) for word in np.asarray(jax.random.key_data(key)).ravel()]
