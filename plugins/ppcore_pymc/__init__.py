"""PyMC for ppcore: its models as densities, through the JAX form of their graphs."""

from __future__ import annotations

from ppcore.registry import FrontendSpec, hookimpl


@hookimpl
def ppcore_frontends() -> list[FrontendSpec]:
    """The frontend behind ``ppcore.from_pymc``."""
    return [
        FrontendSpec(
            "pymc",
            "ppcore_pymc.from_model:FRONTEND",
            requires=("pymc",),
            extra="pymc",
            summary="PyMC models as densities with named sites, compiled by JAX.",
            reference="Abril-Pla et al. 2023, doi:10.7717/peerj-cs.1516",
        )
    ]
