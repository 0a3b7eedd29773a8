"""Exact inference: models solved instead of sampled, and the rewrites that keep a posterior."""

from collections.abc import Sequence

from ppcore.contract import Density
from ppcore.hooks import EngineSpec, RewriteSpec, hookimpl


@hookimpl
def ppcore_engines() -> Sequence[EngineSpec]:
    """The engines that the plugin offers."""
    return [
        EngineSpec(
            "exact",
            "ppcore_exact.exact:Exact",
            contract=Density(),
            requires=("opt_einsum", "scipy"),
            summary="independent draws, marginals and evidence of models that can be solved",
            reference="Cho & Jacobs 2019, arXiv:1709.00322; Lauritzen & Spiegelhalter 1988",
        ),
        EngineSpec(
            "quadrature",
            "ppcore_exact.quadrature:Quadrature",
            contract=Density(),
            summary="integrates out what it can; a lattice over the one to three parameters left",
            reference="Trefethen & Weideman 2014, doi:10.1137/130932132",
        ),
    ]


@hookimpl
def ppcore_rewrites() -> Sequence[RewriteSpec]:
    """The rewrites of the core, listed as anybody's would be."""
    return [
        RewriteSpec(
            "simplify",
            "ppcore.rewrite.simplify:Simplify",
            order=10,
            summary="sites that inform nothing pruned, constants folded, equal boxes shared",
        ),
        RewriteSpec(
            "sufficient_statistics",
            "ppcore.rewrite.sufficient_statistics:SufficientStatistics",
            order=20,
            summary="observations with affine predictors reduced to triangles of their design",
            reference="Björck 1996, doi:10.1137/1.9781611971484",
        ),
        RewriteSpec(
            "collapse_conjugate",
            "ppcore.rewrite.collapse_conjugate:CollapseConjugate",
            order=25,
            summary="beta, gamma and Dirichlet sites are integrated out",
            reference="Raiffa & Schlaifer 1961, chapter 3",
        ),
        RewriteSpec(
            "markov_recursion",
            "ppcore.rewrite.markov_recursion:MarkovRecursion",
            order=28,
            summary="latent paths of linear-Gaussian scans are integrated out by recursion",
            reference="Kalman 1960, doi:10.1115/1.3662552; Durbin & Koopman 2002, "
            "doi:10.1093/biomet/89.3.603",
        ),
        RewriteSpec(
            "collapse",
            "ppcore.rewrite.collapse:Collapse",
            order=30,
            summary="coefficients and group effects with normal priors are integrated out",
            reference="Lindley & Smith 1972, doi:10.1111/j.2517-6161.1972.tb00885.x",
        ),
        RewriteSpec(
            "repeated_rows",
            "ppcore.rewrite.repeated_rows:RepeatedRows",
            order=35,
            summary="observations with equal parameters are gathered",
            reference="Fisher 1934, doi:10.1098/rspa.1934.0050",
        ),
        RewriteSpec(
            "residuals",
            "ppcore.rewrite.residuals:Residuals",
            order=38,
            summary="normal observations with one scale enter by their sum of squares",
        ),
        RewriteSpec(
            "orthogonalise",
            "ppcore.rewrite.orthogonalise:Orthogonalise",
            order=60,
            summary="coefficients of correlated columns get orthonormal columns",
        ),
        RewriteSpec(
            "standardise",
            "ppcore.rewrite.standardise:Standardise",
            order=60,
            summary="coordinates in units of priors, predictors and outcomes",
        ),
        RewriteSpec(
            "reparameterise",
            "ppcore.rewrite.reparameterise:Reparameterise",
            order=70,
            summary="hierarchical sites centred, non-centred or in between, by a pilot",
            reference="Papaspiliopoulos, Roberts & Sköld 2007, doi:10.1214/088342307000000014",
        ),
    ]
