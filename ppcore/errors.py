"""Errors that name the site, the value, the constraint and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class PPCoreError(Exception):
    """Base of every error that ppcore raises on purpose."""


class ModelError(PPCoreError):
    """A model is declared in a way that has no meaning."""


class UnknownNameError(ModelError, AttributeError):
    """A distribution, constraint or transform of that name does not exist."""


class ShapeError(ModelError):
    """Two shapes that must agree do not."""


class EvidenceError(PPCoreError):
    """Observed data cannot have come from the model (wrong name, shape, NaN, or support)."""


class SettingsError(PPCoreError):
    """An engine, setting or option is misspelt or out of range."""


class StartError(PPCoreError):
    """No starting point with a finite log density was found."""


class CompositionError(PPCoreError):
    """Two things were composed whose ends do not meet."""


class PopulationError(PPCoreError):
    """A weighted population died on its way; ``population`` holds it as it last was.

    Attributes
    ----------
    population : Population or None
        The particles and weights before what went wrong.
    stage : str
        Where it happened.
    temperature : float or None
        The inverse temperature there, if the stage has one.
    """

    def __init__(
        self,
        message: str,
        population: Any = None,
        stage: str = "",
        temperature: float | None = None,
    ) -> None:
        super().__init__(message)
        self.population, self.stage, self.temperature = population, stage, temperature


class UnsupportedError(PPCoreError):
    """What was asked for is not defined for this model or engine; the message says what is."""


class PluginError(PPCoreError):
    """A plugin is missing, broken, blocked, or its dependency is not installed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the nearest of ``known``, or lists them.

    >>> did_you_mean("nust", ["nuts", "ensemble"])
    "Did you mean 'nuts'?"
    >>> did_you_mean("zzz", ["nuts", "ensemble"])
    'Known: ensemble, nuts.'
    """
    known = sorted(known)
    folded = {k.casefold(): k for k in reversed(known)}
    near = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {folded[near[0]]!r}?"
    return f"Known: {', '.join(known)}." if known else "None are known."
