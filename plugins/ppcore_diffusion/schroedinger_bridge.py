"""A light Schrödinger bridge from a Gaussian to earlier draws of a posterior, its draws weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ppcore.contract import Contract, Density
from ppcore.contract import importance as weighed_by
from ppcore.engine import Populated, Report
from ppcore.settings import check_between, check_count
from ppcore.tuning.noise import spawned
from ppcore_diffusion.learned_proposal import (
    check_earlier,
    fresh,
    guarded,
    learning,
    populated,
)
from ppcore_diffusion.light_bridge import Bridging, light_bridge
from ppcore_diffusion.samples import Samples


@dataclass(frozen=True)
class SchroedingerBridge:
    """x_i from the end of a learned bridge, w_i = γ(x_i)/q(x_i); E[Ẑ] = Z.

    The bridge leads from a Gaussian with the moments of ``earlier`` draws to those draws. Its start
    is frozen at ``points`` draws of the Gaussian, so that the law of its end is a mixture of
    ``points`` · ``components`` Gaussians whose density is known and normalised: the weights are
    proper whatever the training did. Their bound is that of a Student-t twice as wide.

    What no earlier draw has seen is not learned.

    Parameters
    ----------
    earlier : Fit, Population or float[n, d], optional
        Earlier draws of this posterior, of any engine, in unconstrained coordinates; they may be
        rough, since they only teach. By default the engine makes its own.
    warm : str
        The population engine that makes them.
    pilots : int
        Particles that it uses.
    defence : float
        Share of draws from the Student-t; 0 for none.
    points : int
        Starts of the bridge, at least 16; four for each coordinate are taken in any case.
    components, epsilon, steps, batch, rate
        See :class:`ppcore_diffusion.light_bridge.Bridging`.

    Raises
    ------
    ppcore.errors.SettingsError
        If one is out of range or unknown, or the draws cannot be learned from.

    Source: Korotin, Gushchin & Burnaev 2024, arXiv:2310.01174.

    >>> SchroedingerBridge(components=8).contract
    ProperlyWeighted(unbiased_evidence=True)
    """

    earlier: Any = None
    warm: str = "smc"
    pilots: int = 1024
    defence: float = 0.05
    points: int = 256
    components: int = 16
    epsilon: float = 1.0
    steps: int = 600
    batch: int = 256
    rate: float = 2e-2
    default_chains: ClassVar[int] = 4
    default_draws: ClassVar[int] = 4096
    stage: ClassVar[None] = None

    def __post_init__(self) -> None:
        check_earlier(self.earlier, self.warm, self.pilots)
        check_between("defence", self.defence, -1e-9, 1)
        check_count("points", self.points, 16)
        _ = self.bridging

    @property
    def bridging(self) -> Bridging:
        """Its parts that say what to learn."""
        return Bridging(self.components, self.epsilon, self.steps, self.batch, self.rate)

    @property
    def contract(self) -> Contract:
        return weighed_by(Density())

    def populate(self, key: Any, target: Any, n: int, report: Report) -> Populated:
        """``n`` weighted draws; see :class:`ppcore.engine.PopulationEngine`.

        Raises what the warm start raises, :class:`ppcore.errors.UnsupportedError` for a target with
        finite sites, and :class:`ppcore.errors.PopulationError` if all weights vanish.
        """
        k_warm, k_start, k_match, k_draw = spawned(key, 4)
        settings = self.earlier, self.warm, self.pilots
        known = learning(k_warm, target, *settings, report, "schroedinger_bridge")
        shift, factor = known.samples.moments()
        z = fresh(k_start).standard_normal((max(self.points, 4 * len(shift)), len(shift)))
        start = shift + z @ factor.T
        even = np.full(len(start), 1.0 / len(start))
        source = Samples(start, even)
        made = light_bridge(k_match, source, known.samples, self.bridging, report)
        law = made.bridge.marginal(jnp.asarray(start, jnp.result_type(float)))
        proposal = guarded(law, known.samples, self.defence)
        notes, stats = (*known.notes, *made.notes), {"loss": made.losses}
        return populated(k_draw, proposal, target, n, report, known.gradients, stats, notes)
