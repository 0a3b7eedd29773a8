"""Langevin engines for ppcore: discretised diffusions, corrected or with a declared bias."""

from __future__ import annotations

from ppcore.contract import Biased, Contract, Invariant, ProperlyWeighted
from ppcore.registry import EngineSpec, hookimpl

REVERSIBLE = Invariant(reversible=True)
FIRST, SECOND = Biased(order=1), Biased(order=2)
WEIGHTED = ProperlyWeighted()


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
        _spec(
            "mirror_langevin",
            "mirror:engine",
            REVERSIBLE,
            "Langevin steps in the metric of the mirror map of constrained sites, with a test.",
            "Hsieh et al. 2018, arXiv:1802.10174; Srinivasan et al. 2023, arXiv:2312.08823",
        ),
        _spec(
            "proximal_langevin",
            "proximal:engine",
            REVERSIBLE,
            "Langevin steps down the Moreau envelope of Laplace priors and other kinks, tested.",
            "Pereyra 2016, arXiv:1306.0187; Durmus et al. 2018, arXiv:1612.07471",
        ),
        _spec(
            "riemannian_mala",
            "riemannian:engine",
            REVERSIBLE,
            "Langevin steps scaled by the local curvature (softabs), with a test; small d.",
            "Girolami & Calderhead 2011, doi:10.1111/j.1467-9868.2010.00765.x",
        ),
        _spec(
            "baoab",
            "underdamped:engine",
            SECOND,
            "Underdamped Langevin, the splitting that is exact for Gaussians; no test.",
            "Leimkuhler & Matthews 2013, doi:10.1093/amrx/abs010",
        ),
        _spec(
            "obabo",
            "underdamped:obabo_engine",
            SECOND,
            "Underdamped Langevin, leapfrog between two refreshments; no test.",
            "Bussi & Parrinello 2007, arXiv:0803.4083",
        ),
        _spec(
            "ghmc",
            "ghmc:engine",
            Invariant(reversible=False),
            "One leapfrog step at a time with a persistent momentum and a sliding threshold.",
            "Horowitz 1991; Neal 2020, arXiv:2001.11950",
        ),
        _spec(
            "randomized_midpoint",
            "randomized_midpoint:engine",
            SECOND,
            "Langevin steps with the drift at a random time of the step.",
            "Shen & Lee 2019, arXiv:1909.05503; He et al. 2020, arXiv:2011.03176",
        ),
        _spec(
            "kinetic_midpoint",
            "randomized_midpoint:kinetic_engine",
            SECOND,
            "Underdamped Langevin with the force at a random time of the step.",
            "Shen & Lee 2019, arXiv:1909.05503",
        ),
        _spec(
            "mean_field_langevin",
            "mean_field:MeanField",
            SECOND,
            "N underdamped particles, which may push each other.",
            "Fu & Wilson 2023, arXiv:2312.16360",
        ),
        _spec(
            "in_and_out",
            "in_and_out:engine",
            REVERSIBLE,
            "The proximal sampler: a Gaussian step out, back by the restricted oracle.",
            "Lee, Shen & Tian 2021, arXiv:2010.03106; Kook et al. 2024, arXiv:2405.01425",
        ),
        _spec(
            "hit_and_run",
            "hit_and_run:engine",
            REVERSIBLE,
            "A random line and a slice of the density on it; no gradient.",
            "Smith 1984, doi:10.1287/opre.32.6.1296; Lovász & Vempala 2006",
            (),
        ),
        _spec(
            "svgd",
            "svgd:SVGD",
            WEIGHTED,
            "Stein variational gradient descent, with weights that make it exact.",
            "Liu & Wang 2016, arXiv:1608.04471; Han & Liu 2017, arXiv:1704.05201",
            ("gradient", "reference"),
        ),
        _spec(
            "sgld",
            "sgld:engine",
            FIRST,
            "Langevin steps with gradients from minibatches of a plate.",
            "Welling & Teh 2011; Vollmer et al. 2016, arXiv:1501.00438",
        ),
        _spec(
            "sghmc",
            "sghmc:engine",
            FIRST,
            "Underdamped Langevin with gradients from minibatches of a plate.",
            "Chen, Fox & Guestrin 2014, arXiv:1402.4102",
        ),
        _spec(
            "walk_jump",
            "walk_jump:WalkJump",
            WEIGHTED,
            "Noisy measurements gathered one by one by walks, then a jump; weighted.",
            "Saremi, Park & Bach 2023, arXiv:2305.19473",
            ("gradient", "reference"),
        ),
        _spec(
            "reverse_diffusion",
            "reverse_diffusion:ReverseDiffusion",
            WEIGHTED,
            "Noise carried back by a diffusion whose score is estimated on the way; weighted.",
            "Huang et al. 2023, arXiv:2307.02037",
            ("gradient", "reference"),
        ),
    ]
