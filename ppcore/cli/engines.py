"""``ppcore engines``: what is installed, without importing any of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from ppcore import registry
from ppcore.contract import Contract
from ppcore.registry import Catalog, EngineSpec
from ppcore.testing import certificate
from ppcore.testing.certificate import Certificate


def run(arguments: argparse.Namespace) -> int:
    """Print the engines, and what stands in the way of those that cannot be used."""
    known = registry.catalog()
    if arguments.json:
        print(json.dumps(as_data(known), indent=2))
        return 0
    issued = certificate.known(known.engines.values())
    rows = [_row(spec, issued) for _, spec in sorted(known.engines.items())]
    for line in columns([("ENGINE", "CONTRACT", "FROM", "AVAILABLE", "CHECKED", "SUMMARY"), *rows]):
        print(line)
    for line in problems(known):
        print(line)
    return 0


def problems(known: Catalog) -> Iterator[str]:
    """One line for every engine, frontend, plugin or name that is out of use, with the reason."""
    for spec in (*known.engines.values(), *known.frontends.values()):
        reason = registry.unavailable(spec)
        if reason is not None:
            yield f"not available: {spec.kind} {reason}"
    for plugin in known.plugins:
        who = f"plugin {plugin.origin.plugin!r} of {plugin.origin}"
        if plugin.error:
            yield f"broken: {who}: {plugin.error}"
        elif plugin.blocked:
            yield f"blocked: {who}: {plugin.blocked}"
    yield from (f"refused: {reason}" for reason in known.refused.values())
    yield from (f"note: {note}" for note in known.notes)


def as_data(known: Catalog) -> dict[str, Any]:
    """The catalogue as JSON-able data."""
    engines = []
    issued = certificate.known(known.engines.values())
    for name, spec in sorted(known.engines.items()):
        engines.append(
            {
                "name": name,
                "contract": {"law": type(spec.contract).__name__, **asdict(spec.contract)},
                "needs": list(spec.needs),
                "requires": list(spec.requires),
                "summary": spec.summary,
                "reference": spec.reference,
                "origin": asdict(spec.origin) if spec.origin else None,
                "unavailable": registry.unavailable(spec),
                "certificate": asdict(issued[name]) if name in issued else None,
            }
        )
    plugins = [{**asdict(p.origin), "blocked": p.blocked, "error": p.error} for p in known.plugins]
    return {
        "engines": engines,
        "plugins": plugins,
        "refused": dict(known.refused),
        "notes": list(known.notes),
    }


def contract_text(contract: Contract) -> str:
    """The law, with what differs from its defaults.

    >>> from ppcore.contract import Invariant
    >>> contract_text(Invariant()), contract_text(Invariant(reversible=True))
    ('Invariant', 'Invariant(reversible)')
    """
    said = []
    for field in fields(contract):
        value = getattr(contract, field.name)
        if value != field.default:
            said.append(field.name if value is True else f"{field.name}={value}")
    law = type(contract).__name__
    return f"{law}({', '.join(said)})" if said else law


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells as lines, every column as wide as its widest cell.

    >>> list(columns([("a", "b"), ("long", "c")]))
    ['a     b', 'long  c']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip()


def _row(spec: EngineSpec, issued: Mapping[str, Certificate]) -> tuple[str, ...]:
    available = "yes" if registry.unavailable(spec) is None else "no"
    checked = certificate.status(issued.get(spec.name), certificate.module_of(spec.load))
    law = contract_text(spec.contract)
    return (spec.name, law, str(spec.origin), available, checked, spec.summary)
