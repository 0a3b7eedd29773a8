"""Gibbs for finite sites of a model: exact draws given everything else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.chains import KernelEngine
from ppcore.compose import CONTINUOUS, FINITE, Blocks, Restricted
from ppcore.contract import Contract, Invariant
from ppcore.errors import CompositionError, SettingsError, did_you_mean
from ppcore.labelled_target import LabelledTarget
from ppcore.semantics.mixed import NotSummable
from ppcore_mcmc.no_u_turn import NoUTurn

BY = ("auto", "site", "element")


class Position(NamedTuple):
    """Where the chain is: ``x`` float[m]; a Gibbs kernel keeps no caches."""

    x: Any


@dataclass(frozen=True)
class GibbsFinite:
    """Each finite site in turn, drawn from its conditional p(k_s | all other sites, data).

    By site, all elements of a site are drawn at once: given the other sites its conditional is a
    product of tables over its Markov blanket in the diagram, summed exactly. By element, one after
    another: p(k_i = v | rest) ∝ the densities of its blanket at each v. Either leaves γ invariant,
    tempered targets included.

    Parameters
    ----------
    by : str
        "site", "element", or "auto": by site where the tables stay small, else by element.

    Raises
    ------
    ppcore.errors.SettingsError
        If ``by`` is not known.
    ppcore.errors.CompositionError
        If the target keeps no finite sites, or is asked to move a continuous one.
    ppcore.semantics.mixed.NotSummable
        If ``by="site"`` and the elements of a site hang together too much.

    Source: Geman & Geman 1984, doi:10.1109/TPAMI.1984.4767596; Jensen, Kjærulff & Kong 1995
    (blocks), doi:10.1006/ijhc.1995.1029.

    >>> GibbsFinite().contract
    Invariant(reversible=False, irreducible=False)
    """

    by: str = "auto"
    contract: ClassVar[Contract] = Invariant(reversible=False, irreducible=False)
    needs: ClassVar[tuple[str, ...]] = ()
    keeps_finite: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise SettingsError(f"by={self.by!r} is not known. {did_you_mean(str(self.by), BY)}")

    def check_target(self, target: Any) -> None:
        """Raise :class:`ppcore.errors.CompositionError` unless ``target`` has only finite sites."""
        whole, _, names = located(target, None)
        if not isinstance(whole, LabelledTarget) or not names:
            raise CompositionError(
                "GibbsFinite draws the finite sites of a model, and this target keeps none: they "
                "were summed out, or there are none. Run it through infer, or on "
                "LabelledTarget(model.target())."
            )
        for name in names:
            if name not in whole.finite_sites:
                raise CompositionError(
                    f"GibbsFinite cannot draw the continuous site {name!r}. Give that one to "
                    "another kernel: Blocks({" + repr(name) + ": ..., FINITE: GibbsFinite()})."
                )

    def init(self, key: Any, target: Any, x: Any, params: Any) -> Position:
        return Position(x)

    def refresh(self, target: Any, state: Position) -> Position:
        return state

    def step(
        self, key: Any, target: Any, state: Position, params: Any
    ) -> tuple[Position, dict[str, Any]]:
        whole, x, names = located(target, state.x)
        for name, k in zip(names, random.split(key, len(names)), strict=True):
            x = self._draw(k, whole, x, name)
        return Position(x if whole is target else x[jnp.asarray(target.where)]), {}

    def _draw(self, key: Any, target: LabelledTarget, x: Any, site: str) -> Any:
        enumerated = isinstance(key, random.Script)
        if self.by == "element" or (self.by == "auto" and enumerated):
            return by_element(key, target, x, site)
        try:
            return target.draw_site(key, x, site)
        except NotSummable:
            if self.by == "site":
                raise
            return by_element(key, target, x, site)


def by_element(key: Any, target: LabelledTarget, x: Any, site: str) -> Any:
    """x with the elements of ``site`` drawn one after another from their conditionals."""
    values = jnp.asarray(target.domain(site), x.dtype)
    at = target.site_slices[site]

    def update(k: Any, x: Any, i: Any) -> tuple[Any, Any]:
        log_p = jax.vmap(lambda v: target.blanket_density(x.at[i].set(v), site))(values)
        return x.at[i].set(values[random.categorical(k, log_p)]), ()

    return random.scan(update, key, x, jnp.arange(at.start, at.stop), at.stop - at.start)[0]


def located(target: Any, x: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """The model's target, the whole position, and the sites to move, from inside of blocks."""
    if not isinstance(target, Restricted):
        return target, x, tuple(getattr(target, "finite_sites", ()))
    return target.whole, None if x is None else target.at(x), target.names


def nuts_gibbs(
    target_accept: float = 0.8,
    max_tree_depth: int = 8,
    warmup_draws: int = 320,
    max_warmup_draws: int = 1280,
    metric: str = "auto",
    most_thin: int | None = None,
) -> KernelEngine:
    """NUTS on the continuous sites and Gibbs on the finite ones, in turn, as an engine.

    For models whose finite sites cannot be summed out, or whose labels are wanted as chains. Where
    they can be, "nuts" and "ensemble" sum them out, and mix faster.

    Parameters
    ----------
    target_accept : float
        Mean acceptance probability to tune the step size of NUTS for.
    max_tree_depth : int
        At most 2^max_tree_depth − 1 leapfrog steps a transition.
    warmup_draws, max_warmup_draws : int
        Draws per chain to adapt with, and the most until the chains have settled.
    metric : str
        "auto", "dense", "low_rank" or "diagonal".
    most_thin : int, optional
        The most transitions that may make one draw; by default 48.

    >>> nuts_gibbs().kernel.sites
    ('<continuous>', '<finite>')
    """
    kernel = Blocks({CONTINUOUS: NoUTurn(max_tree_depth), FINITE: GibbsFinite()})
    return KernelEngine(
        kernel,
        warmup_draws,
        max_warmup_draws,
        target_accept,
        metric=metric,
        most_thin=most_thin,
    )
