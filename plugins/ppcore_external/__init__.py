"""Samplers of other projects for ppcore: emcee, dynesty and nutpie, each behind its extra."""

from __future__ import annotations

from ppcore.contract import Consistent, Invariant, ProperlyWeighted
from ppcore.registry import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [
        EngineSpec(
            "emcee",
            "ppcore_external.emcee:Emcee",
            contract=Invariant(),
            requires=("jax", "emcee"),
            extra="emcee",
            summary="emcee's ensemble of walkers on the host; no gradient.",
            reference="Foreman-Mackey et al. 2013, arXiv:1202.3665",
        ),
        EngineSpec(
            "dynesty",
            "ppcore_external.dynesty:Dynesty",
            contract=ProperlyWeighted(unbiased_evidence=False),
            requires=("jax", "dynesty"),
            extra="dynesty",
            needs=("reference",),
            summary="dynesty's nested sampling on the host: evidence and several modes.",
            reference="Skilling 2006, doi:10.1214/06-BA127; Speagle 2020, arXiv:1904.02180",
        ),
        EngineSpec(
            "nutpie",
            "ppcore_external.nutpie:Nutpie",
            contract=Consistent(),
            requires=("jax", "nutpie"),
            extra="nutpie",
            needs=("gradient",),
            summary="nutpie's NUTS in Rust over the compiled gradient, tuned by its own rules.",
            reference="Seyboldt, Carlson & Carpenter 2026, arXiv:2603.18845",
        ),
    ]
