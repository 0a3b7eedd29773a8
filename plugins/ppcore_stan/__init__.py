"""Stan for ppcore: its programs as densities, compiled by BridgeStan and run on the host."""

from __future__ import annotations

from ppcore.registry import FrontendSpec, hookimpl


@hookimpl
def ppcore_frontends() -> list[FrontendSpec]:
    """The frontend behind ``ppcore.from_stan``."""
    return [
        FrontendSpec(
            "stan",
            "ppcore_stan.from_program:FRONTEND",
            requires=("bridgestan",),
            extra="stan",
            summary="Stan programs as densities with named sites, compiled by BridgeStan.",
            reference="Roualdes, Ward, Carpenter, Seyboldt & Axen 2023, doi:10.21105/joss.05236",
        )
    ]
