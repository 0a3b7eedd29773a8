"""``to_pyro``: a ppcore model as a Pyro program, by the functor of all semantics."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pyro
import torch

from ppcore.diagram import Box, Diagram
from ppcore.diagram.condition import condition
from ppcore.errors import ModelError, UnsupportedError
from ppcore.semantics.interpret import interpret
from ppcore_pyro import ops
from ppcore_pyro.elementwise import ELEMENTWISE
from ppcore_pyro.markov import remembers_labels
from ppcore_pyro.semantics import TorchHandler


class Statements(TorchHandler):
    """Boxes as Pyro statements; whoever runs the program decides what they mean."""

    def __init__(self) -> None:
        self.plates: dict[str, Any] = {}
        self.steps: tuple[int, ...] = ()

    def _name(self, box: Box) -> str:
        return step_name(str(box.name), self.steps)

    @contextlib.contextmanager
    def _inside(self, box: Box, name: str) -> Iterator[None]:
        """In the plates of a box, and in one of its own along every other batch axis.

        Elements along batch axes are independent whatever the model calls them, and Pyro counts
        on a plate there when it enumerates.
        """
        axes = {plate.axis: (plate.name, plate.size) for plate in box.plates}
        batch = box.spec[1]
        for axis in range(-len(batch), 0):
            if batch[axis] > 1:
                axes.setdefault(axis, (f"{name}_axis_{-axis}", batch[axis]))
        with contextlib.ExitStack() as stack:
            for axis, (plate, size) in axes.items():
                # Made once and entered again: Pyro takes a second one for another site.
                if plate not in self.plates:
                    self.plates[plate] = pyro.plate(plate, size, dim=axis)
                stack.enter_context(self.plates[plate])
            yield

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        name, whole = self._name(box), box.cod[0].support.discrete
        finite = whole and distribution.has_enumerate_support
        infer = {"enumerate": "parallel"} if finite else {}
        with self._inside(box, name):
            value = pyro.sample(name, distribution, infer=infer)
        return (value.to(torch.int64) if whole else value), None

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        # Torch's densities of whole numbers want floats, or they fall to single precision.
        value = value if value.is_floating_point() else value.to(torch.float64)
        name = self._name(box)
        with self._inside(box, name):
            pyro.sample(name, distribution, obs=value)
            if box.dom[-1].support.dependent:
                inside = distribution.support.check(value)
                zero = torch.zeros((), dtype=torch.float64)
                pyro.factor(f"{name}_inside", torch.where(inside, zero, -torch.inf))

    def factor(self, box: Box, log_weight: Any) -> Any:
        axes = tuple(range(-len(box.dom[0].shape), 0))
        enumerated = tuple(log_weight.shape) != box.dom[0].shape
        # Axes of enumeration stay where Pyro looks for them.
        total = log_weight.sum(axes, keepdim=enumerated) if axes else log_weight
        pyro.factor(self._name(box), total)

    def named(self, box: Box, value: Any) -> Any:
        pyro.deterministic(self._name(box), value)

    def compute(self, box: Box, values: list[Any]) -> list[Any]:
        if any(isinstance(v, _Apart) for v in values):
            raise _enumerated(box)
        widened = [tuple(v.shape) != s.shape for v, s in zip(values, box.dom, strict=True)]
        if any(widened) and not _keeps_axes(box, widened):
            raise _enumerated(box)
        return super().compute(box, values)

    def iterate(self, step: Any, carry: Any, xs: Any, length: int, reverse: bool) -> Any:
        elements, _, _ = xs
        before, results = self.steps, [None] * length
        order = list(reversed(range(length)) if reverse else range(length))
        for t in self._loop(order):
            self.steps = (*before, t)
            carry, (results[t], _) = step(carry, ([x[t] for x in elements], {}, None))
        self.steps = before
        return carry, ([_stack(list(column)) for column in zip(*results, strict=True)], {})

    def _loop(self, order: list[int]) -> Iterable[int]:
        return pyro.markov(order)  # type: ignore[no-any-return]


class LongMemory(Statements):
    """As :class:`Statements`, for chains whose state is computed from labels of earlier steps.

    ``pyro.markov`` uses the axes of labels again two steps later, so it is not for these.
    """

    def _loop(self, order: list[int]) -> Iterable[int]:
        return order


class _Apart:
    """What a chain has put out, if enumeration gave each step another shape."""


def _stack(column: list[torch.Tensor]) -> Any:
    if any(isinstance(v, _Apart) for v in column) or len({v.shape for v in column}) != 1:
        return _Apart()
    return torch.stack(column)


def _keeps_axes(box: Box, widened: list[bool]) -> bool:
    """Whether a box means the same on values with axes of enumeration to the left."""
    if box.op in ELEMENTWISE:
        return True
    # table[labels], with nothing but labels or numbers as the index.
    return box.op == "getitem" and not widened[0] and _leading(box)


def _leading(box: Box) -> bool:
    args, _ = (part for part in box.spec.items)
    whole = args.items[1]
    parts = whole.items if getattr(whole, "kind", "") == "tuple" else (whole,)
    return not any(p is None or p is Ellipsis or hasattr(p, "kind") for p in parts)


def _enumerated(box: Box) -> UnsupportedError:
    return UnsupportedError(
        f"Pyro enumerates a discrete site that {box.op} mixes with other axes. Sum it out before "
        "(model.target() does), or put the labels into elementwise functions and table[label] only."
    )


def step_name(name: str, steps: tuple[int, ...]) -> str:
    """A site of a scan, at a position along its leading axes: ``z_0``, ``z_1``, …"""
    return "_".join((name, *map(str, steps)))


def _names(diagram: Diagram, steps: tuple[int, ...] = ()) -> Iterator[str]:
    for box in diagram.boxes():
        if box.op == "scan":
            assert box.body is not None
            for t in range(box.spec.length):
                yield from _names(box.body, (*steps, t))
        elif box.body is not None:
            yield from _names(box.body, steps)
        elif box.name is not None:
            yield step_name(box.name, steps)


def to_pyro(model: Any) -> Callable[[], None]:
    """A Pyro program of no arguments with the model's sites, plates, data and evidence.

    Its log density is the model's: both are one diagram under two functors. Everything is in
    double precision. A scan becomes a Python loop (``pyro.markov`` where the labels of two
    neighbouring steps are all that meet): its site ``z`` the sites ``z_0``, ``z_1``, … by position
    along the leading axis, backwards if the scan runs backwards. Batch axes outside plates become
    plates, since Pyro wants one for each; finite discrete latent sites are marked for enumeration.
    Where the support of a latent site depends on other sites, Pyro's own HMC and NUTS draw from
    another posterior: they keep the bijection of their first run.

    Parameters
    ----------
    model : Model
        With its evidence.

    Raises
    ------
    UnsupportedError
        Naming a site or an array function that torch has no form of, or a function lifted for JAX.
    ModelError
        If two sites come to have the same name, such as ``z_1`` beside a scan's ``z``.
    """
    diagram = condition(model.diagram, model.observed)
    ops.require_torch(diagram)
    twice = [name for name, count in Counter(_names(diagram)).items() if count > 1]
    if twice:
        raise ModelError(
            f"Pyro has no scan, so a site at step t becomes site_t, and {twice[0]!r} is another "
            "site's name too. Rename one of them."
        )
    arrays = (*model.data, *(model.evidence[name] for name in model.observed))
    inputs = tuple(torch.as_tensor(np.array(v)) for v in arrays)
    handler = LongMemory if remembers_labels(diagram) else Statements

    def program() -> None:
        interpret(diagram, inputs, handler(), {})

    program.__name__ = model.name
    return program
