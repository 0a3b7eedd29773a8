"""The named samplers: each a choice of F and B, and of a loss, on one engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ppcore.settings import check_between, check_count
from ppcore_diffusion import transitions, underdamped
from ppcore_diffusion.sampler import Sampler


@dataclass(frozen=True)
class CMCD(Sampler):
    """Controlled Monte Carlo diffusions: annealed Langevin with a learned drift, and its mirror.

    F(y | x) = N(x + τ s² ∇ log γ_b(x) + s√τ n(x), s² τ(2 − τ)),
    B(x | y) = N(y + τ s² ∇ log γ_b(y) − s√τ n(y), s² τ(2 − τ)), b in the middle of the step. With
    the right n the particles keep up with γ_b as it moves, and weights are constant; with n = 0 it
    is unadjusted annealed importance sampling. See :class:`ppcore_diffusion.sampler.Sampler` for
    the arguments.

    Source: Vargas, Padhy, Blessing & Nüsken 2024, arXiv:2307.01050.

    >>> CMCD(steps=16).loss
    'log_variance'
    """

    kind: ClassVar[Any] = transitions.CMCD
    name: ClassVar[str] = "cmcd"


@dataclass(frozen=True)
class MCD(Sampler):
    """Monte Carlo diffusion: annealed Langevin as it is, with a learned way back.

    F(y | x) = N(x + τ s² ∇ log γ_b(x), s² τ(2 − τ)); B(x | y) has the mean
    y + τ s² ∇ log γ_b(y) − s√τ n(y). Particles lag behind γ_b as in annealed importance sampling;
    only the weights get better.

    Source: Doucet, Grathwohl, Matthews & Strathmann 2022, arXiv:2208.07698.
    """

    kind: ClassVar[Any] = transitions.MCD
    name: ClassVar[str] = "mcd"


@dataclass(frozen=True)
class DBS(Sampler):
    """The general bridge: F and B each with a drift and a width of its own.

    F(y | x) = N(x + τ s² ∇ log γ_b(x) + s√τ n_F(x), s² τ(2 − τ) e^{2ω_F}), and B(x | y) from y in
    the same form with n_B and ω_B. The largest family, exact for Gaussian marginals with diagonal
    covariances at any number of steps; no unique optimum.

    Source: Richter & Berner 2024, arXiv:2307.01198.
    """

    kind: ClassVar[Any] = transitions.DBS
    name: ClassVar[str] = "dbs"


@dataclass(frozen=True)
class DDS(Sampler):
    """Denoising diffusion: the Ornstein–Uhlenbeck process run backwards.

    B(x | y) = N((1 − τ) y, τ(2 − τ)), F(y | x) = N((1 − τ) x + 2τ b (∇ log γ(x) + x) + 2√τ n(x),
    τ(2 − τ)): the learned score is relative to N(0, I), which the noise leaves invariant.

    Source: Vargas, Grathwohl & Doucet 2023, arXiv:2302.13834.
    """

    kind: ClassVar[Any] = transitions.DDS
    name: ClassVar[str] = "dds"


@dataclass(frozen=True)
class DIS(Sampler):
    """The time-reversed diffusion sampler: Euler steps of the reversed noising process.

    B(x | y) = N((1 − τ) y, 2τ), F(y | x) = N((1 + τ) x + 2τ ∇ log γ_b(x) + 2√τ n(x), 2τ): the
    learned score is the whole one, ∇ log γ_b to begin with.

    Source: Berner, Richter & Ullrich 2024, arXiv:2211.01364.
    """

    kind: ClassVar[Any] = transitions.DIS
    name: ClassVar[str] = "dis"


@dataclass(frozen=True)
class PIS(Sampler):
    """The path integral sampler: a Brownian motion from a point, steered to the target.

    F(y | x) = N(x + Δ t (∇ log γ(x) + x) + √Δ n(x), Δ), B(x | y) = N(y t/t′, t Δ/t′) the Brownian
    bridge, t from 1/(K + 1) to t′ = t + Δ up to 1. The first step, from 0, is the reference.

    Source: Zhang & Chen 2022, arXiv:2111.15141.
    """

    kind: ClassVar[Any] = transitions.PIS
    name: ClassVar[str] = "pis"


@dataclass(frozen=True)
class SCLD(Sampler):
    """Sequential controlled Langevin diffusion: CMCD in segments, resampled between them.

    Each segment leads from γ_a to γ_b by itself and is trained by the variance of its own log
    weights, on particles that were resampled before it; where the effective size falls below a
    share, they are resampled when it counts, too. So errors of one segment do not multiply with
    those of the others. E[Ẑ] = Z, as for any SMC.

    Parameters
    ----------
    segments : int
        Parts of the path; ``steps`` is a multiple of it.
    threshold : float
        Share of the effective size below which particles are resampled.

    Source: Chen, Richter, Berner, Blessing, Neumann & Anandkumar 2025, arXiv:2412.07081.

    >>> SCLD(segments=8).plan.loss
    'sub_trajectory'
    """

    loss: str = "sub_trajectory"
    segments: int = 4  # type: ignore[misc]
    threshold: float = 0.5  # type: ignore[misc]
    kind: ClassVar[Any] = transitions.CMCD
    name: ClassVar[str] = "scld"

    def __post_init__(self) -> None:
        check_count("segments", self.segments, 1)
        check_between("threshold", self.threshold, -1e-9, 1 + 1e-9)
        super().__post_init__()


@dataclass(frozen=True)
class UDMCD(Sampler):
    """Underdamped Monte Carlo diffusion: velocities refreshed as they are, with a learned way back.

    See :mod:`ppcore_diffusion.underdamped`: n_F = 0, n_B = −n(x).

    Source: Geffner & Domke 2023, arXiv:2208.07743; Doucet et al. 2022, arXiv:2208.07698.
    """

    kind: ClassVar[Any] = underdamped.UD_MCD
    name: ClassVar[str] = "ud_mcd"


@dataclass(frozen=True)
class UDCMCD(Sampler):
    """Underdamped CMCD: the velocities' refreshment is controlled, n_F = n(x), n_B = −n(x).

    See :mod:`ppcore_diffusion.underdamped`.

    Source: Blessing, Berner, Richter & Neumann 2025, arXiv:2503.01006.
    """

    kind: ClassVar[Any] = underdamped.UD_CMCD
    name: ClassVar[str] = "ud_cmcd"


@dataclass(frozen=True)
class UDDBS(Sampler):
    """The underdamped bridge: n_F and n_B are two networks.

    See :mod:`ppcore_diffusion.underdamped`.

    Source: Blessing, Berner, Richter & Neumann 2025, arXiv:2503.01006.
    """

    kind: ClassVar[Any] = underdamped.UD_DBS
    name: ClassVar[str] = "ud_dbs"
