"""Amortised inference for ppcore: posteriors learnt from simulations, for all data at once."""

from __future__ import annotations

from ppcore.contract import Amortised
from ppcore.registry import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [
        EngineSpec(
            "npe",
            "ppcore_amortised.npe:NPE",
            contract=Amortised(),
            requires=("jax",),
            summary="For model.amortise: flows from data to posterior, trained on simulations.",
            reference="Papamakarios & Murray 2016, arXiv:1605.06376",
        )
    ]
