"""Any observed ppcore model as a check model."""

from __future__ import annotations

from typing import Any

from ppcore.errors import UnsupportedError
from ppcore.testing.models.base import CheckModel, generic_feature_names, generic_features


def from_target(target: Any, name: str) -> CheckModel:
    """A check model from a target that can draw its own joint.

    Parameters
    ----------
    target : Target
        With ``simulate_joint(key) -> (x, target)``: parameters from the prior, data from the
        likelihood, and the same target with the observed values replaced.
    name : str
        What results call it.

    Raises
    ------
    UnsupportedError
        If the target cannot simulate its data (an improper prior, a bare density, a factor).
    """
    simulate = getattr(target, "simulate_joint", None)
    if simulate is None:
        raise UnsupportedError(
            f"{name}: this target cannot draw parameters and data jointly. Checks against the "
            "joint need a model with a proper prior whose data are declared with `sample`."
        )
    joint = getattr(target, "joint", None)
    factors = [b.name for b in joint.boxes() if b.op == "factor"] if joint is not None else []
    if factors:
        raise UnsupportedError(
            f"{name}: the factor {factors[0]!r} weighs the joint without being data that could be "
            "drawn, so parameters and data cannot be simulated. Declare it with `sample` and "
            "`observe` it."
        )
    return CheckModel(
        name=name,
        dim=target.dim,
        simulate_joint=simulate,
        raw_features=generic_features,
        feature_names=generic_feature_names(target.dim),
    )
