"""What the planner chose and why, as data that is stored with the draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Applied:
    """What one rewrite did, or why it did nothing."""

    name: str
    applied: bool
    line: str


@dataclass(frozen=True)
class Plan:
    """How the draws were (or will be) made.

    Attributes
    ----------
    choice : str
        "exact", "quadrature", "importance", "smc", or the name of a Markov chain engine.
    reason : str
        Why, in a sentence, with the certificate's numbers.
    rewrites : tuple of Applied
        In the order of application.
    passed_over : tuple of str
        What was considered before, each with the reason against it.
    dims : (int, int)
        Coordinates before and after the rewrites.
    seconds : float
        Host time that the rewrites took.

    >>> print(Plan("exact", "every site is finite."))
    exact: every site is finite.
    """

    choice: str
    reason: str
    rewrites: tuple[Applied, ...] = ()
    passed_over: tuple[str, ...] = ()
    dims: tuple[int, int] = (0, 0)
    seconds: float = 0.0

    def __str__(self) -> str:
        done = [f"{r.name}: {r.line}" for r in self.rewrites if r.applied]
        lines = [f"{self.choice}: {self.reason}"]
        if done:
            lines.append(f"rewrites ({self.dims[0]} to {self.dims[1]} coordinates):")
            lines += [f"  {line}" for line in done]
        lines += [f"passed over: {why}" for why in self.passed_over]
        return "\n".join(lines)

    def as_data(self) -> dict[str, Any]:
        """A JSON-able form; :meth:`from_data` goes back."""
        return {**asdict(self), "dims": list(self.dims)}

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Plan:
        """The inverse of :meth:`as_data`."""
        return cls(
            data["choice"],
            data["reason"],
            tuple(Applied(**r) for r in data["rewrites"]),
            tuple(data["passed_over"]),
            (data["dims"][0], data["dims"][1]),
            data["seconds"],
        )
