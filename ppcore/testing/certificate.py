"""Certificates: the last verdict on an engine, with the code and the resolution it holds for."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ppcore.errors import PPCoreError

FOLDER_VARIABLE = "PPCORE_DATA_DIR"


@dataclass(frozen=True)
class Certificate:
    """What was established about an engine, and when.

    Attributes
    ----------
    engine, version, code : str
        Name, version of its distribution, and a hash of its package's source.
    passed : bool
    resolution : float or None
        The largest bias, in standard deviations of a feature, that may have gone unseen.
    budget : float
        Error probability of the whole run.
    seed, tests : int
    contract, verdict, date : str
    """

    engine: str
    version: str
    code: str
    passed: bool
    resolution: float | None
    budget: float
    seed: int
    tests: int
    contract: str
    verdict: str
    date: str

    @property
    def short(self) -> str:
        """For a listing: "passed, < 0.03 sd (0.1.0)"."""
        if not self.passed:
            return f"failed ({self.version})"
        seen = "" if self.resolution is None else f", < {self.resolution:.2g} sd"
        return f"passed{seen} ({self.version})"


def default_path() -> Path:
    """``certificates.json`` in ``$PPCORE_DATA_DIR``, else in the user's data folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / "certificates.json"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "ppcore" / "certificates.json"


def read(path: Path | None = None) -> dict[str, Certificate]:
    """Certificates by engine name; empty where there is no file.

    Raises
    ------
    PPCoreError
        If the file is damaged.
    """
    path = path or default_path()
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {name: Certificate(**row) for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError, OSError) as error:
        raise PPCoreError(
            f"The certificates in {path} cannot be read ({error}). Delete the file and run "
            "`ppcore check` again."
        ) from error


def write(certificate: Certificate, path: Path | None = None) -> Path:
    """Store a certificate beside the others; the file is replaced as a whole."""
    path = path or default_path()
    kept = {name: asdict(c) for name, c in read(path).items()}
    kept[certificate.engine] = asdict(certificate)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    draft.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    draft.replace(path)
    return path


def code_hash(module: str) -> str:
    """Twelve hex digits over every Python file of the top-level package that holds ``module``.

    The package is found, not imported.

    >>> len(code_hash("ppcore.contract"))
    12
    """
    top = module.split(".")[0]
    found = importlib.util.find_spec(top)
    if found is None or found.origin is None:
        return "unknown"
    origin = Path(found.origin)
    files = sorted(origin.parent.rglob("*.py")) if origin.name == "__init__.py" else [origin]
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(origin.parent)).encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def status(certificate: Certificate | None, module: str | None) -> str:
    """The short form, marked where the code has changed since.

    >>> status(None, None)
    'never checked'
    """
    if certificate is None:
        return "never checked"
    if module is not None and code_hash(module) != certificate.code:
        return f"{certificate.short}, code changed since"
    return certificate.short


def module_of(load: Any) -> str | None:
    """The module that a spec's ``load`` names."""
    if isinstance(load, str):
        return load.partition(":")[0]
    return getattr(load, "__module__", None)
