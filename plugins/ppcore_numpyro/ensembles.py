"""NumPyro's ensembles of walkers as engines: affine-invariant moves, and slices along them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from ppcore.contract import Contract, Invariant
from ppcore.errors import SettingsError, did_you_mean
from ppcore.settings import check_count
from ppcore_numpyro.walk import Chains

STRETCH = ("stretch", "differential")
SLICE = ("differential", "gaussian", "random")


def _checked(move: str, known: tuple[str, ...]) -> None:
    if move not in known:
        raise SettingsError(f"move={move!r} is not known. {did_you_mean(str(move), known)}")


class _Ensemble(Chains):
    """Walkers in two halves, each of which moves along lines through the other."""

    coupled: ClassVar[bool] = True
    least_chains: ClassVar[int] = 4
    default_chains: ClassVar[int] = 64

    def enough(self, dim: int, chains: int) -> None:
        least = max(4, 2 * dim)
        least += least % 2
        if chains < least or chains % 2:
            raise SettingsError(
                f"chains={chains}: NumPyro's ensembles need an even number of walkers, at least "
                f"{least} in {dim} dimensions. Pass chains={least} or more."
            )


@dataclass(frozen=True)
class NumPyroAIES(_Ensemble):
    """NumPyro's affine-invariant ensemble: γ ⊗ … ⊗ γ (one factor a walker) is left invariant.

    A walker goes along the line to another of the other half ("stretch"), or by the difference of
    two of them ("differential"), and a Metropolis test decides. No gradient, nothing tuned. At
    least 2 d walkers; slow beyond some tens of dimensions.

    Parameters
    ----------
    move : str
        "stretch" or "differential".
    warmup_draws : int
        Iterations before the first draw is kept.

    Raises
    ------
    ppcore.errors.SettingsError
        If a setting is out of range.

    Source: Goodman & Weare 2010, doi:10.2140/camcos.2010.5.65; ter Braak & Vrugt 2008,
    doi:10.1007/s11222-008-9104-9.

    >>> NumPyroAIES(move="differential").contract
    Invariant(reversible=False, irreducible=True)
    """

    move: str = "stretch"
    warmup_draws: int = 1000
    contract: ClassVar[Contract] = Invariant()

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 1)
        _checked(self.move, STRETCH)

    def make(self, potential: Any, tuned: Any) -> Any:
        from numpyro.infer import AIES

        moves = {"stretch": AIES.StretchMove, "differential": AIES.DEMove}
        with jax.ensure_compile_time_eval():
            chosen = {moves[self.move](): 1.0}
            return AIES(potential_fn=potential, moves=chosen, randomize_split=True)


@dataclass(frozen=True)
class NumPyroESS(_Ensemble):
    """NumPyro's ensemble slice sampler: γ ⊗ … ⊗ γ (one factor a walker) is left invariant.

    A walker is drawn anew from the slice of γ along a direction that the other half gives: the
    difference of two walkers, a draw from their Gaussian, or any direction at random. The length μ
    of the first interval is tuned in the warm-up, and frozen. No rejection and no gradient; a
    transition costs several evaluations, as many as the slowest walker needs.

    Parameters
    ----------
    move : str
        "differential", "gaussian" or "random".
    warmup_draws : int

    Raises
    ------
    ppcore.errors.SettingsError
        If a setting is out of range.

    Source: Karamanis & Beutler 2021, arXiv:2002.06212.

    >>> NumPyroESS(warmup_draws=200).contract
    Invariant(reversible=False, irreducible=True)
    """

    move: str = "differential"
    warmup_draws: int = 500
    contract: ClassVar[Contract] = Invariant()

    def __post_init__(self) -> None:
        check_count("warmup_draws", self.warmup_draws, 1)
        _checked(self.move, SLICE)

    def make(self, potential: Any, tuned: Any) -> Any:
        from numpyro.infer import ESS

        moves = {
            "differential": ESS.DifferentialMove,
            "gaussian": ESS.GaussianMove,
            "random": ESS.RandomMove,
        }
        with jax.ensure_compile_time_eval():
            chosen = {moves[self.move](): 1.0}
            # An array, since it comes back as one from a compiled program.
            length = jnp.ones((), jnp.result_type(float))
            return ESS(potential_fn=potential, moves=chosen, init_mu=length, tune_mu=tuned is None)

    def frozen(self, state: Any) -> Any:
        return state.inner_state.mu

    def restored(self, state: Any, tuned: Any, x: Any) -> Any:
        return state._replace(inner_state=state.inner_state._replace(mu=tuned))
