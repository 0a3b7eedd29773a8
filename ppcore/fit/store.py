"""Fits on disk: a zarr store that appears as a whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from ppcore.errors import PPCoreError
from ppcore.fit.record import FORMAT, STRUCTURED
from ppcore.fit.tree import decode

if TYPE_CHECKING:
    import xarray as xr

    from ppcore.fit.fit import Fit


class StoreError(PPCoreError):
    """A file cannot be written where it was asked for, or holds no fit."""


def save(data: xr.DataTree, path: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Write ``data`` beside ``path`` and rename it.

    Raises :class:`StoreError` if something is at ``path`` and ``overwrite`` is not set, or if it
    cannot be written; then what was there is still there.
    """
    place = Path(path)
    if place.exists() and not overwrite:
        raise StoreError(f"{place} exists. Pass overwrite=True to replace it, or another path.")
    if place.exists() and not _is_store(place):
        raise StoreError(f"{place} is not a saved fit, so it is not overwritten. Remove it first.")
    mark = uuid.uuid4().hex[:8]
    beside, old = (place.with_name(f".{place.name}.{mark}.{what}") for what in ("new", "old"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        data.to_zarr(beside, mode="w", consolidated=False)
        if place.exists():
            os.rename(place, old)
        try:
            os.rename(beside, place)
        except OSError:
            if old.exists():
                os.rename(old, place)
            raise
    except OSError as error:
        raise StoreError(f"{place} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if place.exists():
            shutil.rmtree(old, ignore_errors=True)
    return place


def load(path: str | os.PathLike[str]) -> Fit:
    """Read a fit that :meth:`Fit.save` wrote, into memory.

    It summarises and plots as before; it has no model, so ``predict`` needs ``model=``.

    Raises :class:`StoreError` if there is nothing at ``path``, or something else.
    """
    import xarray as xr

    from ppcore.fit.fit import Fit

    place = Path(path)
    if not place.exists():
        raise StoreError(f"{place} does not exist. fit.save(path) writes a fit.")
    if not _is_store(place):
        raise StoreError(f"{place} is not a saved fit: it is no zarr store.")
    try:
        with xr.open_datatree(place, engine="zarr", consolidated=False) as stored:
            data = stored.load()
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(f"{place} cannot be read: {error}. Was it saved to the end?") from error
    written = data.attrs.get("ppcore_format")
    if written is None or "posterior" not in data.children:
        raise StoreError(f"{place} is a zarr store, but not one that ppcore saved.")
    if int(written) > FORMAT:
        raise StoreError(f"{place} was saved by a newer ppcore (format {written}): upgrade ppcore.")
    attrs = decode({str(key): value for key, value in data.attrs.items()}, STRUCTURED)
    fit = Fit(attrs, data=data)
    data["posterior"] = xr.DataTree(fit.posterior[list(fit.sites)])
    return fit


def _is_store(place: Path) -> bool:
    return any((place / name).exists() for name in ("zarr.json", ".zgroup"))
