"""A misspelt setting is an error."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ppcore.errors import SettingsError
from ppcore.testing.checks.base import Check
from ppcore.testing.result import Finding
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject

BOGUS = "no_such_setting_"


def run(session: Session) -> Iterator[Finding]:
    """The constructor's signature is closed, and a name it does not know raises."""
    subject = session.subject
    cls = type(next(e for e in _carriers(subject) if e is not None))
    kinds = [p.kind for p in inspect.signature(cls).parameters.values()]
    if inspect.Parameter.VAR_KEYWORD in kinds:
        yield Finding("-", False, f"{cls.__name__} takes **kwargs: close the signature.")
        return
    try:
        cls(**{BOGUS: 1})
    except (TypeError, SettingsError):
        yield Finding("-", True, "an unknown setting raises")
        return
    yield Finding("-", False, f"{cls.__name__}({BOGUS}=1) raised nothing.")


def _carriers(subject: Subject) -> tuple[Any, ...]:
    taught = getattr(subject.amortiser, "engine", None)
    return subject.engine, subject.populator, subject.solver, taught


CHECK = Check(
    name="settings",
    law="unknown settings are refused",
    applies=lambda s: any(e is not None for e in _carriers(s)),
    run=run,
    manners=True,
)
