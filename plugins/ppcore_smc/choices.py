"""What the engines that temper have in common: moves by name, and where they start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppcore.errors import SettingsError, did_you_mean
from ppcore.stages.reference import Prior
from ppcore.tuning.preconditioner import LowRank
from ppcore_smc.autoregressive import Autoregressive
from ppcore_smc.hmc import HMC
from ppcore_smc.laplace import approach
from ppcore_smc.random_walk import RandomWalk

MOVES = {"hmc": HMC, "random_walk": RandomWalk, "autoregressive": Autoregressive}
REFERENCES = ("auto", "laplace", "prior")
CHECKED = tuple((k / 10) ** 3 for k in range(1, 11))
"""A schedule to prove a frozen run unbiased on."""


def kernel_of(move: Any) -> Any:
    """A kernel by name, or as it is.

    >>> kernel_of("hcm")
    Traceback (most recent call last):
    ppcore.errors.SettingsError: move='hcm' is not known. Did you mean 'hmc'?
    """
    if not isinstance(move, str):
        return move
    if move not in MOVES:
        raise SettingsError(f"move={move!r} is not known. {did_you_mean(move, MOVES)}")
    return MOVES[move]()


def unit_parameters(kernel: Any) -> Any:
    """Parameters for a coordinate of scale 1, where nothing has been tuned."""
    unit = LowRank(np.float64(1.0), np.zeros((0, 0)), np.zeros(0))
    return kernel.parameters(unit, jnp.asarray(0.3), jnp.asarray(0.9))


def check_reference(reference: Any) -> None:
    """Raise :class:`ppcore.errors.SettingsError` for a reference of an unknown kind."""
    if reference not in REFERENCES:
        hint = did_you_mean(str(reference), REFERENCES)
        raise SettingsError(f"reference={reference!r} is not known. {hint}")


@dataclass(frozen=True)
class Ground:
    """A target with a reference to start from.

    Attributes
    ----------
    target : Target
    preconditioner : Preconditioner or None
        For the moves, where the reference knows one.
    gradients : int
        Spent on finding it.
    notes : tuple of str
    """

    target: Any
    preconditioner: Any = None
    gradients: int = 0
    notes: tuple[str, ...] = ()


def grounded(reference: str, key: Any, target: Any) -> Ground:
    """The target with the reference that was asked for: "prior", "laplace", or "auto".

    Raises :class:`ppcore.errors.UnsupportedError` where there is none, saying what to do.
    """
    if reference == "laplace" or (reference == "auto" and not target.has_reference):
        found = approach(key, target)
        return Ground(found.target, found.factor, found.gradients, found.notes)
    Prior().require(target)
    return Ground(target)
