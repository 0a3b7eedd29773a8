"""The unadjusted Langevin algorithm: Euler steps of the diffusion, biased at first order."""

from __future__ import annotations

from dataclasses import dataclass

from ppcore.chains import KernelEngine
from ppcore_langevin.moves import Unadjusted, engine_of


@dataclass(frozen=True)
class ULA(Unadjusted):
    """One Euler–Maruyama step of dX = F Fᵀ ∇ log γ(X) dt + √2 F dW.

    y = x + h F Fᵀ ∇ log γ(x) + √(2h) F z, z ~ N(0, I). The stationary law differs from γ by O(h);
    a Gaussian's variance comes out as σ²/(1 − h/2) in whitened units.

    Source: Roberts & Tweedie 1996, doi:10.2307/3318418; Durmus & Moulines 2017, arXiv:1507.05021.

    >>> ULA().contract
    Biased(order=1, in_='step_size')
    """


def engine(
    target_accept: float = 0.98,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 16,
) -> KernelEngine:
    """:class:`ULA` with many chains in lockstep, tuned together.

    Parameters
    ----------
    target_accept : float
        Mean acceptance that the omitted test would have, to tune the step size for: one transition
        from γ leaves it by at most 1 − target_accept in total variation.
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
    kernel = ULA()
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
