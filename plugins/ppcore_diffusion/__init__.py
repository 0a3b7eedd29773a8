"""Learned diffusion samplers for ppcore: trained transitions, weighed by the path formula."""

from __future__ import annotations

from ppcore.contract import ProperlyWeighted
from ppcore.registry import EngineSpec, hookimpl

WEIGHTED = ProperlyWeighted()


def _spec(name: str, load: str, summary: str, reference: str) -> EngineSpec:
    return EngineSpec(
        name,
        f"ppcore_diffusion.{load}",
        contract=WEIGHTED,
        requires=("jax",),
        needs=("gradient",),
        summary=summary,
        reference=reference,
    )


SAMPLERS = [
    _spec(
        "cmcd",
        "methods:CMCD",
        "Annealed Langevin steps with a learned drift and its mirror, weighed; evidence.",
        "Vargas, Padhy, Blessing & Nüsken 2024, arXiv:2307.01050",
    ),
    _spec(
        "scld",
        "methods:SCLD",
        "CMCD in segments, trained each by itself and resampled between; evidence.",
        "Chen, Richter, Berner et al. 2025, arXiv:2412.07081",
    ),
    _spec(
        "mcd",
        "methods:MCD",
        "Annealed Langevin steps, weighed by a learned way back; evidence.",
        "Doucet, Grathwohl, Matthews & Strathmann 2022, arXiv:2208.07698",
    ),
    _spec(
        "dbs",
        "methods:DBS",
        "A bridge whose steps there and back are both learned, weighed; evidence.",
        "Richter & Berner 2024, arXiv:2307.01198",
    ),
    _spec(
        "dds",
        "methods:DDS",
        "The Ornstein-Uhlenbeck process backwards, its score learned, weighed; evidence.",
        "Vargas, Grathwohl & Doucet 2023, arXiv:2302.13834",
    ),
    _spec(
        "dis",
        "methods:DIS",
        "A noising diffusion reversed by Euler steps, its score learned; evidence.",
        "Berner, Richter & Ullrich 2024, arXiv:2211.01364",
    ),
    _spec(
        "pis",
        "methods:PIS",
        "A Brownian motion from a point steered to the target, weighed; evidence.",
        "Zhang & Chen 2022, arXiv:2111.15141",
    ),
    _spec(
        "ud_mcd",
        "methods:UDMCD",
        "Underdamped annealing, weighed by a learned way back; evidence.",
        "Geffner & Domke 2023, arXiv:2208.07743",
    ),
    _spec(
        "ud_cmcd",
        "methods:UDCMCD",
        "Underdamped annealing with a learned control of velocities; evidence.",
        "Blessing, Berner, Richter & Neumann 2025, arXiv:2503.01006",
    ),
    _spec(
        "ud_dbs",
        "methods:UDDBS",
        "The underdamped bridge, its ways there and back both learned; evidence.",
        "Blessing, Berner, Richter & Neumann 2025, arXiv:2503.01006",
    ),
]

# Transports learned from samples, Schrödinger bridges, combinations of learned densities.
TRANSPORTS: list[EngineSpec] = [
    _spec(
        "flow_matching",
        "flow_matching:FlowMatching",
        "A flow matched to earlier draws, its own draws weighed; evidence.",
        "Lipman et al. 2023, arXiv:2210.02747; Tong et al. 2024, arXiv:2302.00482",
    ),
    _spec(
        "schroedinger_bridge",
        "schroedinger_bridge:SchroedingerBridge",
        "A light Schrödinger bridge to earlier draws, its own draws weighed; evidence.",
        "Korotin, Gushchin & Burnaev 2024, arXiv:2310.01174",
    ),
]


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [*SAMPLERS, *TRANSPORTS]
