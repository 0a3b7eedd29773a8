"""A light Schrödinger bridge from a Gaussian to earlier draws of a posterior, its draws weighed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from ppcore.engine import Report
from ppcore.exact.protocol import generator
from ppcore.settings import check_count
from ppcore.tuning.noise import spawned
from ppcore_diffusion.from_draws import FromDraws, Learned
from ppcore_diffusion.light_bridge import Bridging, light_bridge
from ppcore_diffusion.samples import Samples


@dataclass(frozen=True)
class SchroedingerBridge(FromDraws):
    """x_i from the end of a learned bridge, w_i = γ(x_i)/q(x_i); E[Ẑ] = Z.

    The bridge leads from a Gaussian with the moments of ``earlier`` draws to those draws. Its start
    is frozen at ``points`` draws of the Gaussian, so that the law of its end is a mixture of
    ``points`` · ``components`` Gaussians whose density is known and normalised: the weights are
    proper whatever the training did. Their bound is that of a Student-t twice as wide.

    What no earlier draw has seen is not learned.

    Parameters
    ----------
    earlier, warm, pilots, defence
        See :class:`ppcore_diffusion.from_draws.FromDraws`.
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

    points: int = 256
    components: int = 16
    epsilon: float = 1.0
    steps: int = 600
    batch: int = 256
    rate: float = 2e-2
    name: ClassVar[str] = "schroedinger_bridge"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("points", self.points, 16)
        _ = self.bridging

    @property
    def bridging(self) -> Bridging:
        """Its parts that say what to learn."""
        return Bridging(self.components, self.epsilon, self.steps, self.batch, self.rate)

    def learned(self, key: Any, samples: Samples, report: Report) -> Learned:
        """The law of the bridge's end; see :class:`ppcore_diffusion.from_draws.FromDraws`."""
        k_start, k_match = spawned(key, 2)
        shift, factor = samples.moments()
        count = max(self.points, 4 * samples.dim)
        z = generator(k_start).standard_normal((count, samples.dim))
        start = Samples(shift + z @ factor.T, np.full(count, 1.0 / count))
        made = light_bridge(k_match, start, samples, self.bridging, report)
        law = made.bridge.marginal(jnp.asarray(start.x, jnp.result_type(float)))
        return Learned(law, made.losses, made.notes)
