"""Checks of constructor arguments that the engines share."""

from __future__ import annotations

from typing import Any

from ppcore.errors import SettingsError, did_you_mean

METRICS = ("auto", "dense", "diagonal", "low_rank")


def check_between(name: str, value: Any, low: float, high: float) -> None:
    """Raise :class:`ppcore.errors.SettingsError` unless low < value < high.

    >>> check_between("target_accept", 0.8, 0, 1)
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low < value < high:
        raise SettingsError(f"{name}={value!r} must be a number between {low} and {high}.")


def check_count(name: str, value: Any, least: int) -> None:
    """Raise :class:`ppcore.errors.SettingsError` unless value is an integer ≥ least.

    >>> check_count("warmup_draws", 300, 1)
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SettingsError(f"{name}={value!r} must be an integer of at least {least}.")


def check_metric(metric: Any, rank: Any) -> None:
    """Raise :class:`ppcore.errors.SettingsError` unless the metric is known and rank ≥ 0.

    >>> check_metric("dense", 8)
    """
    if metric not in METRICS:
        raise SettingsError(f"metric={metric!r} is not known. {did_you_mean(str(metric), METRICS)}")
    check_count("rank", rank, 0)
