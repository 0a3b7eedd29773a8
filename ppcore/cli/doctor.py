"""``ppcore doctor``: what is here, where, and what is wrong with it."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from ppcore import registry
from ppcore.cli.engines import columns, problems


def run(arguments: argparse.Namespace) -> int:
    """Print the report; the exit status is 1 if a plugin is broken or a name is refused."""
    known = registry.catalog()
    print(f"Python {platform.python_version()} at {sys.executable} on {platform.platform()}")
    for title, lines in (
        ("Versions", columns(list(_versions()))),
        ("Devices", _devices()),
        ("Folders", _folders()),
        ("Plugins", _plugins(known)),
    ):
        print(f"\n{title}")
        for line in lines:
            print(f"  {line}")
    wrong = list(problems(known))
    if wrong:
        print("\nOut of use")
    for line in wrong:
        print(f"  {line}")
    return int(bool(known.refused) or any(plugin.error for plugin in known.plugins))


def _versions() -> Iterator[tuple[str, str]]:
    """ppcore, then what it depends on, then what its extras add; test tools are left out."""
    try:
        yield "ppcore", version("ppcore")
        requirements = [line.partition(";") for line in requires("ppcore") or ()]
    except PackageNotFoundError:
        yield "ppcore", "not installed, so it has no plugins: pip install ppcore"
        return
    wanted: dict[str, str] = {}
    for requirement, _, marker in requirements:
        extra = marker.partition("extra ==")[2].strip(" '\")")
        if extra not in ("all", "test"):
            wanted.setdefault(re.split(r"[^\w.-]", requirement, maxsplit=1)[0], extra)
    for name, extra in wanted.items():
        remedy = f"ppcore[{extra}]" if extra else name
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, f'not installed: pip install "{remedy}"'


def _devices() -> Iterator[str]:
    try:
        import jax

        for device in jax.devices():
            yield f"{device.platform} {device.id}: {device.device_kind}"
        yield f"{os.cpu_count()} processors"
    except Exception as error:
        yield f"JAX finds no device: {type(error).__name__}: {error}"


def _folders() -> Iterator[str]:
    from ppcore.run import cache

    yield f"compiled programs: {cache.enable() or 'not kept'} (PPCORE_CACHE_DIR, PPCORE_CACHE=off)"
    yield f"ppcore: {os.path.dirname(registry.__file__)}"


def _plugins(known: registry.Catalog) -> Iterator[str]:
    for plugin in known.plugins:
        state = "broken" if plugin.error else "blocked" if plugin.blocked else "in use"
        offers = ", ".join(spec.name for spec in plugin.specs) or "nothing"
        yield f"{plugin.origin.plugin} of {plugin.origin}: {state}, offers {offers}"
