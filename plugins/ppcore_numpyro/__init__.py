"""NumPyro for ppcore: its models as ppcore's, and ppcore's models as its."""

from __future__ import annotations

from ppcore.contract import Consistent, Contract, Invariant, ProperlyWeighted
from ppcore.registry import EngineSpec, FrontendSpec, hookimpl


def _spec(
    name: str, load: str, contract: Contract, summary: str, reference: str, *needs: str
) -> EngineSpec:
    return EngineSpec(
        f"numpyro_{name}",
        f"ppcore_numpyro.{load}",
        contract=contract,
        requires=("jax", "numpyro"),
        needs=needs,
        summary=summary,
        reference=reference,
    )


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """NumPyro's own engines, on any target."""
    return [
        _spec(
            "nuts",
            "walk:NumPyroNUTS",
            Invariant(),
            "NumPyro's NUTS and warm-up, chains side by side.",
            "Hoffman & Gelman 2014, arXiv:1111.4246",
            "gradient",
        ),
        _spec(
            "sa",
            "walk:NumPyroSA",
            Consistent(),
            "NumPyro's sample adaptive MCMC; no gradient.",
            "Zhu 2019, NeurIPS 32",
        ),
        _spec(
            "aies",
            "ensembles:NumPyroAIES",
            Invariant(),
            "NumPyro's affine-invariant ensemble of walkers; no gradient.",
            "Goodman & Weare 2010, doi:10.2140/camcos.2010.5.65",
        ),
        _spec(
            "ess",
            "ensembles:NumPyroESS",
            Invariant(),
            "NumPyro's ensemble slice sampler; no gradient, no rejection.",
            "Karamanis & Beutler 2021, arXiv:2002.06212",
        ),
        _spec(
            "svi",
            "svi:NumPyroSVI",
            ProperlyWeighted(),
            "NumPyro's automatic guides trained by its SVI, their draws weighed; evidence.",
            "Kucukelbir et al. 2017, arXiv:1603.00788; Phan et al. 2019, arXiv:1912.11554",
            "gradient",
        ),
    ]


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
