"""A bet against "E[D] = 0 for every feature": anytime-valid, exact at every sample size.

For D_i ∈ [−1, 1] with mean zero given the past, every product W_λ = Π_i (1 + λ D_i) with a fixed
stake |λ| < 1 is a nonnegative martingale started at one. So is the average of W_λ over stakes of
both signs and over features, whatever the dependence between features. By Ville's inequality
P(sup_n W_n ≥ 1/α) ≤ α: reject when the wealth reaches 1/α, at any time.

Sources: Waudby-Smith and Ramdas (2024), "Estimating means of bounded random variables by
betting", doi:10.1093/jrsssb/qkad009; Geweke (2004), "Getting it right", doi:10.1198/
016214504000001132, for the joint-distribution idea.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SIZES = np.array([0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.6, 0.9])
STAKES = np.concatenate([-_SIZES[::-1], _SIZES])
POWER = 0.95
STRIDE = 20
_Z_POWER = 1.6448536269514722


@dataclass(frozen=True)
class Bet:
    """The state of a bet after ``n`` replicates.

    Attributes
    ----------
    log_wealth : float[F, J]
        Per feature and stake.
    peak : float
        The largest log of the averaged wealth so far: the log e-value.
    n : int
    total, squares : float[F]
        Σ D and Σ D².
    """

    log_wealth: Any
    peak: float
    n: int
    total: Any
    squares: Any

    @classmethod
    def start(cls, features: int) -> Bet:
        """A bet with wealth one."""
        zero = np.zeros(features)
        return cls(np.zeros((features, STAKES.size)), 0.0, 0, zero, zero)

    def update(self, d: Any) -> Bet:
        """After replicates ``d``: float[R, F], every entry in [−1, 1]."""
        log_wealth, peak = _advance(jnp.asarray(self.log_wealth), jnp.asarray(d), STAKES)
        values = np.asarray(d)
        return Bet(
            np.asarray(log_wealth),
            max(self.peak, float(peak)),
            self.n + len(values),
            self.total + values.sum(0),
            self.squares + (values**2).sum(0),
        )

    def rejects(self, alpha: float) -> bool:
        """Whether the wealth has reached 1/α."""
        return self.peak >= -math.log(alpha)

    @property
    def mean(self) -> Any:
        """Mean of D per feature."""
        return self.total / max(self.n, 1)

    @property
    def worst(self) -> int:
        """The feature with most wealth."""
        return int(np.argmax(np.logaddexp.reduce(self.log_wealth, axis=1)))

    def resolution(self, alpha: float) -> Any:
        """The smallest mean shift δ per feature that this very test would have rejected.

        With n replicates of realised variance s², stake λ and J stakes over F features, the log
        wealth under a shift δ is about n(λδ − λ²s²/2) ± λs√n, and rejection needs log(FJ/α).
        So δ = min over λ of log(FJ/α)/(nλ) + λs²/2 + z s/√n, with z for power 0.95.
        """
        n = max(self.n, 1)
        sd = np.sqrt(np.maximum(self.squares / n - self.mean**2, 1e-12))
        need = math.log(self.log_wealth.size / alpha)
        lam = _SIZES[:, None]
        return np.min(need / (n * lam) + 0.5 * lam * sd**2, axis=0) + _Z_POWER * sd / math.sqrt(n)


@jax.jit
def _advance(log_wealth: Any, d: Any, stakes: Any) -> tuple[Any, Any]:
    # The wealth is looked at every STRIDE replicates: fewer looks, the same guarantee.
    steps = jnp.log1p(d[:, :, None] * stakes)
    if steps.shape[0] % STRIDE == 0:
        steps = steps.reshape(-1, STRIDE, *steps.shape[1:]).sum(axis=1)
    path = log_wealth + jnp.cumsum(steps, axis=0)
    average = jax.nn.logsumexp(path.reshape(path.shape[0], -1), axis=1) - math.log(log_wealth.size)
    return path[-1], jnp.max(average)
