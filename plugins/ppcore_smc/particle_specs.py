"""What this plugin offers for scans and for divided problems, listed without importing it."""

from __future__ import annotations

from ppcore.contract import Biased, Invariant, ProperlyWeighted
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
    EngineSpec(
        "amis",
        "ppcore_smc.adaptive_importance:AMIS",
        contract=ProperlyWeighted(),
        requires=("jax",),
        summary="Adaptive importance sampling from a learnt mixture of Student-t; evidence.",
        reference="Cornuet, Marin, Mira & Robert 2012, arXiv:0907.1254",
    ),
    EngineSpec(
        "dc_smc",
        "ppcore_smc.divide_conquer:DivideConquer",
        contract=ProperlyWeighted(),
        requires=("jax",),
        needs=("gradient",),
        summary="Divide-and-conquer SMC: blocks of sites annealed apart, merged along a tree.",
        reference="Lindsten et al. 2017, arXiv:1406.4993",
    ),
    EngineSpec(
        "fusion",
        "ppcore_smc.fusion:Fusion",
        contract=Biased(order=1, in_="time / mesh"),
        requires=("jax",),
        needs=("gradient",),
        summary="Fusion: products of shards of the data, weighed by bridges; exact with a bound.",
        reference="Dai, Pollock & Roberts 2019, arXiv:1901.00139; Chan et al. 2023",
    ),
    EngineSpec(
        "consensus",
        "ppcore_smc.consensus:Consensus",
        contract=Biased(order=0, in_="shards"),
        requires=("jax",),
        needs=("gradient",),
        summary="Consensus Monte Carlo: averages of draws of shards; exact if all are Gaussian.",
        reference="Scott et al. 2016, doi:10.1080/17509881.2016.1142191",
    ),
)
