"""Indexing by a random integer while torch traces: torch itself would ask for its value."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class IndexBySelection(TorchFunctionMode):
    """``x[i]`` for a tensor ``i`` without axes becomes a selection along the axis, then ``[0]``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.Tensor.__getitem__:
            x, index = args
            parts = list(index) if isinstance(index, tuple) else [index]
            for axis, part in enumerate(parts):
                if part is None or part is Ellipsis or _axes(part):
                    break
                if isinstance(part, torch.Tensor):
                    x = torch.index_select(x, axis, part.reshape(1).long())
                    parts[axis] = 0
            args = (x, tuple(parts))
        return func(*args, **(kwargs or {}))


def _axes(part: Any) -> bool:
    """Whether an index has axes of its own, or is a mask: torch then needs no value."""
    if isinstance(part, torch.Tensor):
        return part.ndim > 0 or part.dtype == torch.bool
    return not isinstance(part, int | slice)
