"""Array functions by name: what a deterministic box computes, in torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ppcore.diagram import Box, Diagram
from ppcore.errors import UnsupportedError
from ppcore.recording.template import from_template
from ppcore_pyro.arrays import ARRAYS
from ppcore_pyro.elementwise import ELEMENTWISE, tensor

_OUTSIDE = (
    "It still runs in JAX: target.torch() hands its density and gradient to torch, "
    "and every engine here takes it as it is."
)
_STOCHASTIC = ("sample", "observe", "factor", "scan", "plate")


def torch_function(op: str) -> Callable[..., Any]:
    """The torch function of that name.

    Raises :class:`~ppcore.errors.UnsupportedError` if there is none.

    >>> torch_function("numpy.add")(1, 0.5)
    tensor(1.5000, dtype=torch.float64)
    """
    if op == "outer":
        return _outer
    found = ELEMENTWISE.get(op) or ARRAYS.get(op)
    if found is None:
        raise UnsupportedError(f"{op} has no torch equivalent here. {_OUTSIDE}")
    return found


def _outer(op: str, a: Any, b: Any) -> torch.Tensor:
    left, right = tensor(a), tensor(b)
    found: torch.Tensor = torch_function(op)(left.reshape(left.shape + (1,) * right.ndim), right)
    return found


@lru_cache(maxsize=256)
def require_torch(diagram: Diagram) -> None:
    """Raise :class:`~ppcore.errors.UnsupportedError` naming the first box that torch cannot run.

    And the site that it leads to.
    """
    for at, node in enumerate(diagram.nodes):
        box = node.box
        if box.body is not None:
            require_torch(box.body)
        elif box.op == "lift" and not box.spec[2]:
            name = getattr(box.spec[0], "__name__", repr(box.spec[0]))
            raise UnsupportedError(
                f"{_leads_to(diagram, at)}: pp.lift({name}) is traced by JAX, and torch cannot run "
                f"it. Write it with NumPy's functions. {_OUTSIDE}"
            )
        elif box.op not in (*_STOCHASTIC, "lift"):
            try:
                torch_function(box.op)
            except UnsupportedError as error:
                raise UnsupportedError(f"{_leads_to(diagram, at)}: {error}") from None


def _leads_to(diagram: Diagram, at: int) -> str:
    """The first named box that what node ``at`` computes flows into."""
    first = [len(diagram.dom)]
    for node in diagram.nodes:
        first.append(first[-1] + len(node.box.cod))
    reached = set(range(first[at], first[at + 1]))
    for k, node in enumerate(diagram.nodes[at + 1 :], at + 1):
        if reached & set(node.inputs):
            if node.box.name is not None:
                return f"Site {node.box.name!r}"
            if node.box.body is not None:
                inside = [b.name for b in node.box.body.boxes() if b.name is not None]
                if inside:
                    return f"Site {inside[0]!r}"
            reached |= set(range(first[k], first[k + 1]))
    return "A computed value"


def compute(box: Box, values: list[Any]) -> list[torch.Tensor]:
    """The outputs of an array box on tensors."""
    if box.op == "lift":
        return _on_host(box, values)
    args, kwargs = from_template(box.spec, values)
    fn = torch_function(box.op)
    try:
        found = fn(*map(_argument, args), **{k: _argument(v) for k, v in kwargs.items()})
    except TypeError as error:
        raise UnsupportedError(
            f"{box.op} with these arguments has no torch equivalent here ({error}). {_OUTSIDE}"
        ) from error
    parts = list(found) if isinstance(found, tuple | list) else [found]
    return [
        part.to(torch.int64) if part.dtype == torch.int32 else part for part in map(tensor, parts)
    ]


def _argument(value: Any) -> Any:
    """Arrays that the model keeps by value as tensors, NumPy's numbers as Python's."""
    if isinstance(value, np.ndarray):
        return torch.as_tensor(np.array(value))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return type(value)(_argument(v) for v in value)
    return value


def _on_host(box: Box, values: list[Any]) -> list[torch.Tensor]:
    """A function lifted with its result declared: plain NumPy, without a gradient."""
    fn, template, on_host = box.spec
    if not on_host:
        name = getattr(fn, "__name__", repr(fn))
        raise UnsupportedError(f"pp.lift({name}) is traced by JAX, and torch cannot run it.")
    args, kwargs = from_template(template, [v.detach().cpu().numpy() for v in values])
    found = fn(*args, **kwargs)
    parts = found if isinstance(found, tuple | list) else [found]
    return [
        torch.as_tensor(np.asarray(p, s.dtype)).reshape(s.shape)
        for p, s in zip(parts, box.cod, strict=True)
    ]
