"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

HERE = Path(__file__).parent

# A distribution of its own, installed by a test and never imported from here.
collect_ignore = ["third_party"]

# The same examples in every run: a suite of statistical claims states its own error rate.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")

# Compiled programs go beside the other caches of the tests, one folder a worker, not to the
# user's own folder. Set before anything imports JAX; processes that tests start inherit it.
_worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
os.environ["PPCORE_CACHE_DIR"] = str(HERE.parent / ".pytest_cache" / "compiled" / _worker)

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A registry that has looked at nothing yet, before the test and after it."""
    from ppcore import registry

    monkeypatch.delenv(registry.ALLOW, raising=False)
    monkeypatch.delenv(registry.BLOCK, raising=False)
    monkeypatch.setattr(registry, "_registered", {})
    registry.refresh()
    yield
    monkeypatch.undo()
    registry.refresh()


@pytest.fixture
def run_python() -> Run:
    """Run ``python *args`` in a process of its own; ``path``: folders put before sys.path."""

    def run(*args: str, path: tuple[Path, ...] = (), **env: str) -> subprocess.CompletedProcess:
        inherited = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        folders = [*map(str, path), *filter(None, inherited)]
        unset = {"PPCORE_PLUGINS", "PPCORE_NO_PLUGINS", "PYTHONPATH"}
        base = {key: value for key, value in os.environ.items() if key not in unset}
        if folders:
            base["PYTHONPATH"] = os.pathsep.join(folders)
        return subprocess.run(
            [sys.executable, *args], env=base | env, capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture(scope="session")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the distribution in ``tests/third_party``."""
    folder = tmp_path_factory.mktemp("third_party")
    shutil.copytree(HERE / "third_party", folder / "source")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    pip += ["--no-deps", "--no-index", "--no-build-isolation", "--target", str(folder / "target")]
    done = subprocess.run([*pip, str(folder / "source")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "target"


@pytest.fixture
def distribution(tmp_path: Path) -> Callable[..., Path]:
    """Write an installed distribution with one entry point by hand; returns its folder."""

    def write(name: str, plugin: str, source: str, version: str = "1.0") -> Path:
        folder = tmp_path / "site"
        module = name.replace("-", "_")
        info = folder / f"{module}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[ppcore.plugins]\n{plugin} = {module}\n")
        (folder / f"{module}.py").write_text(source)
        return folder

    return write
