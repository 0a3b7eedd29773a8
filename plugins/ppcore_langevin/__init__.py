"""Langevin engines for ppcore: discretised diffusions, corrected or with a declared bias."""

from __future__ import annotations

from ppcore.contract import Biased, Contract, Invariant
from ppcore.registry import EngineSpec, hookimpl

REVERSIBLE = Invariant(reversible=True)
FIRST, SECOND = Biased(order=1), Biased(order=2)


def _spec(
    name: str,
    load: str,
    contract: Contract,
    summary: str,
    reference: str,
    needs: tuple[str, ...] = ("gradient",),
) -> EngineSpec:
    return EngineSpec(
        name,
        f"ppcore_langevin.{load}",
        contract=contract,
        requires=("jax",),
        needs=needs,
        summary=summary,
        reference=reference,
    )


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [
        _spec(
            "ula",
            "ula:engine",
            FIRST,
            "Euler steps of the Langevin diffusion, without a test.",
            "Durmus & Moulines 2017, arXiv:1507.05021",
        ),
        _spec(
            "mala",
            "mala:engine",
            REVERSIBLE,
            "A Langevin step with a Metropolis test.",
            "Roberts & Tweedie 1996, doi:10.2307/3318418",
        ),
        _spec(
            "tamed",
            "tamed:engine",
            FIRST,
            "Langevin steps with a bounded drift, for tails that fall faster than a Gaussian's.",
            "Brosse, Durmus, Moulines & Sabanis 2019, arXiv:1710.05559",
        ),
    ]
