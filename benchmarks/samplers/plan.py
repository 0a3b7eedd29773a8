"""What to run: the rows of ``settings.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppcore.errors import did_you_mean

FILE = Path(__file__).with_name("settings.toml")
PARTS = ("engine", "draws", "chains", "settings", "problem")


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


def rows(
    targets: Sequence[str] | None = None, engines: Sequence[str] | None = None, every: bool = False
) -> list[Row]:
    """The rows that the file lists, of some targets and engines or of all.

    ``every``: also the engines that a target does not list.

    Raises ValueError for a name that is none.
    """
    content = tomllib.loads(FILE.read_text())
    common, known = content["engines"], content["targets"]
    _check("target", targets or (), known)
    _check("engine", engines or (), common)
    made = []
    for target in known if targets is None else targets:
        own = dict(known[target])
        listed = own.pop("engines")
        _check(f"engine of {target}", [*own, *listed], common)
        wanted = common if every else listed
        made.extend(
            _row(target, label, common[label], own.get(label, {}))
            for label in wanted
            if engines is None or label in engines
        )
    return made


def _row(target: str, label: str, common: Mapping[str, Any], own: Mapping[str, Any]) -> Row:
    one = {**common, **own}
    _check(f"entry of {label} on {target}", one, PARTS)
    return Row(
        target,
        label,
        one.get("engine", label),
        {**common.get("settings", {}), **own.get("settings", {})},
        one.get("draws", 4096),
        one.get("chains", 1),
        one.get("problem", target),
    )


def _check(what: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{name!r} is no {what}. {did_you_mean(name, known)}")
