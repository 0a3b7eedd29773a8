"""Why no starting point was found: the sites whose log density is −inf or NaN, by name."""

from __future__ import annotations

from typing import Any

import numpy as np

STARTS = 16


def explain_start(target: Any, seed: int, dtype: np.dtype) -> str:
    """What is wrong at random starts, U(−2, 2) in unconstrained coordinates, as sentences.

    A site is named if its log density is not finite at some start; if all are finite, the
    gradient is looked at.
    """
    import jax

    x = np.random.default_rng(seed).uniform(-2.0, 2.0, (STARTS, target.dim)).astype(dtype)
    by_site = getattr(target, "log_density_by_site", None)
    if by_site is None:
        found = {"the log density": np.asarray(jax.jit(jax.vmap(target.log_density))(x))}
    else:
        parts = jax.jit(jax.vmap(by_site))(x)
        found = {f"site {site!r}": np.asarray(value) for site, value in parts.items()}
    said = [text for who, values in found.items() if (text := _verdict(who, values))]
    if said:
        return " ".join(said)
    gradients = np.asarray(jax.jit(jax.vmap(jax.grad(target.log_density)))(x))
    wrong = ~np.isfinite(gradients).all(0)
    if wrong.any():
        from ppcore.run.checks import coordinate_name

        where = coordinate_name(target, int(np.argmax(wrong)))
        return (
            f"The log density is finite at {STARTS} random starts, but its gradient with respect "
            f"to {where} is not: look for a square root or a norm at 0, or for np.where around an "
            "expression that overflows."
        )
    return f"The log density and its gradient are finite at {STARTS} other random starts."


def _verdict(who: str, values: np.ndarray) -> str | None:
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return None
    value = values[wrong][0]
    if np.isnan(value):
        remedy = (
            "a parameter of it leaves its range (a negative scale, a logarithm of a negative "
            "number); constrain the wire it depends on, for example with np.exp"
        )
    elif value < 0:
        remedy = (
            "its value lies outside the support that its parameters give it; check the "
            "observed data and the bounds that depend on other sites"
        )
    else:
        remedy = "its density is unbounded; bound the scale away from 0"
    return f"{who} has log density {value} at {int(wrong.sum())} of {values.size} starts: {remedy}."
