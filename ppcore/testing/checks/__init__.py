"""All checks, in the order of the pyramid: deterministic, exact, paired, calibration."""

from ppcore.testing.checks import (
    bias_order,
    calibration,
    enumeration,
    evidence,
    finite_kernel,
    frozen,
    goodness,
    gradient,
    invariance,
    key_reuse,
    movement,
    normalisation,
    outputs,
    rank,
    resume,
    reversibility,
    rewrite,
    seeded,
    settings,
    transforms,
    transport,
)
from ppcore.testing.checks.base import Check

CHECKS: tuple[Check, ...] = (
    settings.CHECK,
    outputs.CHECK,
    seeded.CHECK,
    transforms.TRANSFORMS,
    transforms.TRACES,
    key_reuse.CHECK,
    frozen.CHECK,
    resume.CHECK,
    transport.CHECK,
    gradient.CHECK,
    rewrite.CHECK,
    finite_kernel.CHECK,
    enumeration.CHECK,
    invariance.CHECK,
    movement.CHECK,
    reversibility.CHECK,
    rank.CHECK,
    evidence.CHECK,
    goodness.CHECK,
    normalisation.CHECK,
    bias_order.CHECK,
    calibration.CALIBRATION,
    calibration.AT_DATA,
)

__all__ = ["CHECKS", "Check"]
