"""State-space models: models with one ``pp.scan``, read as start, transition and emission."""

from ppcore.state_space.model import Free, Moved, Start, StateSpace, Values, state_space
from ppcore.state_space.plan import Plan

__all__ = ["Free", "Moved", "Plan", "Start", "StateSpace", "Values", "state_space"]
