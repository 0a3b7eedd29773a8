"""Judging draws: convergence, efficiency, and what to do about them."""

from ppcore.report.health import Health, SamplingWarning, assess

__all__ = ["Health", "SamplingWarning", "assess"]
