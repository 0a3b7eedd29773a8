"""Pyro for ppcore: its models as ppcore's, and ppcore's models as its."""

from __future__ import annotations

from ppcore.contract import Consistent, ProperlyWeighted
from ppcore.registry import EngineSpec, FrontendSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """Pyro's own engines, on any target."""
    return [
        EngineSpec(
            "pyro_nuts",
            "ppcore_pyro.nuts:PyroNUTS",
            contract=Consistent(),
            requires=("jax", "torch", "pyro"),
            extra="torch",
            needs=("gradient",),
            summary="Pyro's NUTS over the compiled gradient, tuned by its own rules.",
            reference="Hoffman & Gelman 2014, arXiv:1111.4246; Bingham et al. 2019, JMLR 20(28)",
        ),
        EngineSpec(
            "pyro_svi",
            "ppcore_pyro.svi:PyroSVI",
            contract=ProperlyWeighted(),
            requires=("jax", "torch", "pyro"),
            extra="torch",
            needs=("gradient",),
            summary="Pyro's automatic guides trained by its SVI, their draws weighed; evidence.",
            reference="Kucukelbir et al. 2017, arXiv:1603.00788; Bingham et al. 2019, JMLR 20(28)",
        ),
    ]


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
