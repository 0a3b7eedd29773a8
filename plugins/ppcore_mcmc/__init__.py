"""Markov chain Monte Carlo engines for ppcore: NUTS, and many chains of HMC in lockstep."""

from __future__ import annotations

from ppcore.contract import Invariant
from ppcore.registry import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [
        EngineSpec(
            "ensemble",
            "ppcore_mcmc.ensemble:Ensemble",
            contract=Invariant(reversible=True),
            requires=("jax",),
            needs=("gradient",),
            summary="Many chains of jittered HMC in lockstep, tuned together; the default.",
            reference="Duane et al. 1987; Hoffman, Radul & Sountsov 2021 (AISTATS)",
        ),
        EngineSpec(
            "nuts",
            "ppcore_mcmc.nuts:NUTS",
            contract=Invariant(reversible=False),
            requires=("jax",),
            needs=("gradient",),
            summary="The no-U-turn sampler: multinomial, generalised U-turns, a few long chains.",
            reference="Hoffman & Gelman 2014, arXiv:1111.4246; Betancourt 2017, arXiv:1701.02434",
        ),
    ]
