"""A parity case: one model twice, and the data of both."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ppcore as pp


@dataclass(frozen=True)
class Case:
    """One model declared twice.

    Parameters
    ----------
    ours, theirs : callable
        The model function for :func:`ppcore.model`, and the NumPyro model with the same arguments;
        ``theirs`` also takes the observed sites by name, None for simulation.
    args : tuple
        Data, the same for both.
    observed : dict
        Evidence.
    gradient : bool
        Whether the density has one (functions called on the host do not).
    simulates : bool
        Whether every prior is proper.
    """

    name: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    args: tuple[Any, ...] = ()
    observed: dict[str, Any] = field(default_factory=dict)
    gradient: bool = True
    simulates: bool = True

    def joint(self) -> pp.Model:
        """The ppcore model without its evidence."""
        return pp.model(self.ours)(*self.args)

    def model(self) -> pp.Model:
        """The ppcore model given its evidence."""
        joint = self.joint()
        return joint.observe(self.observed) if self.observed else joint

    def __str__(self) -> str:
        return self.name
