"""The plugin ``hug_and_hop``: this module says what there is and imports nothing heavy."""

from ppcore.contract import Invariant
from ppcore.hooks import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            "hug_and_hop",
            load="ppcore_hug_and_hop.kernel:hug_and_hop",
            contract=Invariant(),
            requires=("jax",),
            needs=("gradient",),
            summary="Bounces along a contour of the density, then a hop to another.",
            reference="Ludkin & Sherlock 2022, arXiv:1907.13570",
        )
    ]
