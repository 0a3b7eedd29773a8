"""Flows of zuko for ppcore: a torch library on the same targets, by ``target.torch()``."""

from __future__ import annotations

from ppcore.contract import ProperlyWeighted
from ppcore.registry import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [
        EngineSpec(
            "zuko_flow",
            "ppcore_zuko.flow:ZukoFlow",
            contract=ProperlyWeighted(),
            requires=("jax", "torch", "zuko"),
            extra="torch",
            needs=("gradient",),
            summary="A flow of zuko, trained in torch from the modes found, its draws weighed.",
            reference="Rezende & Mohamed 2015, arXiv:1505.05770",
        )
    ]
