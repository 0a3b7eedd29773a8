"""From files and ``NAME=VALUE`` words to a model's arguments, its evidence and its settings."""

from __future__ import annotations

import ast
import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ppcore.errors import SettingsError, did_you_mean


def read(path: Path) -> dict[str, Any]:
    """Named values: the keys of a JSON object, or the columns of a CSV file with a header.

    Lists become arrays; a CSV column that is not all numbers stays text, and an empty cell of a
    numeric column is NaN. Raises :class:`~ppcore.errors.SettingsError` naming the file.
    """
    readers = {".json": _read_json, ".csv": _read_csv}
    if path.suffix not in readers:
        raise SettingsError(f"--data {path}: the name must end in .json or .csv.")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return readers[path.suffix](file)
    except (OSError, ValueError, csv.Error) as error:
        raise SettingsError(f"--data {path} cannot be read: {error}") from error


def _read_json(file: Any) -> dict[str, Any]:
    found = json.load(file)
    if not isinstance(found, dict):
        raise ValueError("it must hold one object, with a key for each argument")
    return {key: _array(key, v) if isinstance(v, list) else v for key, v in found.items()}


def _array(key: str, values: list[Any]) -> np.ndarray:
    """A JSON list as an array; null is NaN among numbers."""
    try:
        array = np.asarray(values)
        return array.astype(float) if array.dtype == object else array
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key!r} is no array of numbers or of text ({error})") from error


def _read_csv(file: Any) -> dict[str, Any]:
    rows = list(csv.reader(file))
    if len(rows) < 2:
        raise ValueError("it must have a header and at least one row")
    header, *body = rows
    for number, row in enumerate(body, start=2):
        if len(row) != len(header):
            raise ValueError(f"row {number} has {len(row)} cells, the header has {len(header)}")
    names = [name.strip() for name in header]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"it has the column {name!r} twice")
    return {name: _column([row[i] for row in body]) for i, name in enumerate(names)}


def _column(cells: Sequence[str]) -> np.ndarray:
    for read_cell in (int, lambda cell: float(cell or "nan")):
        try:
            return np.array([read_cell(cell) for cell in cells])
        except ValueError:
            continue
    return np.array(cells)


def pairs(words: Iterable[str], option: str) -> dict[str, Any]:
    """``["a=1", "b=dense"]`` -> ``{"a": 1, "b": "dense"}``.

    A value is a Python literal where it reads as one, else text.

    >>> pairs(["steps=8", "metric=dense", "tune=False"], "--set")
    {'steps': 8, 'metric': 'dense', 'tune': False}
    """
    found: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise SettingsError(f"{option} {word!r} must read NAME=VALUE.")
        if name in found:
            raise SettingsError(f"{option} {name}=... is given twice.")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def arguments(
    parameters: Mapping[str, bool], data: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """The model's arguments, from ``--arg`` and then the data.

    ``parameters``: name -> whether it is required. Raises
    :class:`~ppcore.errors.SettingsError` for an argument that is missing or unknown.
    """
    for name in given:
        if name not in parameters:
            hint = did_you_mean(name, parameters)
            raise SettingsError(f"--arg {name}: the model has no such argument. {hint}")
    found = {name: value for name, value in data.items() if name in parameters} | dict(given)
    for name, required in parameters.items():
        if required and name not in found:
            hint = did_you_mean(name, data) if data else "No --data was given."
            raise SettingsError(
                f"The model's argument {name!r} is not in the data. {hint} "
                f"Rename the column, or pass --arg {name}=VALUE."
            )
    return found


def evidence(words: Iterable[str], data: Mapping[str, Any]) -> dict[str, Any]:
    """``["y=score", "z"]`` -> ``{"y": data["score"], "z": data["z"]}``."""
    found = {}
    for word in words:
        site, equals, column = word.partition("=")
        column = column if equals else site
        if column not in data:
            hint = did_you_mean(column, data) if data else "No --data was given."
            raise SettingsError(f"--observe {word}: the data have no {column!r}. {hint}")
        found[site] = data[column]
    return found
