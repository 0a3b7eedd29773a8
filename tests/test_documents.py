"""What the documents show runs: the README's example and every tutorial."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))
NEEDS = {"02_two_modes": ("flowjax", "matplotlib")}


def run(path: Path, where: Path) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, in an empty folder."""
    command = [sys.executable, "-W", "error::UserWarning", str(path)]
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=600)


def test_the_readmes_example_works_when_pasted(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    script = tmp_path / "pasted.py"
    script.write_text(code)
    done = run(script, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "theta[7]" in done.stdout and "r_hat" in done.stdout
    assert (tmp_path / "schools.zarr").is_dir()


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_tutorials_run(path: Path, tmp_path: Path) -> None:
    for module in NEEDS.get(path.stem, ()):
        pytest.importorskip(module)
    done = run(path, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda p: p.stem)
def test_tutorials_are_notebooks(path: Path) -> None:
    import jupytext

    notebook = jupytext.read(path)
    assert {cell.cell_type for cell in notebook.cells} == {"markdown", "code"}
