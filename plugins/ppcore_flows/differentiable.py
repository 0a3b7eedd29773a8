"""Whether the gradient of a target is that of its log density, asked before anything is trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.errors import UnsupportedError
from ppcore.tuning.modes import Counted, starts

POINTS, COMPARED = 16, 8
DIFFERENCE = 1e-5


def require_gradient(key: Any, target: Any) -> int:
    """Evaluations spent; raises :class:`ppcore.errors.UnsupportedError` for a wrong gradient.

    Judged at 16 scattered points: all gradients zero where the density varies, or (in double
    precision) slopes that disagree with differences of the log density at most of eight points.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    evaluate = Counted(target)
    paths = starts(evaluate, rng, key, target, POINTS)
    good = np.flatnonzero(np.isfinite(paths.log_density) & np.isfinite(paths.gradient).all(-1))
    value, gradient = paths.log_density[good], paths.gradient[good]
    why = None
    if len(good) > 1 and not gradient.any() and np.ptp(value) > 0:
        why = f"its gradient is zero at {len(good)} points where it takes different values"
    elif len(good) and jnp.result_type(float) == jnp.float64:
        x, slope = paths.x[good[:COMPARED]], gradient[:COMPARED]
        step = DIFFERENCE * rng.standard_normal(x.shape) * (1.0 + np.abs(x))
        ends, _ = evaluate(np.concatenate([x + step, x - step]))
        seen = 0.5 * (ends[: len(x)] - ends[len(x) :])
        told = np.sum(slope * step, axis=-1)
        noise = 1e-9 * (1.0 + np.abs(value[:COMPARED]))
        off = np.abs(seen - told) > 0.2 * np.maximum(np.abs(seen), np.abs(told)) + noise
        off = off & np.isfinite(seen)
        if 2 * np.sum(off) > len(x):
            why = f"its gradient disagrees with its differences at {np.sum(off)} of {len(x)} points"
    if why is not None:
        raise UnsupportedError(
            f"The log density cannot be differentiated: {why}. Look for rounding, comparisons, "
            "integer casts or stop_gradient in the model, or use an engine that needs no gradient, "
            "such as 'random_walk' or 'amis'."
        )
    return evaluate.spent
