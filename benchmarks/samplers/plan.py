"""What to run: the rows of ``settings.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcore.errors import did_you_mean

FILE = Path(__file__).with_name("settings.toml")
PARTS = ("engine", "draws", "chains", "settings", "problem", "skip")


@dataclass(frozen=True)
class Row:
    """One engine with its settings on one target.

    Attributes
    ----------
    target, label : str
        As the table names them.
    engine : str
        Its registered name.
    settings : mapping
        Of its constructor.
    draws, chains : int
        Particles (or draws of each chain), and chains: 1 for a population.
    problem : str
        The target's variant, with another reference, that this row runs on.
    """

    target: str
    label: str
    engine: str
    settings: Mapping[str, Any]
    draws: int
    chains: int
    problem: str


def rows() -> list[Row]:
    """All rows, target by target in the order of the file.

    Raises ValueError for an entry that is none.
    """
    content = tomllib.loads(FILE.read_text())
    engines, targets = content["engines"], content["targets"]
    made = []
    for target, own in targets.items():
        for label in own:
            if label not in engines:
                raise ValueError(f"{target}: no engine {label!r}. {did_you_mean(label, engines)}")
        for label, common in engines.items():
            one = {**common, **own.get(label, {})}
            for part in one:
                if part not in PARTS:
                    raise ValueError(
                        f"{target}, {label}: no entry {part!r}. {did_you_mean(part, PARTS)}"
                    )
            if one.get("skip", False):
                continue
            settings = {**common.get("settings", {}), **own.get(label, {}).get("settings", {})}
            made.append(
                Row(
                    target,
                    label,
                    one.get("engine", label),
                    settings,
                    one.get("draws", 4096),
                    one.get("chains", 1),
                    one.get("problem", target),
                )
            )
    return made
