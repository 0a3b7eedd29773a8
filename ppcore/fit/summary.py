"""The table of a fit: ArviZ's numbers, rounded to what they are worth."""

from __future__ import annotations

import warnings
from typing import Any

import arviz_stats
import numpy as np
import pandas as pd
import xarray as xr


class Table(pd.DataFrame):
    """A DataFrame that prints every column, however narrow pandas believes the screen to be."""

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def __repr__(self) -> str:
        return self.to_string(max_rows=pd.get_option("display.max_rows"))

    __str__ = __repr__


def summarise(
    data: xr.DataTree,
    var_names: list[str] | None,
    ci_prob: float | None,
    ci_kind: Any,
    digits: int | None,
) -> pd.DataFrame:
    """``arviz_stats.summary`` of the posterior, as a :class:`Table`."""
    with warnings.catch_warnings():
        # Entries that are constant (the zeros of a Cholesky factor) have no R-hat.
        warnings.simplefilter("ignore", RuntimeWarning)
        table = arviz_stats.summary(
            data, var_names=var_names, ci_prob=ci_prob, ci_kind=ci_kind, round_to="none"
        )
    return Table(table if digits is None else _rounded(table, digits))


def _rounded(table: pd.DataFrame, digits: int) -> pd.DataFrame:
    """Each row to ``digits`` digits of its standard deviation; sizes to integers, R-hat to 3."""
    spread = table["sd"].to_numpy(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        places = digits - 1 - np.floor(np.log10(spread))
    places = np.where(np.isfinite(places), np.clip(places, 0, 15), digits).astype(int)
    columns: dict[str, Any] = {}
    for name in map(str, table.columns):
        values = table[name].to_numpy(float)
        if name.startswith("ess"):
            whole = np.round(values)
            columns[name] = whole.astype(int) if np.isfinite(whole).all() else whole
        elif name == "r_hat":
            columns[name] = np.round(values, 3)
        else:
            extra = int(name.startswith("mcse"))
            columns[name] = [_round(v, int(p) + extra) for v, p in zip(values, places, strict=True)]
    return pd.DataFrame(columns, index=table.index)


def _round(value: float, places: int) -> float:
    return round(float(value), places) if np.isfinite(value) else float(value)
