"""Stages: kernels from populations to populations, composed with ``>>``.

    sampler = Prior() >> Anneal((0.1, 0.4, 1.0), move=kernel) >> Move(kernel, steps=5)
    population = sampler(key, target, 1000)

Whether the ends meet and the needs are met is checked when a composition is built; its contract
is derived from those of its parts.
"""

from ppcore.stages.adaptive import AdaptiveAnneal
from ppcore.stages.anneal import Anneal
from ppcore.stages.base import Sequence, Stage
from ppcore.stages.move import Move
from ppcore.stages.reference import Correct, Prior, Sampler
from ppcore.stages.resampling import Resample
from ppcore.stages.transport import Transport
from ppcore.stages.waste_free import WasteFree

__all__ = [
    "AdaptiveAnneal",
    "Anneal",
    "Correct",
    "Move",
    "Prior",
    "Resample",
    "Sampler",
    "Sequence",
    "Stage",
    "Transport",
    "WasteFree",
]
