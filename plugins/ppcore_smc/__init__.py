"""Sequential Monte Carlo for ppcore: populations carried from a reference to the posterior."""

from __future__ import annotations

from ppcore.contract import ProperlyWeighted
from ppcore.registry import EngineSpec, hookimpl
from ppcore_smc.particle_specs import SPECS


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [
        EngineSpec(
            "importance",
            "ppcore_smc.importance:Importance",
            contract=ProperlyWeighted(),
            requires=("jax",),
            summary="Prior draws weighed by their likelihood; evidence, for small problems.",
            reference="Kloek & van Dijk 1978, doi:10.2307/1913641",
        ),
        EngineSpec(
            "ais",
            "ppcore_smc.ais:AIS",
            contract=ProperlyWeighted(),
            requires=("jax",),
            needs=("gradient",),
            summary="Annealed importance sampling on a frozen schedule; unbiased evidence.",
            reference="Neal 2001, arXiv:physics/9803008",
        ),
        EngineSpec(
            "smc",
            "ppcore_smc.smc:SMC",
            contract=ProperlyWeighted(unbiased_evidence=False),
            requires=("jax",),
            needs=("gradient",),
            summary="Tempered SMC: adaptive temperatures, moves tuned by the population; evidence.",
            reference="Del Moral, Doucet & Jasra 2006; Buchholz et al. 2021, arXiv:1808.07730",
        ),
        EngineSpec(
            "mode_smc",
            "ppcore_smc.mode_smc:ModeSMC",
            contract=ProperlyWeighted(unbiased_evidence=False),
            requires=("jax",),
            needs=("gradient",),
            summary="Tempered SMC from a mixture at every mode that many climbs find; evidence.",
            reference="Del Moral, Doucet & Jasra 2006; Good 1953, doi:10.1093/biomet/40.3-4.237",
        ),
        *SPECS,
    ]
