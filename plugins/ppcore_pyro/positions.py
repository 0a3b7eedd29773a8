"""``x[index]`` by NumPy's rules in torch, and copies of x with some elements changed."""

from __future__ import annotations

from typing import Any

import torch

from ppcore_pyro.elementwise import alike, tensor


def getitem(x: Any, index: Any) -> torch.Tensor:
    """``x[index]``: slices of any step, integers, arrays of integers, None and Ellipsis."""
    found = tensor(x)
    parts = _spelt_out(found.ndim, index if isinstance(index, tuple) else (index,))
    axis, kept = 0, []
    for part in parts:
        if isinstance(part, slice) and part.step is not None and part.step < 0:
            found, part = _turned(found, axis, part)
        kept.append(part)
        axis += part is not None
    return found[tuple(_together(kept))]


def set_at(x: Any, index: Any, value: Any) -> torch.Tensor:
    """A copy of x with ``x[index] = value``."""
    return _changed(x, index, value, accumulate=False)


def add_at(x: Any, index: Any, value: Any) -> torch.Tensor:
    """A copy of x with ``value`` added at ``index``; repeated indices add up."""
    return _changed(x, index, value, accumulate=True)


def _changed(x: Any, index: Any, value: Any, accumulate: bool) -> torch.Tensor:
    whole, new = tensor(x), tensor(value).to(tensor(x).dtype)
    places = getitem(torch.arange(whole.numel(), device=whole.device).reshape(whole.shape), index)
    new = torch.broadcast_to(new, places.shape).reshape(-1)
    flat = whole.reshape(-1).index_put((places.reshape(-1),), new, accumulate=accumulate)
    return flat.reshape(whole.shape)


def _spelt_out(ndim: int, index: tuple[Any, ...]) -> list[Any]:
    """The index with ``...`` as slices, and what is an array in NumPy as a tensor."""
    parts: list[Any] = []
    used = sum(p is not None and p is not Ellipsis for p in index)
    for part in index:
        if part is Ellipsis:
            parts.extend([slice(None)] * (ndim - used))
        elif part is None or isinstance(part, int | slice):
            parts.append(part)
        else:
            where = tensor(part)
            parts.append(where if where.dtype == torch.bool else where.to(torch.int64))
    return parts


def _turned(x: torch.Tensor, axis: int, part: slice) -> tuple[torch.Tensor, slice]:
    """The axis turned round, and the same elements by a positive step: torch has no other."""
    n = x.shape[axis]
    where = range(*part.indices(n))
    if not where:
        return x, slice(0, 0)
    return torch.flip(x, [axis]), slice(n - 1 - where[0], n - where[-1], -where.step)


def _together(parts: list[Any]) -> list[Any]:
    """Integers beside arrays as arrays: NumPy broadcasts them, torch would select first."""
    ndim = max((p.ndim for p in parts if isinstance(p, torch.Tensor)), default=0)
    if ndim == 0:
        return parts
    ones = (1,) * ndim
    return [
        tensor(p).reshape(ones)
        if isinstance(p, int) or (isinstance(p, torch.Tensor) and p.ndim == 0)
        else p
        for p in parts
    ]


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> torch.Tensor:
    """``arr`` at ``indices`` along an axis, the other axes matched."""
    found, where = tensor(arr), tensor(indices).to(torch.int64)
    return torch.take_along_dim(found, where, dim=axis)


def searchsorted(a: Any, v: Any, side: str = "left") -> torch.Tensor:
    """Where ``v`` would go in the sorted ``a``."""
    sorted_, values = alike(a, v)
    return torch.searchsorted(sorted_.contiguous(), values.contiguous(), right=side == "right")
