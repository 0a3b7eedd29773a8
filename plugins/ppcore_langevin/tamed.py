"""Tamed unadjusted Langevin: the drift is bounded, so that steep tails cannot throw the chain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ppcore.chains import KernelEngine
from ppcore.errors import SettingsError, did_you_mean
from ppcore_langevin.moves import Scored, Step, Unadjusted, engine_of

KINDS = ("coordinate", "norm")


@dataclass(frozen=True)
class TamedULA(Unadjusted):
    """An Euler step whose drift is divided by one plus its own length.

    With b = Fᵀ∇ log γ(x): y = x + F (h T_h(b) + √(2h) z), where T_h(b) = b/(1 + h|b|) ("norm") or
    b_i/(1 + h|b_i|) for each coordinate ("coordinate"). The drift moves x by less than one
    whitened unit however steep γ is, so the chain is stable where log γ falls faster than a
    quadratic; the stationary law differs from γ by O(h).

    Parameters
    ----------
    kind : str
        "coordinate" or "norm".

    Raises
    ------
    ppcore.errors.SettingsError
        For another kind.

    Source: Brosse, Durmus, Moulines & Sabanis 2019, arXiv:1710.05559 (TULA and TULAc).

    >>> TamedULA("norm").contract
    Biased(order=1, in_='step_size')
    """

    kind: str = "coordinate"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            hint = did_you_mean(str(self.kind), KINDS)
            raise SettingsError(f"kind={self.kind!r} is no way to tame a drift. {hint}")

    def drift(self, target: Any, state: Scored, params: Step) -> Any:
        """T_h(Fᵀ∇ log γ): float[d]."""
        b = params.preconditioner.pull(state.gradient)
        size = jnp.abs(b) if self.kind == "coordinate" else jnp.linalg.norm(b)
        return b / (1.0 + params.step_size * size)


def engine(
    kind: str = "coordinate",
    target_accept: float = 0.98,
    metric: str = "auto",
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    most_thin: int = 16,
) -> KernelEngine:
    """:class:`TamedULA` with many chains in lockstep, tuned together.

    Parameters
    ----------
    kind : str
        "coordinate" or "norm": what the drift is divided by.
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
    kernel = TamedULA(kind)
    return engine_of(kernel, target_accept, metric, warmup_draws, max_warmup_draws, most_thin)
