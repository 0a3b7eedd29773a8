"""``ppcore summary``: the table of a saved fit."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ppcore.fit import Fit


def run(arguments: argparse.Namespace) -> int:
    """Print the summary of the fit in the folder ``arguments.fit``."""
    from ppcore.fit import load

    print(table(load(arguments.fit)))
    return 0


def table(fit: Fit) -> str:
    """The summary with all its rows and columns, whatever the width of the terminal."""
    return fit.summary().to_string()
