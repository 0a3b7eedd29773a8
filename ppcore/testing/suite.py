"""Run every check that a contract calls for, within one error budget."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ppcore import precision
from ppcore.contract import describe
from ppcore.errors import SettingsError, did_you_mean
from ppcore.testing.checks import CHECKS, Check
from ppcore.testing.models import POOL, CheckModel, pool
from ppcore.testing.result import Finding, Report, Result
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject

BUDGET = 1e-3
SEED = 20_260_101


@dataclass(frozen=True)
class Plan:
    """How a suite is run.

    Attributes
    ----------
    seed : int
    replicates : int
        Joint draws per model.
    budget : float
        Probability that a correct subject fails anything, over the whole run.
    tests : int, optional
        Statistical tests that share the budget; by default those of this subject.
    only : tuple of str
        Check names; empty is all.
    models : tuple of CheckModel, optional
        Instead of the pool.
    first_failure : bool
        Stop a subject at its first failing check.
    optimise : bool
        Let the compiler work for speed; off, it compiles twice as fast.
    """

    seed: int = SEED
    replicates: int = 10_000
    budget: float = BUDGET
    tests: int | None = None
    only: tuple[str, ...] = ()
    models: tuple[CheckModel, ...] | None = None
    first_failure: bool = False
    optimise: bool = True


def applicable(subject: Subject, only: Sequence[str] = ()) -> tuple[Check, ...]:
    """The checks of a subject's contract, in order.

    Raises
    ------
    SettingsError
        If ``only`` names a check that does not exist.
    """
    known = {c.name for c in CHECKS}
    for name in only:
        if name not in known:
            raise SettingsError(f"No check is called {name!r}. {did_you_mean(name, known)}")
    return tuple(c for c in CHECKS if c.applies(subject) and (not only or c.name in only))


def models_of(subject: Subject, plan: Plan) -> tuple[CheckModel, ...]:
    """The models that the plan, the subject, or the pool name, in this order."""
    if plan.models is not None:
        return plan.models
    if subject.models is None and subject.stage is not None:
        return tuple(pool(tuple(n for n, m in POOL.items() if m.log_evidence)).values())
    if subject.models is None and getattr(subject.engine, "coupled", False):
        return tuple(pool(tuple(n for n, m in POOL.items() if m.posterior)).values())
    if subject.models is None:
        return tuple(POOL.values())
    return tuple(pool(subject.models).values())


def count_tests(subject: Subject, plan: Plan) -> int:
    """How many statistical tests the subject faces with all its checks (not only ``only``)."""
    models = len(models_of(subject, plan))
    single = {
        "goodness",
        "solved_draws",
        "solved_weighted",
        "normalisation",
        "bias_order",
        "consistency",
        "calibration",
        "calibration_at_data",
    }
    return sum(1 if c.name in single else models for c in applicable(subject) if c.statistical)


def run_suite(
    subject: Subject,
    plan: Plan | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Check one subject.

    Every statistical test gets budget / tests as its error probability; deterministic and exact
    checks cost nothing. Whatever a check raises becomes a failure of that check.

    Parameters
    ----------
    subject : Subject
    plan : Plan, optional
    progress : callable, optional
        Called with (check name, number done, number in all).

    Examples
    --------
    >>> from ppcore.testing.zoo import zoo_subject
    >>> run_suite(zoo_subject("affine_map")).ok
    True
    """
    plan = plan or Plan()
    checks = applicable(subject, plan.only)
    tests = plan.tests or max(1, count_tests(subject, plan))
    began = time.perf_counter()
    results: list[Result] = []
    with precision.scope("float64"):
        session = Session(
            subject,
            models_of(subject, plan),
            plan.seed,
            plan.budget / tests,
            plan.replicates,
            plan.optimise,
        )
        for i, check in enumerate(checks):
            if progress is not None:
                progress(check.name, i, len(checks))
            results += run_check(session, check)
            if plan.first_failure and not all(r.ok for r in results):
                break
    return Report(
        subject.name,
        describe(subject.contract),
        tuple(results),
        time.perf_counter() - began,
        plan.budget,
    )


def run_check(session: Session, check: Check, strict: bool = True) -> list[Result]:
    """Results of one check; with ``strict``, expected failures are accounted for."""
    began = time.perf_counter()
    findings: list[Finding] = []
    try:
        for finding in check.run(session):
            findings.append(finding)
    except Exception as error:
        findings.append(Finding("-", False, _explain(error)))
    reason = session.subject.expected_failures.get(check.name) if strict else None
    seconds = (time.perf_counter() - began) / max(1, len(findings))
    results = [_result(session, check, f, reason, seconds) for f in findings]
    if reason is not None and all(f.ok for f in findings):
        message = f"declared to fail ({reason}), but passed: remove the declaration."
        results.append(
            Result(session.subject.name, check.name, "-", "xpass", message, session.seed)
        )
    return results


def _result(
    session: Session, check: Check, f: Finding, reason: str | None, seconds: float
) -> Result:
    verdict = "pass" if f.ok else "fail" if reason is None else "xfail"
    message = f.message if verdict != "xfail" else f"{f.message} (expected: {reason})"
    return Result(
        session.subject.name,
        check.name,
        f.model,
        verdict,
        message,
        session.seed,
        session.alpha if check.statistical else None,
        f.log_e,
        f.resolution,
        seconds,
        f.order,
    )


def _explain(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if "/jax/" not in f.filename), None)
    where = f" at {place.filename.rsplit('/', 1)[-1]}:{place.lineno}" if place else ""
    lines = str(error).strip().splitlines() or [""]
    return f"raised {type(error).__name__}{where}: {lines[0][:300]}"
