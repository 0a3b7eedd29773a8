"""Normalizing flows for ppcore: as importance proposals, in chains, and as preconditioners."""

from __future__ import annotations

from ppcore.contract import Contract, Invariant, ProperlyWeighted
from ppcore.registry import EngineSpec, hookimpl

REVERSIBLE = Invariant(reversible=True)
WEIGHTED = ProperlyWeighted()


def _spec(
    name: str,
    load: str,
    contract: Contract,
    summary: str,
    reference: str,
    requires: tuple[str, ...] = ("jax", "flowjax", "equinox", "optax"),
) -> EngineSpec:
    return EngineSpec(
        name,
        f"ppcore_flows.{load}",
        contract=contract,
        requires=requires,
        extra="flows",
        needs=("gradient",),
        summary=summary,
        reference=reference,
    )


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [
        _spec(
            "flow",
            "flow:FlowImportance",
            WEIGHTED,
            "A flow trained from the modes that climbs find, its draws weighed; evidence.",
            "Rezende & Mohamed 2015, arXiv:1505.05770",
        ),
        _spec(
            "flow_mcmc",
            "flow_mcmc:FlowMCMC",
            REVERSIBLE,
            "Chains that mix proposals from a trained flow with local moves.",
            "Gabrié, Rotskoff & Vanden-Eijnden 2022, arXiv:2105.12603",
        ),
        _spec(
            "neutra",
            "neutra:NeuTra",
            REVERSIBLE,
            "HMC in the coordinates in which a trained flow makes the target a Gaussian.",
            "Hoffman et al. 2019, arXiv:1903.03704",
        ),
        _spec(
            "mean_field",
            "variational:mean_field",
            WEIGHTED,
            "The best Gaussian with a diagonal covariance, its draws weighed; evidence.",
            "Kucukelbir et al. 2017, arXiv:1603.00788",
        ),
        _spec(
            "low_rank_gaussian",
            "variational:low_rank_gaussian",
            WEIGHTED,
            "The best Gaussian that is diagonal but for a few directions, weighed; evidence.",
            "Ong, Nott & Smith 2018, arXiv:1701.03208",
        ),
        _spec(
            "full_rank",
            "variational:full_rank",
            WEIGHTED,
            "The best Gaussian with any covariance, its draws weighed; evidence.",
            "Kucukelbir et al. 2017, arXiv:1603.00788",
        ),
        _spec(
            "boosted",
            "boosted:Boosted",
            WEIGHTED,
            "A mixture of Gaussians that grows where its weights are largest, weighed; evidence.",
            "Miller, Foti & Adams 2017, arXiv:1611.06585",
        ),
        _spec(
            "laplace",
            "laplace:Laplace",
            WEIGHTED,
            "Gaussians at all modes that climbs find, their draws weighed; evidence.",
            "Tierney & Kadane 1986, doi:10.1080/01621459.1986.10478240",
        ),
        _spec(
            "pathfinder",
            "pathfinder:Pathfinder",
            WEIGHTED,
            "The best Gaussians along quasi-Newton climbs, their draws weighed; evidence.",
            "Zhang, Carpenter, Gelman & Vehtari 2022, arXiv:2108.03782",
        ),
        _spec(
            "craft",
            "craft:Craft",
            WEIGHTED,
            "SMC with a trained map before each weighing, then frozen; unbiased evidence.",
            "Matthews, Arbel, Rezende & Doucet 2022, arXiv:2201.13117",
        ),
        _spec(
            "aft",
            "aft:AFT",
            WEIGHTED,
            "As craft, with the map of one temperature trained after the other.",
            "Arbel, Matthews & Doucet 2021, arXiv:2102.07501",
        ),
        _spec(
            "snf",
            "snf:SNF",
            WEIGHTED,
            "Maps and Langevin steps in turn, trained as one; weights of whole paths.",
            "Wu, Köhler & Noé 2020, arXiv:2002.06707",
        ),
        _spec(
            "mixflow",
            "mixflow:MixFlowImportance",
            WEIGHTED,
            "The average of a law along a map that nearly preserves the target, weighed.",
            "Xu, Chen & Campbell 2022, arXiv:2205.07475",
        ),
    ]
