"""What a check is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ppcore.testing.result import Finding
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject


@dataclass(frozen=True)
class Check:
    """One law, tested.

    Attributes
    ----------
    name : str
        What results and ``--only`` call it.
    law : str
        The law in one line.
    applies : callable
        Whether a subject can be checked so.
    run : callable
        Yields one finding per model; statistical ones spend ``session.alpha`` each.
    statistical : bool
        Whether it can reject a correct engine by chance.
    manners : bool
        Whether it is about the protocol (shapes, seeds, traces) and not about a distribution.
    """

    name: str
    law: str
    applies: Callable[[Subject], bool]
    run: Callable[[Session], Iterator[Finding]]
    statistical: bool = False
    manners: bool = False
