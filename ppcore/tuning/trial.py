"""Choose between a dense and a diagonal metric by trying both on the chains, on the host."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ppcore.tuning.length import MANY, autocorrelation_time, slowest
from ppcore.tuning.preconditioner import Dense
from ppcore.tuning.step_size import StepSize

SLOW = 3.5
DIVERGING = 0.005
ALIKE = 4.0
MARGIN = 0.2
DOUBT = 1.4
TUNING = 4

Advance = Callable[[Dense, float, float, int], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Candidate:
    """A metric, and what goes with it.

    Attributes
    ----------
    diagonal : bool
        Whether the correlations are left out.
    step : StepSize
    length : float
    score : float
        log effective draws of the slowest coordinate per gradient, less a margin.
    """

    diagonal: bool
    step: StepSize
    length: float
    score: float = -math.inf


def uncorrelated(like: Dense, draws: np.ndarray, gradients: np.ndarray) -> Dense:
    """A diagonal metric as the same pytree as ``like``, so that nothing is recompiled.

    Its scales are s_i⁴ = var x_i / var ∇_i, of ``draws`` and ``gradients``: float[N, d]. In a
    funnel they are nearer to what the neck needs than standard deviations are.

    >>> import numpy as np
    >>> x = np.array([[-2.0, 1.0], [2.0, -1.0]])
    >>> uncorrelated(Dense(np.eye(2)), x, -x / [4.0, 1.0]).factor
    array([[2., 0.],
           [0., 1.]])
    """
    scale = (draws.var(0) / np.maximum(gradients.var(0), 1e-300)) ** 0.25
    return Dense(np.diag(scale).astype(like.factor.dtype))


def in_trouble(out: dict[str, np.ndarray], middle: np.ndarray, variance: np.ndarray) -> bool:
    """Whether a round's draws are so dependent, or diverge so often, that a trial is worth it."""
    rho = slowest(out["x"], middle, variance)
    return (1 + rho) / (1 - rho) > SLOW or out["diverging"].mean() > DIVERGING


def try_metrics(
    advance: Advance,
    tune: Callable[[StepSize, dict[str, np.ndarray]], StepSize],
    metrics: tuple[Dense, Dense],
    now: Candidate,
    moments: tuple[np.ndarray, np.ndarray],
    rounds: tuple[int, int],
    apart: float,
) -> Candidate:
    """The dense or the diagonal metric, whichever yields more effective draws per gradient.

    Where correlations change from place to place, as in a funnel, a dense metric loses in one
    place what it gains in another, and only the scales are worth knowing. The diagonal one gets a
    length in proportion to the largest standard deviation that it leaves, each a step size of its
    own from ``TUNING`` short rounds; then two rounds of each count. With ``MANY`` chains the
    diagonal must be better by exp(MARGIN). Fewer chains do not see the slowest modes, those of
    moving between places; then it may seem worse by exp(DOUBT). Nothing is tried where the
    covariance between diagonally whitened coordinates has a condition number below ``ALIKE``, or
    above ``apart``.

    Parameters
    ----------
    advance : callable
        ``Machine.advance``, which may also keep the draws.
    tune : callable
        The step size after a round.
    metrics : (Dense, Dense)
        The dense and the diagonal one.
    now : Candidate
        Step size and length in use with the dense one.
    moments : (float[d], float[d])
        Pooled means and variances.
    rounds : (int, int)
        Draws in a short round and in a round that counts.
    apart : float
    """
    dense, diagonal = metrics
    rows = np.asarray(dense.factor, float) / np.diagonal(diagonal.factor)[:, None]
    values = np.linalg.eigvalsh(rows @ rows.T)
    if not ALIKE * values[0] < values[-1] < apart * values[0]:
        return now
    shorter, longer = 0.25 * math.log(min(values[0], 1.0)), math.sqrt(max(values[-1], 1.0))
    flat = Candidate(True, StepSize(now.step.log_step + shorter), now.length * longer)
    flat = _tried(advance, tune, diagonal, flat, moments, rounds)
    full = _tried(advance, tune, dense, now, moments, rounds)
    return flat if flat.score > full.score else full


def _tried(
    advance: Advance,
    tune: Callable[[StepSize, dict[str, np.ndarray]], StepSize],
    metric: Dense,
    candidate: Candidate,
    moments: tuple[np.ndarray, np.ndarray],
    rounds: tuple[int, int],
) -> Candidate:
    """``candidate`` with its step size tuned, and its score."""
    step, length = candidate.step, candidate.length
    for _ in range(TUNING):
        step = tune(step, advance(metric, step.now, length, rounds[0]))
    parts = [advance(metric, step.now, length, rounds[1]) for _ in range(2)]
    draws = np.concatenate([part["x"] for part in parts])
    cost = np.mean([part["n_gradients"].mean() for part in parts])
    score = -math.log(autocorrelation_time(draws, *moments) * float(cost))
    margin = MARGIN if draws.shape[1] >= MANY else -DOUBT
    return replace(candidate, step=step, score=score - margin * candidate.diagonal)
