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


SAMPLERS: list[EngineSpec] = []

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
