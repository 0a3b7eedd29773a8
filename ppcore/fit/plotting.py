"""Finding ArviZ's plots by name; they are an extra, and imported when one is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ppcore.errors import PluginError, SettingsError, did_you_mean

if TYPE_CHECKING:
    import xarray as xr

NEED_LIKELIHOOD = ("loo_pit", "khat")
NEED_PRIOR = ("prior_posterior",)
BY_CHAIN = ("trace", "trace_dist", "rank", "rank_dist", "autocorr")


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


def few_chains(data: xr.DataTree, kind: str, most: int) -> xr.DataTree:
    """At most ``most`` chains, evenly spaced, where each would be drawn by itself."""
    chains = data["posterior"].sizes["chain"]
    if kind not in BY_CHAIN or chains <= most:
        return data
    kept = np.linspace(0, chains - 1, most).round().astype(int)
    groups = ("posterior", "sample_stats")
    made: dict[str, Any] = {
        name: data[name].isel(chain=kept) for name in groups if name in data.children
    }
    return type(data)(children=made)
