"""Exact inference: finite, linear-Gaussian and conjugate models solved instead of sampled."""

from collections.abc import Sequence

from ppcore.contract import Density
from ppcore.hooks import EngineSpec, hookimpl


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
        )
    ]
