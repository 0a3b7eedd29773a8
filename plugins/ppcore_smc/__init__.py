"""Sequential Monte Carlo for ppcore: populations carried from a reference to the posterior."""

from __future__ import annotations

from ppcore.contract import ProperlyWeighted
from ppcore.registry import EngineSpec, hookimpl


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
    ]
