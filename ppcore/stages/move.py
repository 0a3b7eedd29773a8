"""Moves: Markov kernels that leave the law of a population as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ppcore import contract as rules
from ppcore import random
from ppcore.contract import Contract
from ppcore.kernel import check_kernel, needs
from ppcore.paths import Path, apply
from ppcore.population import Population
from ppcore.settings import check_count
from ppcore.stages.base import Stage


@dataclass(frozen=True)
class Move(Stage):
    """``steps`` transitions of every particle by a kernel that leaves γ_b invariant.

    Weights and log_z stay: E[Ẑ Σ W f(x′)] = Ẑ Σ W (Kf)(x) has the same mean, since γ_b K = γ_b.

    Parameters
    ----------
    kernel : Kernel
    steps : int
    params : pytree
        The kernel's parameters.

    Raises
    ------
    CompositionError
        When built: for what is no kernel, and for a biased one.

    Source: Gilks & Berzuini 2001, doi:10.1111/1467-9868.00280.
    """

    kernel: Any
    steps: int = 1
    params: Any = ()

    def __post_init__(self) -> None:
        check_kernel(self.kernel, "Move")
        check_count("steps", self.steps, 1)
        rules.stages(self.kernel.contract)

    @property
    def needs(self) -> tuple[str, ...]:
        return needs(self.kernel)

    @property
    def contract(self) -> Contract:
        found: Contract = self.kernel.contract
        return found

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        law = path.at(at)
        x = random.each(
            lambda k, x: apply(k, self.kernel, law, x, self.params, self.steps)[0],
            key,
            population.x,
        )
        return Population(x, population.log_weight, population.log_z)
