"""What this plugin offers for state-space models, listed without importing it."""

from __future__ import annotations

from ppcore.contract import Invariant, ProperlyWeighted
from ppcore.registry import EngineSpec

SPECS = (
    EngineSpec(
        "particle_filter",
        "ppcore_smc.particle_filter:ParticleFilter",
        contract=ProperlyWeighted(),
        requires=("jax",),
        summary="Bootstrap, guided, auxiliary or learnt particle filter of a scan, with smoothing.",
        reference="Gordon, Salmond & Smith 1993; Pitt & Shephard 1999; Cornebise et al. 2014",
    ),
    EngineSpec(
        "pmmh",
        "ppcore_smc.pmmh:PMMH",
        contract=Invariant(reversible=False),
        requires=("jax",),
        needs=("reference",),
        summary="Particle marginal Metropolis–Hastings: parameters of a scan, and its path.",
        reference="Andrieu, Doucet & Holenstein 2010, doi:10.1111/j.1467-9868.2009.00736.x",
    ),
    EngineSpec(
        "particle_gibbs",
        "ppcore_smc.particle_gibbs:ParticleGibbs",
        contract=Invariant(reversible=False),
        requires=("jax",),
        needs=("reference",),
        summary="Particle Gibbs with ancestor sampling: the path, then the parameters.",
        reference="Lindsten, Jordan & Schön 2014, arXiv:1401.0604",
    ),
    EngineSpec(
        "smc2",
        "ppcore_smc.smc2:SMC2",
        contract=ProperlyWeighted(unbiased_evidence=False),
        requires=("jax",),
        needs=("reference",),
        summary="SMC²: parameters and path of a scan, step by step along the data; evidence.",
        reference="Chopin, Jacob & Papaspiliopoulos 2013, arXiv:1101.1528",
    ),
)
