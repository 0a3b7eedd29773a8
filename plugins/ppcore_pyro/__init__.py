"""Pyro for ppcore: its models as ppcore's, and ppcore's models as its."""

from __future__ import annotations

from ppcore.registry import FrontendSpec, hookimpl


@hookimpl
def ppcore_frontends() -> list[FrontendSpec]:
    """The frontend behind ``ppcore.from_pyro`` and ``model.to_pyro``."""
    return [
        FrontendSpec(
            "pyro",
            "ppcore_pyro.frontend:FRONTEND",
            requires=("torch", "pyro"),
            extra="torch",
            summary="Pyro models, read into diagrams where they can be, and written.",
            reference="Bingham et al. 2019, JMLR 20(28)",
        )
    ]
