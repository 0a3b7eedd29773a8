"""Sequential Monte Carlo for ppcore: populations carried from a reference to the posterior."""

from __future__ import annotations

from ppcore.registry import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return []
