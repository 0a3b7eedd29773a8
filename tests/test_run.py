"""The run layer: keys, blocks, checkpoints, refusals, start failures, the compilation cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from walker import Compiled, Walk, go, target

from ppcore.engine import Warm
from ppcore.errors import SettingsError, StartError
from ppcore.run import EngineError
from ppcore.run import cache as compilation_cache
from ppcore.run.keys import Keys
from ppcore.run.plan import default_block
from ppcore.run.program import Program, _block
from ppcore.target import DensityTarget


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("x64", [False, True])
def test_keys_are_those_of_jax(seed: int, x64: bool) -> None:
    with jax.enable_x64(x64):
        key, keys = jax.random.key(seed), Keys(seed)
        fold = jax.random.fold_in
        pairs = [
            (keys.warmup, fold(key, 0)),
            (keys.init, fold(key, 1)),
            (keys.block(0), fold(fold(key, 2), 0)),
            (keys.block(123_456), fold(fold(key, 2), 123_456)),
        ]
        for mine, theirs in pairs:
            assert mine.dtype == theirs.dtype
            np.testing.assert_array_equal(jax.random.key_data(mine), jax.random.key_data(theirs))


def test_draws_follow_the_target_and_cost_is_counted() -> None:
    made = go(draws=2000, chains=16)
    assert made.x.shape == (16, 2000, 2)
    assert made.x.dtype == np.float64
    assert made.complete
    assert made.gradients == {"warmup": 7, "sampling": 16 * 2000}
    assert made.notes == ("hi",)
    # 32,000 draws of a walk worth at least 1,000 each: five standard errors is one in a million.
    np.testing.assert_allclose(made.x.mean((0, 1)), [1.0, 2.0], atol=5 / np.sqrt(1000))
    np.testing.assert_allclose(made.x.std((0, 1)), [1.0, 1.0], atol=5 / np.sqrt(1000))
    times = made.timings
    assert 0 < times["warmup_seconds"] < times["first_draw_seconds"] <= times["total_seconds"]


def test_precision_is_the_runs_own() -> None:
    before = jnp.zeros(1).dtype
    assert go(precision="float32").x.dtype == np.float32
    assert jnp.zeros(1).dtype == before
    with pytest.raises(SettingsError, match="Did you mean 'float32'"):
        go(precision="float23")


@pytest.mark.parametrize("draws", [1, 7, 59, 60, 1000])
def test_blocks_fit_the_draws(draws: int) -> None:
    size = default_block(draws)
    assert 1 <= size <= min(draws, 50)


def test_a_last_block_is_cut() -> None:
    made = go(draws=50, block_size=20)
    assert made.x.shape == (3, 50, 2)
    np.testing.assert_array_equal(made.x, go(draws=60, block_size=20).x[:, :50])


def test_equal_engines_share_one_program_and_one_trace() -> None:
    go(Walk(0.7))
    before = _block._cache_size()
    go(Walk(0.7), target(3.0, 4.0), seed=9)
    assert _block._cache_size() == before, "new data or a new seed compiled the block again"


def test_an_engine_that_compiles_itself_is_called_as_it_is() -> None:
    Compiled.traces.clear()
    assert Program(Compiled()).own and not Program(Walk()).own
    made = go(Compiled(), draws=60, block_size=20)
    assert Compiled.traces == [20]
    np.testing.assert_array_equal(made.x, go(Walk(), block_size=20).x)


def test_an_engine_that_says_it_is_compiled_is_handed_arrays() -> None:
    @dataclass(frozen=True)
    class Host(Walk):
        compiled: ClassVar[bool] = True

        def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
            assert not isinstance(carry.x, jax.core.Tracer)
            return super().block(key, target, tuned, carry, n)

    np.testing.assert_array_equal(go(Host(), block_size=30).x, go(block_size=30).x)


@pytest.mark.parametrize(
    "settings",
    [{"draws": 0}, {"draws": 2.5}, {"chains": True}, {"block_size": -1}, {"seed": -1},
     {"seed": 2**32}, {"seed": 1.0}, {"checkpoint": 3}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(settings: dict[str, Any]) -> None:
    name = next(iter(settings))
    with pytest.raises(SettingsError, match=f"{name}="):
        go(**settings)


# Bad engines


@dataclass(frozen=True)
class Broken(Walk):
    """Goes wrong in one way, from block 2 on where blocks are concerned."""

    kind: str = ""

    def warmup(self, key: Any, target: Any, chains: int, report: Any) -> Warm:
        warm = super().warmup(key, target, chains, report)
        x = {
            "start nan": warm.x.at[1, 0].set(jnp.nan),
            "start shape": warm.x[:, :1],
        }.get(self.kind, warm.x)
        return replace(warm, x=x)

    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> Any:
        carry, draws, stats = super().block(key, target, tuned, carry, n)
        late = carry.steps > 2 * n
        if self.kind == "nan":
            draws = draws.at[1, 3, 1].set(jnp.where(late, jnp.nan, draws[1, 3, 1]))
        elif self.kind == "shape":
            draws = draws[:, 1:]
        elif self.kind == "dtype":
            draws = draws.astype(jnp.float32)
        elif self.kind == "stat":
            stats = stats | {"energy": jnp.zeros(n)}
        elif self.kind == "density":
            stats = stats | {"log_density": jnp.where(late, -jnp.inf, stats["log_density"])}
        return carry, draws, stats


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("nan", r"'Broken', block 2: 1 of 30 draws are not finite, first in chain 1, draw 3"),
        ("shape", r"block 0: draws have shape \(3, 9, 2\); they must have shape \(3, 10, 2\)"),
        ("dtype", r"block 0: draws have dtype float32; the run computes in float64"),
        ("stat", r"block 0: stat 'energy' has shape \(10,\); it must be \(3, 10\)"),
        ("density", r"block 2: the log density of draw 0 in chain 0 is -inf"),
        ("start shape", r"warm-up: start positions have shape \(3, 1\)"),
    ],
)
def test_a_bad_result_never_becomes_a_posterior(tmp_path: Path, kind: str, said: str) -> None:
    with pytest.raises(EngineError, match=said):
        go(Broken(kind=kind), block_size=10, checkpoint=tmp_path)
    assert len(list(tmp_path.glob("block-*.npz"))) <= 2, "a bad block was saved"


def test_a_start_that_is_not_finite_is_a_start_failure() -> None:
    with pytest.raises(StartError, match="chain 1 at a position that is not finite"):
        go(Broken(kind="start nan"))


# Start failures


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sites:
    """A target of two sites, one of which has no density."""

    value: Any

    @property
    def dim(self) -> int:
        return 2

    def log_density_by_site(self, x: Any) -> dict[str, Any]:
        return {"mu": -0.5 * x[0] ** 2, "y": self.value + 0 * x[1]}

    def log_density(self, x: Any) -> Any:
        return sum(self.log_density_by_site(x).values())


@pytest.mark.parametrize(
    ("value", "said"),
    [(-np.inf, "site 'y' has log density -inf at 16 of 16 starts: its value lies outside"),
     (np.nan, "site 'y' has log density nan at 16 of 16 starts: a parameter of it leaves"),
     (np.inf, "site 'y' has log density inf at 16 of 16 starts: its density is unbounded")],
)  # fmt: skip
def test_a_failed_start_names_the_guilty_site(value: float, said: str) -> None:
    with pytest.raises(StartError, match=said) as raised:
        go(at=Sites(jnp.float32(value)))
    assert "'mu'" not in str(raised.value)


def test_a_failed_start_without_sites_tells_of_the_density() -> None:
    with pytest.raises(StartError, match="the log density has log density nan"):
        go(at=target(np.nan))


def bent(x: Any, data: Any) -> Any:
    return jnp.where(x[0] > 1e9, jnp.sqrt(-jnp.abs(x[0])), 0.0) - 0.5 * jnp.sum(x**2)


def test_a_failed_start_tells_of_the_gradient() -> None:
    @dataclass(frozen=True)
    class Fussy(Walk):
        def warmup(self, key: Any, target: Any, chains: int, report: Any) -> Warm:
            raise StartError("No finite gradient.")

    with pytest.raises(StartError, match="gradient with respect to coordinate 0"):
        go(Fussy(), DensityTarget(bent, 1))


# The compilation cache


def cache_report(**environment: str) -> dict[str, Any]:
    script = """
import json, jax
from ppcore.run import cache
before = jax.config.jax_compilation_cache_dir
print(json.dumps({"used": str(cache.enable()), "before": before,
                  "after": jax.config.jax_compilation_cache_dir}))
"""
    drop = {"PPCORE_CACHE", "PPCORE_CACHE_DIR", "JAX_COMPILATION_CACHE_DIR", "XDG_CACHE_HOME"}
    clean = {k: v for k, v in os.environ.items() if k not in drop}
    path = os.pathsep.join(filter(None, sys.path))
    ran = subprocess.run(
        [sys.executable, "-c", script],
        env={**clean, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return json.loads(ran.stdout)


def test_the_cache_is_in_the_users_folder(tmp_path: Path) -> None:
    found = cache_report(PPCORE_CACHE_DIR=str(tmp_path / "mine"))
    assert found["after"] == found["used"]
    assert Path(found["used"]).is_relative_to(tmp_path / "mine")
    assert Path(found["used"]).stat().st_mode & 0o077 == 0


def test_the_cache_can_be_switched_off_and_never_overrides_the_users(tmp_path: Path) -> None:
    off = cache_report(PPCORE_CACHE="off", PPCORE_CACHE_DIR=str(tmp_path))
    assert off == {"used": "None", "before": None, "after": None}
    own = str(tmp_path / "own")
    kept = cache_report(JAX_COMPILATION_CACHE_DIR=own, PPCORE_CACHE_DIR=str(tmp_path / "mine"))
    assert kept["after"] == own and not (tmp_path / "mine").exists()


def test_a_cache_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = cache_report(PPCORE_CACHE_DIR=str(tmp_path / "file"))
    assert found["used"] == "None" and found["after"] is None


@pytest.mark.parametrize(
    ("platform", "environment", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/ppcore"),
        ("linux", {}, "HOME/.cache/ppcore"),
        ("darwin", {}, "HOME/Library/Caches/ppcore"),
        ("win32", {"LOCALAPPDATA": "/l"}, "/l/ppcore"),
        ("linux", {"PPCORE_CACHE_DIR": "/p", "XDG_CACHE_HOME": "/x"}, "/p"),
    ],
)
def test_where_caches_go(
    monkeypatch: pytest.MonkeyPatch, platform: str, environment: dict[str, str], expected: str
) -> None:
    for name in ("PPCORE_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(compilation_cache.sys, "platform", platform)
    assert compilation_cache.folder() == Path(expected.replace("HOME", str(Path.home())))
