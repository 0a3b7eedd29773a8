"""Data and reference draws from a directory in posteriordb's layout."""

from __future__ import annotations

import json
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppcore.errors import PPCoreError, did_you_mean

_ELEMENT = re.compile(r"([^\[]+)(?:\[([\d,]+)\])?$")


class DatabaseError(PPCoreError):
    """The directory is not in posteriordb's layout, or lacks what was asked for."""


@dataclass(frozen=True)
class Database:
    """A directory that holds ``posteriors``, ``data`` and ``reference_posteriors``.

    Raises :class:`DatabaseError` if it has no ``posteriors``.
    """

    path: Path

    def __post_init__(self) -> None:
        if not (self.path / "posteriors").is_dir():
            raise DatabaseError(
                f"{self.path} has no folder `posteriors`. Name the directory `posterior_database` "
                "of a copy of posteriordb."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all posteriors, in alphabetical order."""
        return tuple(sorted(p.stem for p in (self.path / "posteriors").glob("*.json")))

    def data(self, name: str) -> dict[str, Any]:
        """The data of a posterior: numbers, and nested lists as arrays."""
        stored = self._read(self.path / "data" / "data" / self._about(name)["data_name"])
        return {k: np.asarray(v) if isinstance(v, list) else v for k, v in stored.items()}

    def has_reference(self, name: str) -> bool:
        """Whether there are reference draws."""
        return self._about(name).get("reference_posterior_name") is not None

    def reference(self, name: str) -> dict[str, np.ndarray] | None:
        """Reference draws by element ("beta[1]", …): float[chains, draws]; None if there are none.

        The first index counts from 1.
        """
        stored = self._about(name).get("reference_posterior_name")
        if stored is None:
            return None
        folder = self.path / "reference_posteriors" / "draws" / "draws"
        chains = self._read(folder / stored)
        return {k: np.array([chain[k] for chain in chains], float) for k in chains[0]}

    def _about(self, name: str) -> dict[str, Any]:
        if name not in self.names:
            raise DatabaseError(
                f"{self.path} has no posterior {name!r}. {did_you_mean(name, self.names)}"
            )
        return json.loads((self.path / "posteriors" / f"{name}.json").read_text())  # type: ignore[no-any-return]

    def _read(self, stem: Path) -> Any:
        """The JSON of ``stem.json.zip``, or of ``stem.json``."""
        packed, plain = (stem.with_name(f"{stem.name}.json{end}") for end in (".zip", ""))
        if packed.exists():
            with zipfile.ZipFile(packed) as archive:
                return json.loads(archive.read(archive.namelist()[0]))
        if plain.exists():
            return json.loads(plain.read_text())
        raise DatabaseError(f"{packed} is not there; the copy of posteriordb is incomplete.")


def join(elements: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Elements gathered into arrays: ``beta[1]``, ``beta[2]``: [...] become ``beta``: [..., 2].

    >>> join({"a": np.zeros(3), "b[1]": np.zeros(3), "b[2]": np.ones(3)})["b"].shape
    (3, 2)
    """
    found: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for label, values in elements.items():
        match = _ELEMENT.match(label)
        assert match is not None, label
        index = tuple(int(i) - 1 for i in match[2].split(",")) if match[2] else ()
        found.setdefault(match[1], {})[index] = values
    joined = {}
    for name, parts in found.items():
        shape = tuple(max(i) + 1 for i in zip(*parts, strict=True))
        first = next(iter(parts.values()))
        array = np.empty((*np.shape(first), *shape))
        for index, values in parts.items():
            array[(Ellipsis, *index)] = values  # type: ignore[index]
        joined[name] = array
    return joined


def split(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """[chains, draws, *shape] as elements, named as posteriordb names them.

    >>> list(split("beta", np.zeros((4, 10, 2))))
    ['beta[1]', 'beta[2]']
    """
    if values.ndim == 2:
        return {name: values}
    labels = (",".join(str(i + 1) for i in index) for index in np.ndindex(values.shape[2:]))
    flat = values.reshape(*values.shape[:2], -1)
    return {f"{name}[{label}]": flat[..., k] for k, label in enumerate(labels)}
