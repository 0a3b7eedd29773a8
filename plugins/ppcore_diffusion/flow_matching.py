"""A flow matched to earlier draws of a posterior, its own draws weighed by what they miss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from ppcore.engine import Report
from ppcore.settings import check_between
from ppcore_diffusion.from_draws import FromDraws, Learned
from ppcore_diffusion.learned_proposal import guarded
from ppcore_diffusion.matching import Matching, flow_match, silent
from ppcore_diffusion.samples import Samples, samples_of


@dataclass(frozen=True)
class FlowMatching(FromDraws):
    """x_i = T(u_i), w_i = γ(x_i)/q(x_i): importance sampling from a matched flow; E[Ẑ] = Z.

    T is learned by regression from ``earlier`` draws, without a gradient of the target, then
    frozen; fresh draws are weighed with the exact density of T as it is, so that the weights are
    proper whatever the training did, and k̂ and the effective sample size say how good it was.
    Weights are bounded by a share of draws from a Student-t twice as wide as the earlier draws.

    What no earlier draw has seen is not learned: a mode that they all miss stays missing, but for
    what the Student-t finds.

    Parameters
    ----------
    earlier, warm, pilots, defence
        See :class:`ppcore_diffusion.from_draws.FromDraws`.
    interpolant, coupling, group, noise, reflow, width, grid, steps, batch, rate
        See :class:`ppcore_diffusion.matching.Matching`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown, or the draws cannot be learned from.

    Source: Lipman et al. 2023, arXiv:2210.02747; Tong et al. 2024, arXiv:2302.00482 (coupling);
    Liu, Gong & Liu 2023, arXiv:2209.03003 (reflow).

    >>> FlowMatching(grid=16).contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    interpolant: str = "linear"
    coupling: str = "exact"
    group: int = 64
    noise: float = 0.0
    reflow: int = 0
    width: int = 64
    grid: int = 32
    steps: int = 1000
    batch: int = 256
    rate: float = 5e-3
    name: ClassVar[str] = "flow_matching"

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.matching

    @property
    def matching(self) -> Matching:
        """Its parts that say what to learn."""
        return Matching(
            self.interpolant,
            self.coupling,
            self.group,
            self.noise,
            self.reflow,
            self.width,
            self.grid,
            self.steps,
            self.batch,
            self.rate,
        )

    def learned(self, key: Any, samples: Samples, report: Report) -> Learned:
        """The law of T(u), u ~ N(0, I); see :class:`ppcore_diffusion.from_draws.FromDraws`."""
        made = flow_match(key, samples, plan=self.matching, report=report)
        return Learned(made.density, made.losses, made.notes)


def flow_proposal(key: Any, draws: Any, plan: Matching | None = None, defence: float = 0.05) -> Any:
    """A normalised density learned from ``draws``, to be used as a proposal in chains.

    q = (1 − ε) T♯N(0, I) + ε t₃: exact ``log_prob``, positive everywhere. Frozen, it makes
    ``infer("independence", proposal=q)`` invariant for any posterior of its dimension.

    Runs in JAX's current precision; call it inside ``ppcore.precision.scope()`` for float64.

    Parameters
    ----------
    key : key
    draws : Fit, Population or float[n, d]
    plan : Matching
    defence : float
        ε; without it chains get stuck where q has lighter tails than the target.

    Raises
    ------
    ppcore.errors.SettingsError
        If the draws cannot be learned from, or ``defence`` is no share.
    """
    check_between("defence", defence, -1e-9, 1)
    samples = samples_of(draws)
    made = flow_match(key, samples, plan=plan, report=silent)
    return guarded(made.density, samples, defence)
