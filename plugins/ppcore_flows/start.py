"""Where a flow begins: a mixture of the Gaussians at the modes that many climbs find."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppcore.tuning import modes
from ppcore.tuning.modes import Counted, Modes, reference_draws, starts
from ppcore.tuning.noise import spawned
from ppcore_flows.bases import Gaussian, Mixture, StudentT, mixture
from ppcore_flows.density import Flow
from ppcore_flows.differentiable import require_gradient
from ppcore_flows.linear import Whiten

__all__ = ["Counted", "Found", "explore", "reference_draws", "starts"]


class Found(Modes):
    """:class:`ppcore.tuning.modes.Modes` as laws that a flow can begin from."""

    def whitening(self, dtype: Any) -> Whiten:
        """The affine map from N(0, I) to the moments of the mixture."""
        mean, covariance = self.moments()
        factor = np.linalg.cholesky(covariance)
        return Whiten(jnp.asarray(mean, dtype), jnp.asarray(factor, dtype))

    def whitened(self, dtype: Any) -> Mixture:
        """The mixture in the coordinates of :meth:`whitening`."""
        mean, covariance = self.moments()
        inverse = np.linalg.inv(np.linalg.cholesky(covariance))
        means = (self.means - mean) @ inverse.T
        return mixture(self.log_weights, means, inverse @ self.factors, dtype)

    def law(self, dtype: Any, degrees: float | None = None) -> Flow:
        """The mixture (one part: the Gaussian, or a Student-t) as a density in whitened form."""
        if degrees is not None:
            base: Any = StudentT(self.means.shape[1], jnp.asarray(np.log(degrees), dtype))
        elif len(self.means) > 1:
            base = self.whitened(dtype)
        else:
            base = Gaussian(self.means.shape[1])
        return Flow(base, self.whitening(dtype))


def explore(key: Any, target: Any) -> Found:
    """As :func:`ppcore.tuning.modes.explore`, for a target whose gradient is that of its density.

    Raises :class:`ppcore.errors.UnsupportedError` as
    :func:`ppcore_flows.differentiable.require_gradient` does.
    """
    k_ask, k_climb = spawned(key, 2)
    spent = require_gradient(k_ask, target)
    made = modes.explore(k_climb, target)
    found = Found(*(getattr(made, field.name) for field in fields(made)))
    return replace(found, gradients=found.gradients + spent)
