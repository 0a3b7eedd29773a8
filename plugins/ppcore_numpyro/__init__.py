"""NumPyro for ppcore: its models as ppcore's, and ppcore's models as its."""

from __future__ import annotations

from ppcore.registry import FrontendSpec, hookimpl


@hookimpl
def ppcore_frontends() -> list[FrontendSpec]:
    """The frontend behind ``ppcore.from_numpyro`` and ``model.to_numpyro``."""
    return [
        FrontendSpec(
            "numpyro",
            "ppcore_numpyro.frontend:FRONTEND",
            requires=("numpyro",),
            summary="NumPyro models, read into diagrams where they can be, and written.",
            reference="Phan, Pradhan & Jankowiak 2019, arXiv:1912.11554",
        )
    ]
