"""Check an engine by name and issue its certificate."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ppcore import registry
from ppcore.contract import Biased, Contract, describe
from ppcore.errors import UnsupportedError
from ppcore.testing import certificate as certificates
from ppcore.testing.certificate import Certificate
from ppcore.testing.models.pool import DIM
from ppcore.testing.result import Report, write_log
from ppcore.testing.subject import Subject
from ppcore.testing.suite import Plan, run_suite
from ppcore.testing.taught import Taught
from ppcore.tuning.preconditioner import identity


def subject_of(
    name: str, engine: Any, contract: Contract, expected_failures: Mapping[str, str] | None = None
) -> Subject:
    """An installed engine as a subject, by the contract that it is listed with.

    What the contract is checked on: an engine with ``block`` on joint draws (of a ``Biased`` one
    the kernel, which shows the order of the bias), one with ``populate`` by its ``stage``, one with
    ``solve`` on models that have answers in closed form, one with ``learn`` on what it has learnt
    of a conjugate model.

    Raises
    ------
    UnsupportedError
        If the engine has none of these, so that the checks have nothing to run.
    """
    reasons = dict(expected_failures or {})
    if hasattr(engine, "populate"):
        return Subject(
            name,
            contract,
            populator=engine,
            stage=engine.stage,
            finite=(),
            expected_failures=reasons,
        )
    if hasattr(engine, "solve"):
        return Subject(name, contract, solver=engine, expected_failures=reasons)
    if hasattr(engine, "learn"):
        return Subject(name, contract, amortiser=Taught(engine), expected_failures=reasons)
    if not hasattr(engine, "block"):
        raise UnsupportedError(
            f"{name!r} ({describe(contract)}) is no engine that can be checked: it has neither "
            "`warmup`, `init` and `block`, nor `populate`, `solve` or `learn`."
        )
    found = Subject(name, contract, engine=engine, expected_failures=reasons)
    if isinstance(contract, Biased) and hasattr(engine, "kernel"):
        return replace(found, kernel=engine.kernel, params=_untuned(engine.kernel, found.step))
    return found


def _untuned(kernel: Any, step: float) -> Any:
    """Parameters for the model on which the order of a bias is measured, with F = I."""
    if not hasattr(kernel, "parameters"):
        return {}
    one = identity("dense", DIM, 0, np.dtype(float))
    return kernel.parameters(one, np.float64(step), np.float64(1.0))


def check_engine(
    name: str,
    settings: Mapping[str, Any] | None = None,
    plan: Plan | None = None,
    log: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    expected_failures: Mapping[str, str] | None = None,
) -> Report:
    """Run the suite on an installed engine.

    Parameters
    ----------
    name : str
        As in ``ppcore engines``.
    settings : mapping, optional
        Its constructor's arguments.
    plan : Plan, optional
    log : path, optional
        JSON lines of every result, e-values included, are appended there.
    progress : callable, optional
    expected_failures : mapping of str to str, optional
        Check name -> reason; strict.
    """
    spec = registry.spec(name)
    engine = registry.engine(name, dict(settings or {}))
    subject = subject_of(name, engine, spec.contract, expected_failures)
    report = run_suite(subject, plan, progress)
    if log is not None:
        write_log(log, report.results)
    return report


def issue(name: str, report: Report, plan: Plan, path: Path | None = None) -> Certificate:
    """Write the certificate of a whole suite (not of a part chosen by ``only``).

    Parameters
    ----------
    name : str
    report : Report
    plan : Plan
    path : path, optional
        The file; by default the user's own.
    """
    spec = registry.spec(name)
    module = certificates.module_of(spec.load)
    made = Certificate(
        engine=name,
        version=str(spec.origin) if spec.origin else "",
        code=certificates.code_hash(module) if module else "unknown",
        passed=report.ok,
        resolution=report.resolution,
        order=report.order,
        budget=plan.budget,
        seed=plan.seed,
        tests=len(report.results),
        contract=describe(spec.contract),
        verdict=report.verdict,
        date=datetime.date.today().isoformat(),
    )
    certificates.write(made, path)
    return made
