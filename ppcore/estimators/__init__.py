"""Estimates of expectations from draws: plain, with control variates, conditional, weighted."""

from ppcore.estimators.estimate import Estimate, effective_draws

__all__ = ["Estimate", "effective_draws"]
