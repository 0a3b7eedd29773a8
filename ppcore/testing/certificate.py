"""Certificates: the last verdict on an engine, with the code and the resolution it holds for.

A distribution ships those of its own engines in a file ``certificates.json`` beside the package
that holds them; the user's own, written by ``ppcore check``, are kept in a data folder and count
before the shipped ones where they were issued for the code that is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ppcore.errors import PPCoreError

FOLDER_VARIABLE = "PPCORE_DATA_DIR"
FILE = "certificates.json"
# Import statements, also over several lines in parentheses. What reads like one in a docstring
# counts too: a file too many does no harm, and parsing all files would take longer than a listing
# may.
_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n#]+)|import[ \t]+([^\n#]+))",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Certificate:
    """What was established about an engine, and when.

    Attributes
    ----------
    engine, version, code : str
        Name, version of its distribution, and a hash of its source; see :func:`code_hash`.
    passed : bool
    resolution : float or None
        The largest bias, in standard deviations of a feature, that may have gone unseen.
    budget : float
        Error probability of the whole run.
    seed, tests : int
    contract, verdict, date : str
    order : float or None
        For a biased engine, the measured order of its bias.
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
    order: float | None = None

    @property
    def short(self) -> str:
        """For a listing: "passed, < 0.03 sd (0.1.0)", or "passed, order 1.02 (0.1.0)"."""
        if not self.passed:
            return f"failed ({self.version})"
        seen = "" if self.resolution is None else f", < {self.resolution:.2g} sd"
        order = "" if self.order is None else f", order {self.order:.2f}"
        return f"passed{order}{seen} ({self.version})"


def default_path() -> Path:
    """``certificates.json`` in ``$PPCORE_DATA_DIR``, else in the user's data folder."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen).expanduser() / FILE
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home()))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "ppcore" / FILE


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


def shipped_path(module: str | None) -> Path | None:
    """Where the distribution of ``module`` ships certificates: beside its top-level package.

    None for a module that is no package's, such as a notebook's.

    >>> shipped_path("ppcore.contract").name
    'certificates.json'
    """
    root = _root(module.partition(".")[0]) if module else None
    return None if root is None else root / FILE


def shipped(specs: Iterable[Any]) -> dict[str, Certificate]:
    """The certificates that came with the engines of ``specs``, by engine name."""
    found: dict[str, Certificate] = {}
    files: dict[Path, dict[str, Certificate]] = {}
    for spec in specs:
        path = shipped_path(module_of(spec.load))
        if path is None:
            continue
        if path not in files:
            files[path] = read(path)
        if spec.name in files[path]:
            found[spec.name] = files[path][spec.name]
    return found


def to_ship(specs: Iterable[Any]) -> dict[str, str]:
    """Engines without a valid shipped certificate, each with what is wrong: ``missing``, ``of
    other code`` or ``failed``."""
    specs = list(specs)
    base = shipped(specs)
    found = {}
    for spec in specs:
        made = base.get(spec.name)
        if made is None:
            found[spec.name] = "missing"
        elif not is_current(made, module_of(spec.load)):
            found[spec.name] = "of other code"
        elif not made.passed:
            found[spec.name] = "failed"
    return found


def known(specs: Iterable[Any], path: Path | None = None) -> dict[str, Certificate]:
    """The certificates of ``specs``: the user's own, or the shipped one if that alone is for the
    code that is installed."""
    specs = list(specs)
    base, own = shipped(specs), read(path)
    found = {}
    for spec in specs:
        mine, given = own.get(spec.name), base.get(spec.name)
        module = module_of(spec.load)
        chosen = mine or given
        if mine and given and not is_current(mine, module) and is_current(given, module):
            chosen = given
        if chosen is not None:
            found[spec.name] = chosen
    return found


def code_hash(module: str) -> str:
    """Twelve hex digits over the source of ``module`` and of all that it imports of its package.

    Imports are followed through the files of the module's own top-level package, found and never
    imported; the package's ``__init__`` counts only if it is named, so that another engine in the
    list changes nothing. "unknown" where there is no file.

    >>> len(code_hash("ppcore.contract"))
    12
    """
    files = closure(module)
    if not files:
        return "unknown"
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(name.encode())
        digest.update(hashlib.sha256(_source(files[name]).encode()).digest())
    return digest.hexdigest()[:12]


def closure(module: str) -> dict[str, Path]:
    """The files that ``module`` needs of its own top-level package: {dotted name: path}."""
    top = module.partition(".")[0]
    root = _root(top)
    if root is None:
        found = importlib.util.find_spec(top)
        single = Path(found.origin) if found and found.origin else None
        return {top: single} if single is not None and single.is_file() else {}
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        path = _file(root, name)
        if name in files or path is None or (name == top and name != module):
            continue
        files[name] = path
        waiting += _imported(path, name, top)
    return files


def is_current(certificate: Certificate, module: str | None) -> bool:
    """Whether the code is still what the certificate was issued for."""
    return module is None or code_hash(module) == certificate.code


def status(certificate: Certificate | None, module: str | None) -> str:
    """The short form, marked where the code has changed since.

    >>> status(None, None)
    'never checked'
    """
    if certificate is None:
        return "never checked"
    if not is_current(certificate, module):
        return f"{certificate.short}, code changed since"
    return certificate.short


def module_of(load: Any) -> str | None:
    """The module that a spec's ``load`` names."""
    if isinstance(load, str):
        return load.partition(":")[0]
    return getattr(load, "__module__", None)


@lru_cache(maxsize=64)
def _root(top: str) -> Path | None:
    """The folder of a top-level package; None if it is a single module, or none at all."""
    try:
        found = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations)))


def _file(root: Path, name: str) -> Path | None:
    """The file of a dotted name below the package at ``root``."""
    place = root.joinpath(*name.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if place != root and path.is_file():
            return path
    start = root / "__init__.py"
    return start if place == root and start.is_file() else None


@lru_cache(maxsize=1024)
def _source(path: Path) -> str:
    return path.read_text(encoding="utf-8")


@lru_cache(maxsize=1024)
def _imported(path: Path, name: str, top: str) -> tuple[str, ...]:
    """Dotted names below ``top`` that may be modules which the file imports."""
    return tuple(dict.fromkeys(_names(_source(path), path, name, top)))


def _names(source: str, path: Path, name: str, top: str) -> Iterator[str]:
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for base, what, plain in _IMPORT.findall(source):
        if plain:
            yield from (p.split()[0] for p in plain.split(",") if p.split()[:1] and _under(p, top))
            continue
        dots = len(base) - len(base.lstrip("."))
        if dots:
            base = ".".join([*package[: len(package) - dots + 1], *filter(None, [base[dots:]])])
        if _under(base, top):
            yield base
            listed = what.strip("()").replace("\\\n", " ")
            parts = (re.sub(r"#.*", "", row) for row in listed.splitlines())
            yield from (f"{base}.{p.split()[0]}" for p in ",".join(parts).split(",") if p.split())


def _under(name: str, top: str) -> bool:
    words = name.split()
    return bool(words) and (words[0] == top or words[0].startswith(top + "."))
