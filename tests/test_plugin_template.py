"""The template of a plugin, in a fresh environment: installed, listed, run, certified, left out,
reported when broken; and the guide that quotes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEMPLATE = ROOT / "tutorials" / "plugin_template"
PACKAGE = Path("ppcore_hug_and_hop")
GUIDE = (ROOT / "docs" / "write_an_engine.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", GUIDE, re.DOTALL)
SOURCES = sorted(p for p in TEMPLATE.rglob("*") if p.suffix in {".py", ".toml", ".md"})
CHECK = ("check", "hug_and_hop", "--only", "invariance", "--model", "normal")


@dataclass(frozen=True)
class Environment:
    """A virtual environment that sees this one's packages, and holds the plugin alone."""

    python: Path
    data: Path

    @property
    def packages(self) -> Path:
        where = {"base": str(self.python.parent.parent)}
        return Path(sysconfig.get_path("purelib", "venv", where))

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        unset = {"PPCORE_PLUGINS", "PPCORE_NO_PLUGINS"}
        env = {key: value for key, value in os.environ.items() if key not in unset}
        env["PPCORE_DATA_DIR"] = str(self.data)
        return subprocess.run(
            [str(self.python), *arguments],
            env=env,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.run("-m", "ppcore.cli", *arguments)


def made(folder: Path) -> Environment:
    """A fresh environment in which ``import`` falls back on the packages of this one."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=120
    )
    scripts = Path(sysconfig.get_path("scripts", "venv", {"base": str(folder)}))
    name = "python.exe" if os.name == "nt" else "python"
    environment = Environment(scripts / name, folder / "data")
    here = sysconfig.get_path("purelib")
    line = f"import site; site.addsitedir({here!r})\n"
    (environment.packages / "outer.pth").write_text(line)
    return environment


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    folder = tmp_path_factory.mktemp("template")
    shutil.copytree(TEMPLATE, folder / "source")
    environment = made(folder / "environment")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = environment.run(*pip, "--no-index", "--no-build-isolation", str(folder / "source"))
    assert done.returncode == 0, done.stdout + done.stderr
    return environment


@pytest.fixture
def damaged(installed: Environment, tmp_path: Path):
    """Another environment with the same distribution, in one file of which a text is replaced."""

    def damage(file: str, old: str, new: str) -> Environment:
        environment = made(tmp_path / "environment")
        for found in installed.packages.glob("ppcore_hug_and_hop*"):
            shutil.copytree(found, environment.packages / found.name)
        path = environment.packages / PACKAGE / file
        text = path.read_text()
        assert text.count(old) == 1, (file, old)
        path.write_text(text.replace(old, new))
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
        return environment

    return damage


def test_the_template_is_small_and_complete() -> None:
    assert {"pyproject.toml", "README.md"} <= {path.name for path in SOURCES}
    assert any("ppcore.testing" in path.read_text() for path in (TEMPLATE / "tests").glob("*.py"))
    assert sum(len(path.read_text().splitlines()) for path in SOURCES) < 150


def test_it_is_listed_with_its_own_distribution(installed: Environment) -> None:
    listed = installed.cli("engines", "--json")
    assert listed.returncode == 0, listed.stderr
    (found,) = (e for e in json.loads(listed.stdout)["engines"] if e["name"] == "hug_and_hop")
    assert found["origin"] == {
        "plugin": "hug_and_hop",
        "distribution": "ppcore-hug-and-hop",
        "version": "0.1.0",
    }
    assert found["contract"] == {
        "law": "Invariant",
        "reversible": False,
        "irreducible": True,
    }


def test_it_runs_as_the_guide_shows(installed: Environment, tmp_path: Path) -> None:
    """64 chains of 400 draws: 0.25 is ten standard errors of the mean of mu, and eight of tau's."""
    (code,) = (code for kind, code in BLOCKS if kind == "python" and "import ppcore as pp" in code)
    said = 'print([float(fit.posterior[name].mean()) for name in ("mu", "tau")])\n'
    done = installed.run("-W", "error::UserWarning", "-c", code + said, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    mu, tau = json.loads(done.stdout.splitlines()[-1])
    assert abs(mu - 4.4) < 0.25 and abs(tau - 3.6) < 0.25


def test_it_is_certified(installed: Environment) -> None:
    """One statistical check on one model; `ppcore check hug_and_hop` runs all of them."""
    done = installed.cli(*CHECK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "hug_and_hop: passed 1 test" in done.stdout


def test_the_slip_that_the_guide_names_is_caught(damaged) -> None:
    done = damaged("kernel.py", "+ back - forth", "- back + forth").cli(*CHECK)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "the target is not invariant" in done.stdout
    assert "reproduce: ppcore check hug_and_hop --only invariance --model normal" in done.stdout


def test_it_can_be_left_out(installed: Environment) -> None:
    listed = installed.cli("engines", "--no-plugin", "hug_and_hop")
    assert listed.returncode == 0, listed.stderr
    assert "nuts" in listed.stdout and "Bounces along" not in listed.stdout
    assert "blocked: plugin 'hug_and_hop' of ppcore-hug-and-hop 0.1.0" in listed.stdout
    refused = installed.cli("check", "hug_and_hop", "--no-plugin", "hug_and_hop")
    assert refused.returncode != 0 and "blocked by" in refused.stdout + refused.stderr


def test_a_broken_module_is_reported_and_the_rest_works(damaged) -> None:
    environment = damaged("__init__.py", "import EngineSpec", "import EngineSpek")
    listed = environment.cli("engines")
    assert listed.returncode == 0 and "nuts" in listed.stdout
    assert "ppcore-hug-and-hop 0.1.0" in listed.stdout and "EngineSpek" in listed.stdout
    doctor = environment.cli("doctor")
    assert doctor.returncode == 1 and "hug_and_hop" in doctor.stdout


def test_a_broken_engine_is_reported_when_it_is_used(damaged) -> None:
    environment = damaged("kernel.py", "import KernelEngine", "import KernelMotor")
    assert "Bounces along" in environment.cli("engines").stdout
    done = environment.cli(*CHECK)
    said = done.stdout + done.stderr
    assert done.returncode != 0 and "KernelMotor" in said
    assert "ppcore-hug-and-hop 0.1.0" in said and "--no-plugin hug_and_hop" in said


def test_the_guide_quotes_the_template_and_names_commands_that_work() -> None:
    sources = "".join(path.read_text() for path in SOURCES)
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("toml") == 1 and kinds.count("python") == 8 and kinds.count("sh") == 3
    for kind, code in BLOCKS:
        if kind != "sh" and "import ppcore as pp" not in code:
            assert code in sources, code
    commands = [line for kind, code in BLOCKS if kind == "sh" for line in code.splitlines()]
    # Each is run above, the second check by its one model and the whole of it in the certificate.
    tested = {"pip install .", "ppcore engines", "ppcore check hug_and_hop"}
    assert set(commands) == tested | {" ".join(("ppcore", *CHECK))}
