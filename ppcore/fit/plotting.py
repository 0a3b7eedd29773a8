"""Finding ArviZ's plots by name; they are an extra, and imported when one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ppcore.errors import PluginError, SettingsError, did_you_mean

NEED_LIKELIHOOD = ("loo_pit", "khat")
NEED_PRIOR = ("prior_posterior",)


def find(kind: str) -> Callable[..., Any]:
    """``arviz_plots.plot_{kind}``.

    Raises :class:`~ppcore.errors.PluginError` if it is not installed, and
    :class:`~ppcore.errors.SettingsError` if there is no such plot.
    """
    try:
        import arviz_plots
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PluginError(
            f'Plots need arviz-plots and matplotlib ({error}): pip install "ppcore[plots]"'
        ) from error
    kinds = [name.removeprefix("plot_") for name in dir(arviz_plots) if name.startswith("plot_")]
    if kind not in kinds:
        raise SettingsError(f"There is no plot {kind!r}. {did_you_mean(kind, kinds)}")
    return getattr(arviz_plots, f"plot_{kind}")
