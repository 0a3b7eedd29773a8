"""Langevin engines for ppcore: discretised diffusions, corrected or with a declared bias."""

from __future__ import annotations

from ppcore.registry import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return []
