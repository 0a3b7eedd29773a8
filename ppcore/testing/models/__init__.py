"""Small models with known structure, for checks."""

from ppcore.testing.models.adapter import from_target
from ppcore.testing.models.base import (
    CheckModel,
    FeatureScale,
    feature_scale,
    raw_features,
    simulate,
)
from ppcore.testing.models.conjugate import CONJUGATE, NormalTarget
from ppcore.testing.models.finite import COIN, FINITE, FiniteTarget, finite_target
from ppcore.testing.models.pool import POOL, PoolTarget, check_model, pool

__all__ = [
    "COIN",
    "CONJUGATE",
    "FINITE",
    "POOL",
    "CheckModel",
    "FeatureScale",
    "FiniteTarget",
    "NormalTarget",
    "PoolTarget",
    "check_model",
    "feature_scale",
    "finite_target",
    "from_target",
    "pool",
    "raw_features",
    "simulate",
]
