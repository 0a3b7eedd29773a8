"""The suite as pytest tests, one per check."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ppcore import precision
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject, engine_subject
from ppcore.testing.suite import Plan, applicable, count_tests, models_of, run_check


def parametrize_engine_checks(
    engines: Iterable[Any],
    expected_failures: Mapping[str, str] | None = None,
    plan: Plan | None = None,
) -> Callable[[Any], Any]:
    """A pytest decorator: the test gets ``check``, a callable that raises if the engine fails.

    Parameters
    ----------
    engines : iterable of Engine or Subject
        Instances with a contract; checks are generated from it.
    expected_failures : mapping of str to str, optional
        Check name -> reason. Such tests are strict expected failures.
    plan : Plan, optional
        Seed, replicates and error budget (shared by the statistical tests of each engine).

    Examples
    --------
    >>> from ppcore.testing.reference.kernel_engine import KernelEngine
    >>> from ppcore.testing.reference.metropolis import RandomWalk
    >>> @parametrize_engine_checks([KernelEngine(RandomWalk(), {"step_size": 0.5})])
    ... def test_mine(check):
    ...     check()
    """
    import pytest

    plan = plan or Plan()
    cases = []
    for engine in engines:
        subject = engine if isinstance(engine, Subject) else engine_subject(engine)
        reasons = {**subject.expected_failures, **(expected_failures or {})}
        session = _LazySession(subject, plan)
        for check in applicable(subject, plan.only):
            reason = reasons.get(check.name)
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            cases.append(
                pytest.param(
                    _Case(session, check.name), marks=marks, id=f"{subject.name}-{check.name}"
                )
            )
    return pytest.mark.parametrize("check", cases)


class _LazySession:
    """One session per engine, made at the first test and shared by the rest."""

    def __init__(self, subject: Subject, plan: Plan) -> None:
        self.subject = subject
        self.plan = plan
        self._session: Session | None = None

    def get(self) -> Session:
        if self._session is None:
            plan = self.plan
            tests = plan.tests or max(1, count_tests(self.subject, plan))
            self._session = Session(
                self.subject,
                models_of(self.subject, plan),
                plan.seed,
                plan.budget / tests,
                plan.replicates,
                plan.optimise,
            )
        return self._session


class _Case:
    """One check of one engine, ready to run."""

    def __init__(self, session: _LazySession, name: str) -> None:
        self._lazy = session
        self.name = name

    def __call__(self) -> None:
        (check,) = (c for c in applicable(self._lazy.subject) if c.name == self.name)
        with precision.scope("float64"):
            session = self._lazy.get()
            failed = [r for r in run_check(session, check, strict=False) if not r.ok]
        if failed:
            raise AssertionError("\n".join(map(str, failed)))
