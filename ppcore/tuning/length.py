"""Learn the trajectory length from how fast draws forget each other, on the host."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

GROWTH = 1.6
GOOD = 0.25
LONGEST = 30.0
LOSS = 0.2
MANY = 16


@dataclass(frozen=True)
class Length:
    """A search over trajectory lengths T, upward from where a Gaussian needs to be.

    Attributes
    ----------
    now : float
        T to use next, in whitened time.
    best : float
        The longest T so far whose yield is near the best.
    score : float
        The highest log yield, in effective draws per gradient, so far.
    done : bool
        The search is over; ``now`` is the best.
    """

    now: float
    best: float
    score: float = -np.inf
    done: bool = False

    def update(self, draws: np.ndarray, middle: np.ndarray, variance: np.ndarray) -> Length:
        """The search after a round at ``now``.

        The effective draws per gradient of the slowest coordinate are (1 − ρ)/(1 + ρ)/T with ρ the
        larger lag-one autocorrelation of x_i and (x_i − m_i)². T grows until every ρ is
        small, or the yield falls by more than exp(−LOSS): at an equal yield, fewer draws that know
        less of each other are worth more, as R-hat with short chains shows.

        Parameters: draws: float[n, chains, d]; middle, variance: float[d], pooled.
        """
        if self.done or len(draws) < 4:
            return self
        rho = slowest(draws, middle, variance)
        score = np.log((1 - rho) / (1 + rho) / self.now)
        if score < self.score - LOSS:
            return replace(self, now=self.best, done=True)
        longer = self.now * GROWTH
        if rho < GOOD or longer > LONGEST:
            return Length(self.now, self.now, score, True)
        return Length(longer, self.now, max(score, self.score))


def slowest(draws: np.ndarray, middle: np.ndarray, variance: np.ndarray) -> float:
    """The largest lag-one autocorrelation over coordinates and their squares, in [0, 0.999].

    With many coordinates the mean of the largest two in a hundred, as the very largest is noise.
    """
    both = _with_squares(draws, middle, variance)
    lagged = np.mean(both[1:] * both[:-1], axis=(0, 1)) / (both**2).mean((0, 1))
    top = np.sort(lagged)[-max(1, len(lagged) // 50) :]
    return float(np.clip(top.mean(), 0.0, 0.999))


def autocorrelation_time(draws: np.ndarray, middle: np.ndarray, variance: np.ndarray) -> float:
    """Draws of the slowest coordinate, or of its square, that are worth one independent draw.

    (1 + ρ)/(1 − ρ) with ρ from :func:`slowest`, which slower modes hide from. With at least
    ``MANY`` chains also n Var(mean of a chain)/Var(x), which no mode hides from while n is large
    enough; the larger of the two.

    Parameters: draws: float[n, chains, d]; middle, variance: float[d], pooled.
    """
    rho = slowest(draws, middle, variance)
    time = (1 + rho) / (1 - rho)
    n, chains = draws.shape[:2]
    if chains >= MANY:
        both = _with_squares(draws, middle, variance)
        spread = both.mean(0).var(0) / (both.var((0, 1)) + 1e-300)
        top = np.sort(spread)[-max(1, len(spread) // 50) :]
        time = max(time, n * float(top.mean()))
    return time


def _with_squares(draws: np.ndarray, middle: np.ndarray, variance: np.ndarray) -> np.ndarray:
    centred = (draws - middle) / np.sqrt(variance + 1e-300)
    squares = np.clip(centred**2, 0, 9) - np.clip(centred**2, 0, 9).mean((0, 1))
    return np.concatenate([centred, squares], axis=-1)
