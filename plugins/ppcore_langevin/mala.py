"""The Metropolis-adjusted Langevin algorithm."""

from __future__ import annotations

from dataclasses import dataclass

from ppcore.chains import KernelEngine
from ppcore_langevin.moves import Adjusted, engine_of


@dataclass(frozen=True)
class MALA(Adjusted):
    """A Langevin step as a proposal, accepted or not.

    y = x + h F Fᵀ ∇ log γ(x) + √(2h) F z with z ~ N(0, I), accepted with probability
    min(1, γ(y) q(y, x) / (γ(x) q(x, y))). With b = Fᵀ∇ log γ, the noise that leads back from y is
    z′ = −(z + √(h/2)(b(x) + b(y))), so that log q(y, x)/q(x, y) = ½|z|² − ½|z′|². Reversible for γ.

    Source: Roberts & Tweedie 1996, doi:10.2307/3318418; Roberts & Rosenthal 1998,
    doi:10.1111/1467-9868.00123 (the optimal acceptance rate 0.574).

    >>> MALA().contract
    Invariant(reversible=True, irreducible=True)
    """


def engine(
    target_accept: float = 0.574,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 8,
) -> KernelEngine:
    """:class:`MALA` with many chains in lockstep, tuned together.

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
    kernel = MALA()
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
