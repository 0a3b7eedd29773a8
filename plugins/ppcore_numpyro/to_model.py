"""``to_numpyro``: a ppcore model as a NumPyro program, by the functor of all semantics."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpyro
from numpyro.contrib.control_flow import scan

from ppcore.diagram import Box
from ppcore.diagram.condition import condition
from ppcore.semantics.interpret import Handler, interpret


class Statements(Handler):
    """Boxes as NumPyro statements; whoever runs the program decides what they mean."""

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        with _plates(box):
            value = numpyro.sample(str(box.name), distribution)
        return value, None

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        with _plates(box):
            numpyro.sample(str(box.name), distribution, obs=value)

    def factor(self, box: Box, log_weight: Any) -> Any:
        numpyro.factor(str(box.name), log_weight.sum())

    def named(self, box: Box, value: Any) -> Any:
        numpyro.deterministic(str(box.name), value)

    def iterate(self, step: Any, carry: Any, xs: Any, length: int, reverse: bool) -> Any:
        return scan(step, carry, xs, length=length, reverse=reverse)


@contextlib.contextmanager
def _plates(box: Box) -> Any:
    with contextlib.ExitStack() as stack:
        for plate in box.plates:
            stack.enter_context(numpyro.plate(plate.name, plate.size, dim=plate.axis))
        yield


def to_numpyro(model: Any) -> Callable[[], None]:
    """A NumPyro program of no arguments with the model's sites, plates, data and evidence.

    Its log density is the model's: both are one diagram under two functors. Run it in double
    precision (``ppcore.precision.scope("float64")`` or NumPyro's own switch) to get all digits.

    Parameters
    ----------
    model : Model
        With its evidence; discrete latent sites stay in it, for NumPyro to enumerate.
    """
    diagram = condition(model.diagram, model.observed)
    inputs = (*model.data, *(model.evidence[name] for name in model.observed))

    def program() -> None:
        interpret(diagram, inputs, Statements(), {})

    program.__name__ = model.name
    return program
