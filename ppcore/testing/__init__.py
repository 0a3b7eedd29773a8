"""Checks generated from contracts: run them on an engine of your own, or on the zoo.

Everything is imported when it is first used, so that certificates can be listed without JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppcore.testing.certificate import Certificate
    from ppcore.testing.certify import check_engine
    from ppcore.testing.checks.rewrite import compare_densities, compare_tables
    from ppcore.testing.models import CheckModel, FiniteTarget, finite_target, from_target
    from ppcore.testing.parametrize import parametrize_engine_checks
    from ppcore.testing.reference.kernel_engine import KernelEngine
    from ppcore.testing.result import Report, Result
    from ppcore.testing.subject import Subject, engine_subject
    from ppcore.testing.suite import Plan, run_suite

_HOMES = {
    "Certificate": "certificate",
    "CheckModel": "models",
    "FiniteTarget": "models",
    "KernelEngine": "reference.kernel_engine",
    "Plan": "suite",
    "Report": "result",
    "Result": "result",
    "Subject": "subject",
    "check_engine": "certify",
    "compare_densities": "checks.rewrite",
    "compare_tables": "checks.rewrite",
    "engine_subject": "subject",
    "finite_target": "models",
    "from_target": "models",
    "parametrize_engine_checks": "parametrize",
    "run_suite": "suite",
}
__all__ = [
    "Certificate",
    "CheckModel",
    "FiniteTarget",
    "KernelEngine",
    "Plan",
    "Report",
    "Result",
    "Subject",
    "check_engine",
    "compare_densities",
    "compare_tables",
    "engine_subject",
    "finite_target",
    "from_target",
    "parametrize_engine_checks",
    "run_suite",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
