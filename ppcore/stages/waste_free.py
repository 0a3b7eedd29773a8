"""Waste-free moves: every state of a few long chains is a particle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from ppcore import contract as rules
from ppcore import random
from ppcore.contract import Contract, ProperlyWeighted
from ppcore.errors import SettingsError
from ppcore.kernel import check_kernel, needs
from ppcore.paths import Path
from ppcore.population import Population
from ppcore.settings import check_count
from ppcore.stages.base import Stage
from ppcore.stages.resampling import SCHEMES, check_scheme


@dataclass(frozen=True)
class WasteFree(Stage):
    """Resample M = N/length ancestors, move each ``length`` − 1 times, keep all N states.

    E[Σ_i f(x_i)/N] = Σ W f for f ∈ L¹(γ_b), since each of the states has an ancestor's law moved
    by a kernel that leaves γ_b invariant; so log_z stays and weights are equal after.

    Parameters
    ----------
    kernel : Kernel
    length : int
        States of each chain, its ancestor included; must divide N.
    params : pytree
        The kernel's parameters.
    scheme : str
        How ancestors are drawn; see :class:`ppcore.stages.resampling.Resample`.

    Source: Dau & Chopin 2022, arXiv:2011.02328.
    """

    kernel: Any
    length: int
    params: Any = ()
    scheme: str = "systematic"

    def __post_init__(self) -> None:
        check_kernel(self.kernel, "WasteFree")
        check_count("length", self.length, 2)
        check_scheme(self.scheme)
        rules.stages(self.kernel.contract)

    @property
    def needs(self) -> tuple[str, ...]:
        return needs(self.kernel)

    @property
    def contract(self) -> Contract:
        return rules.stages(ProperlyWeighted(), self.kernel.contract)

    def along(self, key: Any, path: Path, at: Any, population: Population) -> Population:
        k_resample, k_move = random.split(key)
        chains = chain_count(population.size, self.length)
        index = SCHEMES[self.scheme](k_resample, population.weights, chains)
        law = path.at(at)
        x = random.each(
            lambda k, x: trail(k, self.kernel, law, x, self.params, self.length)[0],
            k_move,
            population.x[index],
        )
        x = x.reshape(population.x.shape)
        return Population(x, jnp.zeros_like(population.log_weight), population.log_z)


def chain_count(n: int, length: int) -> int:
    """M = n / length.

    Raises :class:`ppcore.errors.SettingsError` unless ``length`` divides ``n``.

    >>> chain_count(100, 20)
    5
    """
    if n % length:
        raise SettingsError(
            f"A waste-free population of {n} particles cannot be made of chains of {length}: use "
            f"{max(1, n // length) * length} or {(n // length + 1) * length} particles."
        )
    return n // length


def trail(key: Any, kernel: Any, law: Any, x: Any, params: Any, length: int) -> tuple[Any, Any]:
    """x and the ``length`` − 1 states after it, float[length, d], and the gradients spent."""
    k_init, k_steps = random.split(key)
    state = kernel.init(k_init, law, x, params)

    def move(k: Any, state: Any, _: Any) -> tuple[Any, Any]:
        state, info = kernel.step(k, law, state, params)
        return state, (state.x, info.get("n_gradients", 1) * jnp.ones(()))

    _, (states, spent) = random.scan(move, k_steps, state, jnp.zeros(length - 1), length - 1)
    return jnp.concatenate([x[None], states]), spent.sum()
