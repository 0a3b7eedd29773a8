"""A run on disk: one file a block, each complete or absent, so that no saved draw is ever lost."""

from __future__ import annotations

import io
import json
import os
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ppcore.engine import Warm
from ppcore.errors import PPCoreError, SettingsError
from ppcore.run.state import decode, encode

FORMAT = 1
MANIFEST, WARM = "manifest.json", "warmup.npz"
_HOUR = 3600.0
_UNREADABLE = (OSError, ValueError, KeyError, EOFError, ImportError, BadZipFile, zlib.error)


class CheckpointError(PPCoreError):
    """A checkpoint cannot be read, or belongs to another run."""


@dataclass(frozen=True)
class Block:
    """What one block left: the carry after it, its draws and stats, and the seconds it took."""

    carry: Any
    draws: np.ndarray
    stats: dict[str, np.ndarray]
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    """A folder with ``manifest.json``, ``warmup.npz`` and ``block-000000.npz``, ...

    A block's file holds the draws and the carry after them, is written beside its place, synced
    and renamed: it is there as a whole or not at all, and the blocks that are there are the state
    of the run. Each block is written once, so the cost is linear in the draws.
    """

    path: Path
    notes: tuple[str, ...] = ()

    @classmethod
    def open(cls, path: Path, identity: dict[str, Any], versions: dict[str, str]) -> Checkpoint:
        """The checkpoint of the run ``identity`` at ``path``, made if it is not there.

        Other ``versions`` than those it was begun with are noted: the rest of the draws follow the
        same law, but their last digits may not be those of an uninterrupted run.

        Raises :class:`CheckpointError` if another run's is there, with what differs.
        """
        known = read_manifest(path)
        if known is None:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise CheckpointError(
                    f"checkpoint={str(path)!r} exists and is no checkpoint. Name a new folder."
                )
            try:
                path.mkdir(parents=True, exist_ok=True)
                about = {"format": FORMAT, **identity, "versions": versions}
                text = json.dumps(about, indent=1)
                _write(path / MANIFEST, text.encode())
            except OSError as error:
                raise CheckpointError(
                    f"checkpoint={str(path)!r} cannot be written: {error}."
                ) from error
            return cls(path)
        before = known.pop("versions", {})
        differing = list(_differences(known, {"format": FORMAT, **identity}))
        if differing:
            raise CheckpointError(
                f"checkpoint={str(path)!r} belongs to another run: {'; '.join(differing)}. "
                "Run with the same settings and data to continue it, or name a new folder."
            )
        for left in path.glob("*.tmp"):
            # A process that was killed leaves one; a fresh one may be another process at work.
            if time.time() - left.stat().st_mtime > _HOUR:
                left.unlink(missing_ok=True)
        changed = list(_differences(before, versions))
        note = f"Continued with other versions than it was begun with: {'; '.join(changed)}."
        return cls(path, (note,) if changed else ())

    def warm(self) -> tuple[Warm, float] | None:
        """The warm-up that was saved and the seconds it took, if any was."""
        if not (self.path / WARM).exists():
            return None
        state = self._read(self.path / WARM)
        notes = tuple(state["notes"])
        return Warm(state["tuned"], state["x"], state["gradients"], notes), state["seconds"]

    def save_warm(self, warm: Warm, seconds: float) -> None:
        state = {
            "tuned": warm.tuned,
            "x": warm.x,
            "gradients": int(warm.gradients),
            "notes": list(warm.notes),
            "seconds": seconds,
        }
        _write(self.path / WARM, _pack(state))

    def blocks(self) -> Iterator[Block]:
        """The blocks that were saved, in order, up to the first that is not there."""
        index = 0
        while self._block(index).exists():
            state = self._read(self._block(index))
            yield Block(state["carry"], state["draws"], state["stats"], state["seconds"])
            index += 1

    def save_block(self, index: int, block: Block) -> None:
        _write(self._block(index), _pack(dict(vars(block))))

    def _block(self, index: int) -> Path:
        return self.path / f"block-{index:06d}.npz"

    def _read(self, path: Path) -> Any:
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = dict(stored)
            return decode(json.loads(arrays.pop("outline").tobytes()), arrays)
        except _UNREADABLE as error:
            raise CheckpointError(
                f"{path} cannot be read ({type(error).__name__}: {error}). Delete it and the "
                "files after it: they are computed again, with the same draws."
            ) from error


class Saver:
    """Saves a run as it goes; a full disk stops the saving, not the run."""

    def __init__(self, checkpoint: Checkpoint | None) -> None:
        self._checkpoint = checkpoint
        self.notes: list[str] = [] if checkpoint is None else list(checkpoint.notes)

    def warm(self, warm: Warm, seconds: float) -> None:
        if self._checkpoint is not None:
            self._try("the warm-up", self._checkpoint.save_warm, warm, seconds)

    def block(self, index: int, block: Block) -> None:
        if self._checkpoint is not None:
            self._try(f"block {index}", self._checkpoint.save_block, index, block)

    def _try(self, what: str, save: Callable[..., None], *state: Any) -> None:
        try:
            save(*state)
        except OSError as error:
            self._checkpoint = None
            note = f"The checkpoint ends before {what} ({error}); the run went on in memory."
            self.notes.append(note)
            warnings.warn(note, RuntimeWarning, stacklevel=2)


def read_manifest(path: Path) -> dict[str, Any] | None:
    """What identifies the run that is saved at ``path``, or None if none is."""
    if not (path / MANIFEST).is_file():
        return None
    try:
        return json.loads((path / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path / MANIFEST} cannot be read ({error}). Name a new folder for the checkpoint."
        ) from error


def chosen(path: str | os.PathLike[str] | None) -> Path | None:
    """A checkpoint argument as a path."""
    if path is None:
        return None
    if not isinstance(path, (str, os.PathLike)):
        raise SettingsError(f"checkpoint={path!r} must be the path of a folder.")
    return Path(path)


def _differences(known: dict[str, Any], given: dict[str, Any]) -> Iterator[str]:
    for name in sorted({*known, *given}):
        old, new = known.get(name), given.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from (f"{name}.{text}" for text in _differences(old, new))
        elif not _same(name, old, new):
            yield f"{name} was {_short(old)} and is {_short(new)}"


def _same(name: str, old: Any, new: Any) -> bool:
    if name == "log_density" and isinstance(old, list) and isinstance(new, list):
        # The same density compiled by another version of JAX may differ in its last digits.
        return len(old) == len(new) and np.allclose(old, new, 1e-4, 1e-4, equal_nan=True)
    return repr(old) == repr(new)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _pack(state: Any) -> bytes:
    arrays: dict[str, Any] = {}
    outline = encode(state, arrays)
    arrays["outline"] = np.frombuffer(json.dumps(outline).encode(), np.uint8)
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    if hasattr(os, "O_DIRECTORY"):
        # A rename is lasting only when the folder that holds the name is on the disk too.
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
