"""The plugin ``walk``: this module says what there is and imports nothing heavy."""

from ppcore.contract import Invariant
from ppcore.hooks import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    return [
        EngineSpec(
            "walk",
            load="ppcore_walk.metropolis:RandomWalk",
            contract=Invariant(reversible=True),
            requires=("jax",),
            summary="random-walk Metropolis; needs no gradient",
            reference="Metropolis et al. 1953, doi:10.1063/1.1699114",
        )
    ]
