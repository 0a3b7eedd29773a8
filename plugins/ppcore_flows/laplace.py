"""Laplace's approximation at every mode found, its draws weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Report
from ppcore.errors import UnsupportedError
from ppcore.settings import check_between
from ppcore.tuning.noise import spawned
from ppcore_flows.flow import defended, drawn
from ppcore_flows.start import explore
from ppcore_flows.training import Trained, require_smooth


@dataclass(frozen=True)
class Laplace:
    """x ~ Σ_k π_k N(mode_k, (−∇² log γ)⁻¹), π_k ∝ Laplace evidence; w = γ/q, E[Ẑ] = Z.

    Needs no training: a few thousand gradients find the modes and their curvature.

    Parameters
    ----------
    defence : float
        Share of draws from a wide Student-t that keeps the weights bounded; 0 for none.

    Raises
    ------
    ppcore.errors.SettingsError
        If ``defence`` is out of range.

    Source: Tierney & Kadane 1986, doi:10.1080/01621459.1986.10478240.

    >>> Laplace().contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    defence: float = 0.05
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_between("defence", self.defence, -1e-9, 1)

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient, or if no mode
        describes the mass around it; :class:`ppcore.errors.StartError` if no start with a finite
        log density is found; :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        require_smooth(target, "laplace")
        k_explore, k_guard, k_draw = spawned(key, 3)
        found = explore(k_explore, target)
        if not found.modes:
            raise UnsupportedError(
                "No mode with a definite Hessian describes the mass around it (a funnel or a ridge "
                "has none), so there is no Laplace approximation. Use 'flow' or 'smc'."
            )
        notes = (f"The proposal has {len(found.means)} parts, one for each mode found.",)
        flow = found.law(jnp.result_type(float))
        made = Trained(flow, np.zeros(0), np.zeros(0), found.gradients, notes)
        return drawn(k_draw, defended(k_guard, flow, self.defence), made, target, n, report)
