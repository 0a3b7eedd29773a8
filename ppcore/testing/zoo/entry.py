"""One animal: a claim, whether it is true, and which checks should see that it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ppcore.contract import Contract
from ppcore.testing.reference.kernel_engine import KernelEngine
from ppcore.testing.subject import Subject

CONTINUOUS = ("normal", "gamma_scale", "regression", "funnel", "bimodal")
GAUSSIAN = ("normal", "regression", "state_space")
FINITE_ALL = ("finite_line", "finite_grid", "finite_hidden_chain")


@dataclass(frozen=True)
class Animal:
    """A mutant or a control.

    Attributes
    ----------
    subject : Subject
        What is checked, with the contract it claims.
    note : str
        What is broken, or why it is right although it looks wrong.
    control : bool
        A correct one, that no check may reject.
    detectable : bool
        Whether the suite is declared to reject it.
    why_not : str
        For an undetectable mutant: why no suite of this size sees it.
    killers : tuple of str
        Checks of which at least one must fail.
    """

    subject: Subject
    note: str
    control: bool = False
    detectable: bool = True
    why_not: str = ""
    killers: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.subject.name


def running(
    name: str,
    kernel: Any,
    step_size: float = 0.5,
    models: tuple[str, ...] = CONTINUOUS,
    auxiliary: tuple[str, ...] = (),
    contract: Contract | None = None,
) -> Subject:
    """A kernel run as an engine on joint draws, with its own contract or another one claimed."""
    engine = KernelEngine(kernel, {"step_size": step_size}, auxiliary)
    return Subject(name, contract or kernel.contract, engine=engine, models=models)


def listed(name: str, kernel: Any, contract: Contract | None = None) -> Subject:
    """A kernel whose transition matrix is built on the finite models."""
    return Subject(name, contract or kernel.contract, kernel=kernel, finite=FINITE_ALL)
