"""Interrupted, killed, resumed, mixed up and damaged runs: no saved draw is lost or mistaken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walker import Carry, Walk, go, normal, target

from ppcore.engine import Warm
from ppcore.errors import UnsupportedError
from ppcore.run import CheckpointError
from ppcore.run import checkpoint as checkpoints
from ppcore.run.state import decode, encode
from ppcore.target import DensityTarget


class Stop:
    """A progress callable that interrupts after some reports of sampling."""

    def __init__(self, after: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.left, self.error = after, error

    def __call__(self, progress: Any) -> None:
        if progress.phase == "sampling":
            self.left -= 1
            if self.left == 0:
                raise self.error


def test_interrupting_keeps_what_was_drawn() -> None:
    whole, part = go(block_size=10), go(block_size=10, progress=Stop(2))
    assert not part.complete
    done = part.x.shape[1]
    assert 10 <= done < 60
    np.testing.assert_array_equal(part.x, whole.x[:, :done])
    assert part.stats["log_density"].shape == (3, done)
    assert f"{done} of 60" in part.notes[-1]


def test_interrupting_the_warmup_is_an_interruption() -> None:
    def stop(progress: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(progress=stop)


@pytest.mark.parametrize("after", [1, 2, 3, 5])
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path: Path, after: int) -> None:
    whole = go(block_size=10)
    with pytest.raises(RuntimeError):
        go(block_size=10, checkpoint=tmp_path / "run", progress=Stop(after, RuntimeError))
    saved = len(list((tmp_path / "run").glob("block-*.npz")))
    assert saved >= after
    again = go(block_size=10, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(again.x, whole.x)
    for name, values in whole.stats.items():
        np.testing.assert_array_equal(again.stats[name], values)
    assert again.gradients == whole.gradients
    assert again.complete


@dataclass(frozen=True)
class Recorder(Walk):
    """Counts its warm-ups."""

    warmups: ClassVar[list[int]] = []

    def warmup(self, key: Any, target: Any, chains: int, report: Any) -> Warm:
        self.warmups.append(chains)
        return super().warmup(key, target, chains, report)


def test_a_resumed_run_warms_up_once_and_may_draw_more(tmp_path: Path) -> None:
    Recorder.warmups.clear()
    go(Recorder(), block_size=10, draws=30, checkpoint=tmp_path)
    longer = go(Recorder(), draws=60, checkpoint=tmp_path)
    assert Recorder.warmups == [3]
    np.testing.assert_array_equal(longer.x, go(block_size=10, draws=60).x)
    fewer = go(Recorder(), draws=20, checkpoint=tmp_path)
    np.testing.assert_array_equal(fewer.x, longer.x[:, :20])


def test_a_killed_process_loses_no_saved_block(tmp_path: Path) -> None:
    script = f"""
import os, sys
sys.path[:0] = {[str(Path(__file__).parent), *sys.path]!r}
from walker import go
def die(progress):
    if progress.phase == "sampling" and progress.done >= 30:
        os._exit(9)
go(block_size=10, checkpoint={str(tmp_path / "run")!r}, progress=die)
"""
    ended = subprocess.run([sys.executable, "-c", script], timeout=120)
    assert ended.returncode == 9
    assert len(list((tmp_path / "run").glob("block-*.npz"))) == 3
    np.testing.assert_array_equal(
        go(block_size=10, checkpoint=tmp_path / "run").x, go(block_size=10).x
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 6}, "seed was 5 and is 6"),
        ({"chains": 4}, "chains was 3 and is 4"),
        ({"engine": Walk(0.5)}, "engine.scale was 1.0 and is 0.5"),
        ({"at": target(1.0, 3.0)}, "data was"),
        ({"at": target(1.0, 2.0, 3.0)}, "dim was 2 and is 3"),
        ({"at": DensityTarget(lambda x, c: 2 * normal(x, c), 2, np.array([1.0, 2.0]))},
         "log_density was"),
        ({"precision": "float32"}, "precision was 'float64' and is 'float32'"),
        ({"block_size": 20}, "block_size was 10 and is 20"),
    ],
)  # fmt: skip
def test_another_run_is_not_continued(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    go(block_size=10, draws=20, checkpoint=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=said):
        go(**{"block_size": 10, "draws": 20, "checkpoint": tmp_path} | changed)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("draft")
    with pytest.raises(CheckpointError, match="Name a new folder"):
        go(checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_damaged_block_is_named_and_can_be_made_again(tmp_path: Path) -> None:
    whole = go(block_size=10, checkpoint=tmp_path)
    damaged = tmp_path / "block-000003.npz"
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"block-000003\.npz cannot be read.*Delete it"):
        go(checkpoint=tmp_path)
    for path in sorted(tmp_path.glob("block-*.npz"))[3:]:
        path.unlink()
    np.testing.assert_array_equal(go(checkpoint=tmp_path).x, whole.x)


def test_a_full_disk_ends_the_checkpoint_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def full(file: int) -> None:
        if len(list(tmp_path.glob("block-*.npz"))) >= 2:
            raise OSError(28, "No space left on device")
        real(file)

    monkeypatch.setattr(checkpoints.os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        made = go(block_size=10, checkpoint=tmp_path)
    assert made.complete
    assert any("No space left" in note for note in made.notes)
    assert not list(tmp_path.glob("*.tmp"))
    monkeypatch.undo()
    np.testing.assert_array_equal(go(block_size=10, checkpoint=tmp_path).x, made.x)


def test_other_versions_are_noted(tmp_path: Path) -> None:
    go(draws=20, checkpoint=tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["versions"]["jax"] = "0.0.1"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert "jax was '0.0.1' and is" in go(draws=20, checkpoint=tmp_path).notes[-1]


def test_each_block_is_written_once(tmp_path: Path) -> None:
    go(block_size=10, draws=30, checkpoint=tmp_path)
    times = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    go(block_size=10, draws=60, checkpoint=tmp_path)
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in times} == times


def test_state_survives_storage() -> None:
    with jax.enable_x64(True):
        state = {
            "carry": Carry(jnp.arange(3.0), np.float32(2.5), 3),
            "warm": Warm({"a": [None, True, "text", 1.5]}, jnp.zeros((2, 0), jnp.bfloat16)),
            "key": jax.random.key(3),
        }
        arrays: dict[str, np.ndarray] = {}
        outline = json.loads(json.dumps(encode(state, arrays)))
        found = decode(outline, arrays)
    assert isinstance(found["carry"], Carry) and found["carry"].steps == 3
    np.testing.assert_array_equal(found["carry"].x, state["carry"].x)
    assert found["carry"].log_density.dtype == np.float32
    assert found["warm"].tuned == {"a": [None, True, "text", 1.5]}
    assert found["warm"].x.dtype == jnp.bfloat16 and found["warm"].x.shape == (2, 0)
    assert found["key"] == state["key"]


def test_state_that_cannot_be_stored_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="cannot hold function"):
        encode({"f": normal}, {})


def test_a_stored_outline_calls_no_function() -> None:
    with pytest.raises(UnsupportedError, match=r"os\.system"):
        decode(["dataclass", "os", "system", []], {})
