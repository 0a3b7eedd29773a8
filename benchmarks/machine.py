"""What a measurement ran on: processor, versions, load."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def header(packages: Iterable[str], settings: dict[str, object]) -> list[str]:
    """Lines for the top of a report: date, machine, versions, settings."""
    found = [f"{name} {v}" for name in packages if (v := installed(name)) is not None]
    return [
        f"date: {datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"machine: {processor()}, {os.cpu_count()} cores, {platform.system()}, "
        f"load average {load()}",
        f"versions: Python {platform.python_version()}, {', '.join(found)}",
        "settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()),
    ]


def installed(package: str) -> str | None:
    """The version of a distribution, or None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def load() -> str:
    """The load average of the last minute: timings beside other work say little."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
