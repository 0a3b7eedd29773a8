"""``ppcore check``: does an engine keep its promise? ``--zoo``: do the checks keep theirs?"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ppcore.errors import SettingsError, did_you_mean


def add_parser(command: Callable[[str, str], argparse.ArgumentParser]) -> None:
    """The arguments of ``ppcore check``; ``command`` makes a subparser of a name and a help."""
    parser = command("check", "check engines against what they promise, and the checks themselves")
    parser.add_argument("name", nargs="*", metavar="ENGINE", help="engines of `ppcore engines`")
    parser.add_argument("--zoo", action="store_true", help="check the checks: run every mutant")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the engine (may be repeated)",
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="CHECK", help="run this check alone"
    )
    parser.add_argument(
        "--model", action="append", default=[], metavar="MODEL", help="use this check model alone"
    )
    parser.add_argument(
        "--expect",
        action="append",
        default=[],
        metavar="CHECK=REASON",
        help="a check that is known to fail, and why; strict (may be repeated)",
    )
    parser.add_argument("--seed", type=int, help="another seed than the fixed one")
    parser.add_argument(
        "--replicates", type=int, metavar="N", help="joint draws per model (more see more)"
    )
    parser.add_argument("--log", metavar="FILE", help="append results as JSON lines, with e-values")
    parser.add_argument(
        "--ship",
        action="store_true",
        help="write certificates into the engines' own packages, to be distributed with them; "
        "without names, for every engine that lacks a valid one",
    )
    parser.add_argument("--certificates", metavar="FILE", help="where to keep the certificate")
    parser.add_argument(
        "--out", default="docs", metavar="DIR", help="where --zoo writes the kill matrix"
    )


def run(arguments: argparse.Namespace) -> int:
    """0 if everything passed, 1 if a check failed."""
    if arguments.ship:
        return _ship(arguments)
    if arguments.zoo == bool(arguments.name):
        raise SettingsError("Name an engine (see `ppcore engines`), or pass --zoo.")
    if arguments.zoo:
        return _zoo(arguments)
    return max(_engine(arguments, name) for name in arguments.name)


def _engine(arguments: argparse.Namespace, name: str) -> int:
    from ppcore import registry
    from ppcore.run import cache
    from ppcore.testing.certify import check_engine, issue
    from ppcore.testing.zoo import animals

    cache.enable()
    plan = _plan(arguments)
    log = Path(arguments.log) if arguments.log else None
    part = bool(arguments.only or arguments.model or arguments.set)
    progress = _progress if sys.stderr.isatty() else None
    if name not in registry.catalog().engines and name in animals():
        from ppcore.testing.result import write_log
        from ppcore.testing.suite import run_suite

        report = run_suite(animals()[name].subject, plan, progress)
        if log is not None:
            write_log(log, report.results)
        part = True
    else:
        settings, reasons = _settings(arguments.set), _reasons(arguments.expect)
        report = check_engine(name, settings, plan, log, progress, reasons)
    _clear()
    for result in report.results:
        print(result)
    print(f"\n{report.verdict} ({report.seconds:.0f} s)")
    if not part:
        path = Path(arguments.certificates) if arguments.certificates else None
        issue(name, report, plan, path)
    return 0 if report.ok else 1


def _ship(arguments: argparse.Namespace) -> int:
    """Issue the certificates that a distribution ships: of the engines named, or of all whose
    certificate is missing, of other code, or not passed."""
    import jax

    from ppcore import registry
    from ppcore.run import cache
    from ppcore.testing import certificate
    from ppcore.testing.certify import check_engine, issue

    if arguments.zoo or arguments.only or arguments.model or arguments.set or arguments.expect:
        raise SettingsError("--ship checks engines as they are and in full: leave the rest out.")
    cache.enable()
    plan, engines = _plan(arguments), registry.catalog().engines
    names = arguments.name or sorted(certificate.to_ship(engines.values()))
    failed = 0
    for i, name in enumerate(names):
        spec = registry.spec(name)
        path = certificate.shipped_path(certificate.module_of(spec.load))
        reason = registry.unavailable(spec)
        if reason is None and path is None:
            reason = f"{name!r} is in no package that could hold its certificate"
        if reason is not None or path is None:
            print(f"[{i + 1}/{len(names)}] {name}: left out: {reason}", flush=True)
            failed = 1
            continue
        report = check_engine(name, plan=plan)
        issue(name, report, plan, path)
        print(f"[{i + 1}/{len(names)}] {report.verdict} ({report.seconds:.0f} s)", flush=True)
        for result in report.failures:
            print(result, flush=True)
        failed = max(failed, int(not report.ok))
        # The programs of one engine are of no use to the next, and forty engines' fill a memory.
        jax.clear_caches()
    if not names:
        print("Every shipped certificate is there, of this code, and passed.")
    return failed


def _zoo(arguments: argparse.Namespace) -> int:
    from dataclasses import replace

    from ppcore.run import cache
    from ppcore.testing.result import write_log
    from ppcore.testing.zoo.matrix import headline, run_zoo, summary, verdicts, zoo_plan
    from ppcore.testing.zoo.write import write

    plan = zoo_plan()
    if arguments.seed is not None:
        plan = replace(plan, seed=arguments.seed)
    if arguments.replicates is not None:
        plan = replace(plan, replicates=arguments.replicates)
    began = time.perf_counter()
    width = 28

    def show(sighting: Any, done: int, total: int) -> None:
        killed = ", ".join(sighting.killed_by) or "-"
        print(f"[{done:3}/{total}] {sighting.name:<{width}} {killed}", flush=True)

    found = run_zoo(plan=plan, progress=show, prepare=cache.enable)
    said = verdicts(found)
    wrong = [n for n, v in said.items() if v in ("missed", "false alarm")]
    if arguments.log:
        write_log(Path(arguments.log), [r for s in found.values() for r in s.results])
    paths = write(found, Path(arguments.out))
    print(f"\n{headline(found)} ({time.perf_counter() - began:.0f} s)")
    for name in wrong:
        print(f"{said[name]}: {name}")
    print(f"Written: {paths[0]}, {paths[1]}")
    n = summary(found)
    return 0 if n["killed"] == n["detectable"] and not n["false alarms"] else 1


def _plan(arguments: argparse.Namespace) -> Any:
    from dataclasses import replace

    from ppcore.testing.models.pool import pool
    from ppcore.testing.suite import Plan

    plan = Plan(only=tuple(arguments.only))
    if arguments.seed is not None:
        plan = replace(plan, seed=arguments.seed)
    if arguments.replicates is not None:
        if arguments.replicates < 1:
            raise SettingsError(f"--replicates {arguments.replicates}: at least 1 is needed.")
        plan = replace(plan, replicates=arguments.replicates)
    if arguments.model:
        plan = replace(plan, models=tuple(pool(tuple(arguments.model)).values()))
    return plan


def _settings(pairs: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` with values read as JSON where they are JSON.

    >>> _settings(["max_depth=8", "metric=dense"])
    {'max_depth': 8, 'metric': 'dense'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise SettingsError(f"--set {pair}: write KEY=VALUE.")
        try:
            found[key] = json.loads(text)
        except ValueError:
            found[key] = text
    return found


def _reasons(pairs: list[str]) -> dict[str, str]:
    """``CHECK=REASON``, with checks that exist and reasons that are given."""
    from ppcore.testing.checks import CHECKS

    known = {check.name for check in CHECKS}
    found: dict[str, str] = {}
    for pair in pairs:
        name, _, reason = pair.partition("=")
        if name not in known:
            raise SettingsError(f"--expect {pair}: no such check. {did_you_mean(name, known)}")
        if not reason.strip():
            raise SettingsError(f"--expect {pair}: write CHECK=REASON.")
        found[name] = reason.strip()
    return found


def _progress(check: str, done: int, total: int) -> None:
    print(f"\r\033[K[{done + 1}/{total}] {check}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
