"""The sampling semantics: each box draws from its distribution, given its inputs."""

from __future__ import annotations

from typing import Any

from ppcore.diagram import Box, Diagram
from ppcore.semantics.interpret import Handler, interpret, refuse


class Sample(Handler):
    """Sites with an entry take it; all others are drawn. Records are the values."""

    needs_key = True

    def latent(self, box: Box, distribution: Any, given: Any, key: Any) -> tuple[Any, Any]:
        if given is not None:
            return given, given
        if not box.spec[3]:
            raise refuse(
                str(box.name),
                "has an improper prior, which cannot be drawn from",
                "Give it a proper distribution, or a value.",
            )
        value = distribution.sample(key)
        if box.cod[0].support.discrete:
            value = value.astype(int)
        return value, value

    def observed(self, box: Box, distribution: Any, value: Any) -> Any:
        return value

    def factor(self, box: Box, log_weight: Any) -> Any:
        return log_weight.sum()

    def named(self, box: Box, value: Any) -> Any:
        return value


def simulate(
    diagram: Diagram, inputs: tuple[Any, ...], given: dict[str, Any], key: Any
) -> dict[str, Any]:
    """One forward draw of every site, {name: value}; sites in ``given`` keep their value.

    Factors do not act on draws; their log weights are not returned.
    """
    records = interpret(diagram, inputs, Sample(), given, key)[1]
    factors = set(diagram.named("factor"))
    return {n: v for n, v in records.items() if n not in factors}
