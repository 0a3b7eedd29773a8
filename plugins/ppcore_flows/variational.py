"""Gaussian variational families as importance proposals: mean-field, low-rank, full-rank."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, Density, importance
from ppcore.engine import Populated, Report
from ppcore.errors import SettingsError, did_you_mean
from ppcore.paths import Between
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore_flows.bases import Gaussian
from ppcore_flows.bures_wasserstein import forward_backward
from ppcore_flows.density import Flow
from ppcore_flows.flow import defended, drawn
from ppcore_flows.learned import Learned
from ppcore_flows.linear import Row, Whiten, diagonal, low_rank, lower_triangular
from ppcore_flows.losses import chi_square, importance_kl, reverse_kl
from ppcore_flows.start import Found, explore
from ppcore_flows.training import Training, require_smooth, train

FAMILIES = ("mean_field", "low_rank", "full_rank")
LOSSES = {"reverse_kl": reverse_kl, "chi_square": chi_square, "forward_kl": importance_kl}
RATES = {"adam": 2e-2, "bures_wasserstein": 0.5}


@dataclass(frozen=True)
class Variational:
    """N(m, F Fᵀ) that makes E_q[log q − log γ] small, then x ~ q with weights γ/q; E[Ẑ] = Z.

    F is diagonal ("mean_field"), diag(s)(I + A Bᵀ) with A and B of ``rank`` columns ("low_rank") or
    lower triangular ("full_rank"). Trained by path gradients from the scales that climbs to the
    modes suggest, so that in a Gaussian target the gradient has no noise at the optimum. One mode
    only; reverse KL leaves out tails, which k̂ and the defended weights show. The other losses
    weigh draws of q and cover the tails, in a few dimensions.

    Parameters
    ----------
    family : str
        "mean_field", "low_rank" or "full_rank".
    rank : int
        r of the low-rank family.
    steps, batch, rate, anneal
        See :class:`ppcore_flows.training.Training`; the rate is by default 0.02, or 0.5 for
        "bures_wasserstein".
    defence : float
        Share of draws from a wide Student-t that keeps the weights bounded; 0 for none.
    loss : str
        "reverse_kl", "chi_square" (the variance of the weights) or "forward_kl" (both by weighted
        draws of q).
    optimiser : str
        "adam", or "bures_wasserstein" (:mod:`ppcore_flows.bures_wasserstein`) for "full_rank" with
        "reverse_kl".

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown, or the optimiser does not fit.

    Source: Kucukelbir et al. 2017, arXiv:1603.00788; Ong, Nott & Smith 2018, arXiv:1701.03208;
    Roeder, Wu & Duvenaud 2017, arXiv:1703.09194 (path gradients).

    >>> Variational("full_rank").contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    family: str = "full_rank"
    rank: int = 4
    steps: int = 500
    batch: int = 64
    rate: float | None = None
    anneal: float = 0.2
    defence: float = 0.05
    loss: str = "reverse_kl"
    optimiser: str = "adam"
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            hint = did_you_mean(self.family, FAMILIES)
            raise SettingsError(f"family={self.family!r} is not known. {hint}")
        for name, value, known in (
            ("loss", self.loss, LOSSES),
            ("optimiser", self.optimiser, RATES),
        ):
            if value not in known:
                raise SettingsError(f"{name}={value!r} is not known. {did_you_mean(value, known)}")
        fits = (self.family, self.loss) == ("full_rank", "reverse_kl")
        if self.optimiser == "bures_wasserstein" and not fits:
            raise SettingsError(
                "optimiser='bures_wasserstein' moves a Gaussian with any covariance by reverse KL: "
                "it needs full_rank and loss='reverse_kl'. Use optimiser='adam' for the others."
            )
        check_count("rank", self.rank, 1)
        check_between("defence", self.defence, -1e-9, 1)
        _ = self.training

    @property
    def training(self) -> Training:
        """How it is trained."""
        rate = RATES[self.optimiser] if self.rate is None else self.rate
        return Training(self.steps, self.batch, rate, self.anneal)

    @property
    def contract(self) -> Contract:
        return importance(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises :class:`ppcore.errors.UnsupportedError` for a target without gradient,
        :class:`ppcore.errors.StartError` if no start with a finite log density is found, and
        :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        require_smooth(target, self.family)
        k_explore, k_map, k_train, k_guard, k_draw = spawned(key, 5)
        found = best(explore(k_explore, target))
        flow = self.beginning(k_map, found)
        law, plan = Between(flow, target), self.training
        if self.optimiser == "bures_wasserstein":
            made = forward_backward(k_train, flow, target, plan, report)
        else:
            loss = LOSSES[self.loss]
            made = train(k_train, flow, law, loss, plan, report, plan.batch, annealed=True)
        spent = made.evaluations + found.gradients
        made = replace(made, evaluations=spent, notes=(*found.notes, *made.notes))
        proposal = defended(k_guard, made.density, self.defence)
        return drawn(k_draw, proposal, made, target, n, report)

    @property
    def stage(self) -> Any:
        """A short training, and the same weights; see ``learned.Learned``."""
        return Learned(self)

    def beginning(self, key: Any, found: Found) -> Flow:
        """The Gaussian before training, of the family: scales as found."""
        dtype = jnp.result_type(float)
        axes = found.whitening(dtype)
        if self.family != "full_rank":
            # Precisions, not variances: what a mean-field Gaussian has of a correlated one.
            precision = np.linalg.inv(found.moments()[1])
            scale = np.diag(np.diag(precision) ** -0.5)
            axes = Whiten(axes.shift, jnp.asarray(scale, dtype))
        return self.around(key, axes)

    def around(self, key: Any, axes: Whiten) -> Flow:
        """The Gaussian before training, about fixed axes."""
        dtype, dim = axes.shift.dtype, axes.dim
        if self.family == "full_rank":
            inner: Any = lower_triangular(dim, dtype)
        elif self.family == "low_rank":
            inner = low_rank(key, dim, min(self.rank, dim), dtype)
        else:
            inner = diagonal(dim, dtype)
        return Flow(Gaussian(dim), Row((inner, axes)))


def best(found: Found) -> Found:
    """The one Gaussian with the largest Laplace evidence."""
    k = int(np.argmax(found.log_weights))
    one = slice(k, k + 1)
    return replace(
        found,
        log_weights=found.log_weights[one],
        means=found.means[one],
        factors=found.factors[one],
    )


def mean_field(
    steps: int = 500,
    batch: int = 64,
    rate: float | None = None,
    anneal: float = 0.2,
    defence: float = 0.05,
    loss: str = "reverse_kl",
) -> Variational:
    """:class:`Variational` with a diagonal covariance.

    >>> mean_field().family
    'mean_field'
    """
    return Variational("mean_field", 1, steps, batch, rate, anneal, defence, loss)


def low_rank_gaussian(
    rank: int = 4,
    steps: int = 500,
    batch: int = 64,
    rate: float | None = None,
    anneal: float = 0.2,
    defence: float = 0.05,
    loss: str = "reverse_kl",
) -> Variational:
    """:class:`Variational` with a diagonal covariance but for ``rank`` learned directions."""
    return Variational("low_rank", rank, steps, batch, rate, anneal, defence, loss)


def full_rank(
    steps: int = 500,
    batch: int = 64,
    rate: float | None = None,
    anneal: float = 0.2,
    defence: float = 0.05,
    loss: str = "reverse_kl",
    optimiser: str = "adam",
) -> Variational:
    """:class:`Variational` with any covariance."""
    return Variational("full_rank", 1, steps, batch, rate, anneal, defence, loss, optimiser)
