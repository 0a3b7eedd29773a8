"""``ppcore rewrites``: what models are rewritten by, in the order of application."""

from __future__ import annotations

import argparse
import json

from ppcore import registry
from ppcore.cli.engines import columns
from ppcore.contract import describe
from ppcore.hooks import RewriteSpec


def run(arguments: argparse.Namespace) -> int:
    """Print the rewrites, and why some cannot be used."""
    found = sorted(registry.catalog().rewrites.values(), key=lambda s: (s.order, s.name))
    if arguments.json:
        print(json.dumps([as_data(spec) for spec in found], indent=2))
        return 0
    rows = [(s.name, str(s.order), describe(s.contract), str(s.origin), s.summary) for s in found]
    for line in columns([("REWRITE", "ORDER", "KEEPS", "FROM", "SUMMARY"), *rows]):
        print(line)
    for spec in found:
        reason = registry.unavailable(spec)
        if reason is not None:
            print(f"not available: rewrite {reason}")
    return 0


def as_data(spec: RewriteSpec) -> dict[str, object]:
    """One rewrite as JSON-able data."""
    return {
        "name": spec.name,
        "order": spec.order,
        "contract": type(spec.contract).__name__,
        "summary": spec.summary,
        "reference": spec.reference,
        "distribution": None if spec.origin is None else str(spec.origin),
        "available": registry.unavailable(spec) is None,
    }
