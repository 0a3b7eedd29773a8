"""Arrays as xarray groups in ArviZ's layout, and records as attributes that any file can hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

SAMPLE_DIMS = ("chain", "draw")
STAT_NAMES = {"log_density": "lp", "steps": "n_steps"}
"""ppcore's names of statistics -> ArviZ's, where they differ."""


def dataset(
    values: Mapping[str, np.ndarray],
    dims: Mapping[str, tuple[str, ...]],
    *,
    sampled: bool = True,
    attrs: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Arrays by site as a Dataset, every axis named and numbered.

    Parameters
    ----------
    values : mapping of site to array[chain, draw, ...], or to array[...] if not ``sampled``
    dims : mapping of site to names of the axes after chain and draw
        An axis that is not named, or whose name is another site's or another size's, is called
        ``{site}_dim_{i}``.
    """
    import xarray as xr

    lead = SAMPLE_DIMS if sampled else ()
    sizes: dict[str, int] = {}
    taken = {*values, *SAMPLE_DIMS}
    variables = {}
    for site, value in values.items():
        names = list(lead)
        for i, size in enumerate(value.shape[len(lead) :]):
            named = dims.get(site, ())
            name = named[i] if i < len(named) else f"{site}_dim_{i}"
            if name in taken or sizes.get(name, size) != size or name in names:
                name = f"{site}_dim_{i}"
            sizes[name] = size
            names.append(name)
        for name, size in zip(lead, value.shape, strict=False):
            sizes[name] = size
        variables[site] = (names, value)
    coords = {name: np.arange(size) for name, size in sizes.items()}
    return xr.Dataset(variables, coords=coords, attrs=encode(attrs or {}))


def stats_dataset(stats: Mapping[str, np.ndarray], attrs: Mapping[str, Any]) -> xr.Dataset:
    """What an engine says of each draw, under ArviZ's names."""
    renamed = {STAT_NAMES.get(name, name): value for name, value in stats.items()}
    return dataset(renamed, {}, attrs=attrs)


def tree(groups: Mapping[str, xr.Dataset], attrs: Mapping[str, Any]) -> xr.DataTree:
    """Groups below a root that carries the record of the run."""
    import xarray as xr

    made = {f"/{name}": group for name, group in groups.items()}
    return xr.DataTree.from_dict({"/": xr.Dataset(attrs=encode(attrs)), **made})


def encode(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as numbers and text, which netCDF and zarr both hold; the rest as JSON text."""
    plain = (str, int, float)
    return {
        name: value
        if isinstance(value, plain) and not isinstance(value, bool)
        else json.dumps(value)
        for name, value in attrs.items()
    }


def decode(attrs: Mapping[str, Any], structured: tuple[str, ...]) -> dict[str, Any]:
    """The record that :func:`encode` wrote; ``structured`` names what was JSON."""
    return {
        name: json.loads(value) if name in structured and isinstance(value, str) else value
        for name, value in attrs.items()
    }
