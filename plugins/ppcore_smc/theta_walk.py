"""Engines whose chains walk over the parameters of a state-space model, warmed up together."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.chains import CHUNK, KernelEngine, Tuning, started, transitions
from ppcore.engine import Progress, Report, Warm
from ppcore.errors import SettingsError, StartError, UnsupportedError, did_you_mean
from ppcore.tuning.noise import spawned
from ppcore_smc.parameters import estimate, split_target

CANDIDATES = 16
NOISY = 2.0


def warm_walk(
    kernel: Any, key: Any, target: Any, chains: int, rounds: int, accept: float, report: Report
) -> Warm:
    """Starts and ``{"step_size", "factor"}`` for chains that walk over θ.

    Every chain starts from the best of a few draws of the prior, chosen by their (estimated)
    likelihoods. ``rounds`` rounds of 16 transitions follow; the step size follows the acceptance
    rate, F the pooled covariance of θ over the later half of what was walked.

    Raises
    ------
    UnsupportedError
        The prior is improper.
    StartError
        No draw from the prior has a likelihood.
    """
    if not target.has_reference:
        raise UnsupportedError(
            "Chains over parameters start from draws of the prior, and one is improper. Give "
            "every site a proper distribution."
        )
    k_start, k_init, k_move = spawned(key, 3)
    x, spread = _starts(kernel, k_start, target, chains)
    index = split_target(target).index
    k = len(index)
    dtype = x.dtype
    u = x[:, index]
    scale = np.maximum(u.std(0), 1e-3) if chains > 1 else np.ones(k)
    params = _params(0.6, np.diag(scale), dtype)
    state = started(kernel, k_init, target, params, x)
    step, walked = 0.6, []
    for r in range(rounds):
        at = np.int32(r * CHUNK), np.int32(CHUNK)
        tuned = Tuning(params, np.int32(1))
        state, rows = transitions(kernel, k_move, target, tuned, state, at, CHUNK)
        walked.append(np.asarray(rows["x"])[..., index])
        rate = float(np.mean(np.asarray(rows["acceptance_rate"])))
        step = float(np.clip(step * np.exp((rate - accept) * 3.0 / (1.0 + 0.25 * r)), 1e-4, 5.0))
        factor = np.asarray(params["factor"])
        if k and r % 4 == 3 and r < rounds - 4:
            factor = _pooled(np.concatenate(walked[len(walked) // 2 :]).reshape(-1, k), factor)
        params = _params(step, factor, dtype)
        report(Progress("warmup", (r + 1) * CHUNK, rounds * CHUNK, {"step_size": step}))
    notes = []
    if spread > NOISY:
        notes.append(
            f"The filter's log likelihood varies by ± {spread:.1f} at one θ, so chains stick. Use "
            f"more particles: about {2 ** int(np.ceil(np.log2(spread**2)))} times as many."
        )
    return Warm(Tuning(params, np.int32(1)), np.asarray(state.x), 0, tuple(notes))


def _starts(kernel: Any, key: Any, target: Any, chains: int) -> tuple[np.ndarray, float]:
    """Starts x[chains, d], and the standard deviation of log Ẑ at one of them."""
    k_draw, k_weigh, k_pick, k_again = spawned(key, 4)
    x = np.asarray(target.sample_reference(k_draw, chains * CANDIDATES))
    log_w, moved = _weighed(kernel, k_weigh, target, x)
    if not np.isfinite(log_w).any():
        raise StartError(
            f"None of {len(x)} draws from the prior has a likelihood above zero. Use more "
            "particles, or a prior nearer to the data."
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(k_pick)).ravel())
    grouped = np.where(np.isfinite(log_w), log_w, -np.inf).reshape(chains, CANDIDATES)
    best = np.argmax(grouped + rng.gumbel(size=grouped.shape), axis=1)
    chosen = best + CANDIDATES * np.arange(chains)
    # A chain whose candidates are all impossible joins one that has a place.
    lost = ~np.isfinite(grouped.max(axis=1))
    chosen[lost] = rng.choice(np.flatnonzero(np.isfinite(log_w)), int(lost.sum()))
    top = int(np.argmax(np.where(np.isfinite(log_w), log_w, -np.inf)))
    again, _ = _weighed(kernel, k_again, target, np.repeat(x[top : top + 1], len(x), axis=0))
    return moved[chosen], float(np.std(again[np.isfinite(again)]))


@partial(jax.jit, static_argnums=0)
def _likelihoods(kernel: Any, key: Any, target: Any, x: Any) -> tuple[Any, Any]:
    split = split_target(target)

    def one(row: Any) -> tuple[Any, Any]:
        k, x = row
        u = x[split.index]
        moved, _, log_z = estimate(k, target, split, u, kernel.particles, kernel.proposal)
        return log_z, moved

    return jax.lax.map(one, (jax.random.split(key, len(x)), x), batch_size=CANDIDATES)


def _weighed(kernel: Any, key: Any, target: Any, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    log_w, moved = (np.asarray(a) for a in _likelihoods(kernel, key, target, x))
    return np.where(np.isnan(log_w), -np.inf, log_w), moved


def _params(step: float, factor: np.ndarray, dtype: Any) -> dict[str, Any]:
    return {"step_size": np.asarray(step, dtype), "factor": np.asarray(factor, dtype)}


def _pooled(u: np.ndarray, old: np.ndarray) -> np.ndarray:
    covariance = np.cov(u.T).reshape(u.shape[1], -1)
    size = np.diagonal(covariance)
    if not np.isfinite(covariance).all() or (size <= 0).any():
        return old
    return np.linalg.cholesky(covariance + 1e-3 * np.diag(size))


class ThetaWalk:
    """An engine of chains whose ``kernel`` takes its parameters from :func:`warm_walk`."""

    kernel: Any
    compiled = True
    block_size = CHUNK
    warmup_rounds: int

    @property
    def auxiliary(self) -> tuple[str, ...]:
        """Fields of the state that are random variables of their own."""
        return tuple(self.kernel.auxiliary)

    def warmup(self, key: Any, target: Any, chains: int, report: Report) -> Warm:
        """See :func:`warm_walk`."""
        kernel, rounds = self.kernel, self.warmup_rounds
        return warm_walk(kernel, key, target, chains, rounds, self.target_accept, report)

    target_accept = 0.25

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        """The states at ``x``: float[chains, d]."""
        return started(self.kernel, key, target, tuned.params, jnp.asarray(x))

    def block(
        self, key: Any, target: Any, tuned: Any, carry: Any, n: int
    ) -> tuple[Any, Any, dict[str, Any]]:
        """``n`` transitions of every chain: draws float[chains, n, d]."""
        return KernelEngine(self.kernel).block(key, target, tuned, carry, n)


def check_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Raise :class:`ppcore.errors.SettingsError` unless ``value`` is one of ``known``.

    >>> check_choice("proposal", "guided", ("bootstrap", "guided"))
    """
    if value not in set(known):
        raise SettingsError(f"{name}={value!r} is not known. {did_you_mean(str(value), known)}")
