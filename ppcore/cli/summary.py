"""``ppcore summary``: the table of a saved fit."""

from __future__ import annotations

import argparse
from pathlib import Path

from ppcore.errors import SettingsError


def run(arguments: argparse.Namespace) -> int:
    """Print the summary of the fit in the folder ``arguments.fit``."""
    path = Path(arguments.fit)
    if not path.exists():
        raise SettingsError(f"{path} does not exist. `ppcore sample --out DIR` saves a fit.")
    import ppcore

    print(ppcore.load(path).summary())
    return 0
