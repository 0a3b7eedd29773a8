"""Markov chain Monte Carlo engines for ppcore: NUTS, and many chains of HMC in lockstep."""

from __future__ import annotations

from ppcore.contract import Biased, Consistent, Invariant
from ppcore.registry import EngineSpec, hookimpl


@hookimpl
def ppcore_engines() -> list[EngineSpec]:
    """The engines of this plugin, as listed by ``ppcore engines``."""
    return [
        EngineSpec(
            "ensemble",
            "ppcore_mcmc.ensemble:Ensemble",
            contract=Invariant(reversible=True),
            requires=("jax",),
            needs=("gradient",),
            summary="Many chains of jittered HMC in lockstep, tuned together; the default.",
            reference="Duane et al. 1987; Hoffman, Radul & Sountsov 2021 (AISTATS)",
        ),
        EngineSpec(
            "nuts",
            "ppcore_mcmc.nuts:NUTS",
            contract=Invariant(reversible=False),
            requires=("jax",),
            needs=("gradient",),
            summary="The no-U-turn sampler: multinomial, generalised U-turns, a few long chains.",
            reference="Hoffman & Gelman 2014, arXiv:1111.4246; Betancourt 2017, arXiv:1701.02434",
        ),
        EngineSpec(
            "random_walk",
            "ppcore_mcmc.random_walk:random_walk",
            contract=Invariant(reversible=True),
            requires=("jax",),
            summary="Random-walk Metropolis, preconditioned; no gradient.",
            reference="Metropolis et al. 1953; Roberts, Gelman & Gilks 1997",
        ),
        EngineSpec(
            "slice",
            "ppcore_mcmc.slice:slice_sampler",
            contract=Invariant(reversible=True),
            requires=("jax",),
            summary="Slice sampling along random directions; no gradient, no step to tune.",
            reference="Neal 2003, doi:10.1214/aos/1056562461",
        ),
        EngineSpec(
            "elliptical_slice",
            "ppcore_mcmc.fitted:elliptical_slice",
            contract=Invariant(reversible=True),
            requires=("jax",),
            summary="Slice sampling on ellipses around a fitted Student-t; no gradient.",
            reference="Murray, Adams & MacKay 2010, arXiv:1001.0175; Nishihara et al. 2014",
        ),
        EngineSpec(
            "independence",
            "ppcore_mcmc.fitted:independence",
            contract=Invariant(reversible=True),
            requires=("jax",),
            summary="Independence Metropolis from a fitted Student-t, or any normalised density.",
            reference="Hastings 1970; Tierney 1994, doi:10.1214/aos/1176325750",
        ),
        EngineSpec(
            "barker",
            "ppcore_mcmc.barker:barker",
            contract=Invariant(reversible=True),
            requires=("jax",),
            needs=("gradient",),
            summary="The Barker proposal: gradient-informed signs, robust to the step size.",
            reference="Livingstone & Zanella 2022, arXiv:1908.11812",
        ),
        EngineSpec(
            "hmc",
            "ppcore_mcmc.hmc:hmc",
            contract=Invariant(reversible=True),
            requires=("jax",),
            needs=("gradient",),
            summary="Hamiltonian Monte Carlo, step and length jittered chain by chain.",
            reference="Duane et al. 1987; Neal 2011, arXiv:1206.1901",
        ),
        EngineSpec(
            "stretch",
            "ppcore_mcmc.stretch:Stretch",
            contract=Invariant(reversible=False),
            requires=("jax",),
            summary="Walkers that move along lines through one another; affine invariant.",
            reference="Goodman & Weare 2010, doi:10.2140/camcos.2010.5.65",
        ),
        EngineSpec(
            "self_repellent",
            "ppcore_mcmc.self_repellent:SelfRepellent",
            contract=Consistent(),
            requires=("jax",),
            summary="A walk on a finite graph that avoids where it has been.",
            reference="Doshi, Hu & Eun 2023, arXiv:2305.05097",
        ),
        EngineSpec(
            "chees",
            "ppcore_mcmc.chees:ChEES",
            contract=Invariant(reversible=True),
            requires=("jax",),
            needs=("gradient",),
            summary="Many chains of HMC whose length climbs the change in expected squares.",
            reference="Hoffman, Radul & Sountsov 2021 (AISTATS)",
        ),
        EngineSpec(
            "meads",
            "ppcore_mcmc.meads:MEADS",
            contract=Invariant(reversible=False),
            requires=("jax",),
            needs=("gradient",),
            summary="Many chains of generalised HMC, tuned by other folds' eigenvalues.",
            reference="Hoffman & Sountsov 2022 (AISTATS); Neal 2020, arXiv:2001.11950",
        ),
        EngineSpec(
            "mams",
            "ppcore_mcmc.mams:MAMS",
            contract=Invariant(reversible=True),
            requires=("jax",),
            needs=("gradient",),
            summary="Microcanonical dynamics with a Metropolis test, many chains in lockstep.",
            reference="Robnik, Cohn-Gordon & Seljak 2025, arXiv:2503.01707",
        ),
        EngineSpec(
            "mclmc",
            "ppcore_mcmc.mclmc:MCLMC",
            contract=Biased(order=2),
            requires=("jax",),
            needs=("gradient",),
            summary="Microcanonical Langevin without a test: cheap, and biased by O(step_size^2).",
            reference="Robnik & Seljak 2023, arXiv:2303.18221",
        ),
        EngineSpec(
            "late_adjusted",
            "ppcore_mcmc.late_adjusted:LateAdjusted",
            contract=Invariant(reversible=True),
            requires=("jax",),
            needs=("gradient",),
            summary="Many chains that warm up unadjusted and draw adjusted, microcanonical.",
            reference="Robnik & Seljak 2026, arXiv:2601.16696",
        ),
    ]
