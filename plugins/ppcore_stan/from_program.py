"""``from_stan``: a Stan program, compiled, as a density with its parameters' names and shapes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppcore.errors import ModelError, PluginError
from ppcore.foreign import ForeignProgram, Frontend
from ppcore_stan.target import Compiled, Site, StanTarget

LIBRARIES = (".so", ".dylib", ".dll")
TOOLCHAIN = (
    'Stan programs are compiled by BridgeStan: pip install "ppcore[stan]", a C++ compiler with '
    "make (Debian: apt-get install g++ make), and BridgeStan's own sources, which it downloads at "
    "first use, or which the environment variable BRIDGESTAN names"
)
CALLS = (
    "it is compiled by Stan, so that every evaluation is a call to the host, of all chains at once "
    "on its threads"
)


def from_stan(code: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ForeignProgram:
    """A Stan program with its data: the density of its model block, in Stan's coordinates.

    Parameters
    ----------
    code : str or path
        The text of a program, a ``.stan`` file, or a library that BridgeStan has compiled.
    args
        One: the data, as a mapping, JSON text, a ``.json`` file, or None.

    Raises
    ------
    ModelError
        If the program does not compile, lacks data or parameters, or rejects the data.
    PluginError
        If the compiler or BridgeStan's sources are missing.
    """
    (data,) = args
    library = _library(code)
    model = _instance(library, _json(data))
    return ForeignProgram(
        str(model.name()).removesuffix("_model"),
        StanTarget(described(model)),
        *_names(model),
        why=CALLS,
    )


def _names(model: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    made = described(model)
    return tuple(s.name for s in made.latents), tuple(s.name for s in made.computed)


def described(model: Any) -> Compiled:
    """The program's variables, from the names that Stan gives to their elements.

    Raises :class:`~ppcore.errors.ModelError` if it has no parameter.
    """
    count = model.param_num()
    inner = list(model.param_unc_names()) if model.param_unc_num() else []
    if not inner:
        raise ModelError("The Stan program has no parameter, so there is nothing to infer.")
    names = list(model.param_names(include_tp=True))
    latents, computed = _sites(names[:count], 0), _sites(names[count:], count)
    places, start = [], 0
    for site in latents:
        mine = sum(_parts(name)[0] == site.name for name in inner)
        places.append((site.name, slice(start, start + mine)))
        start += mine
    threads = "stan_threads=true" in str(model.model_info()).replace(" ", "").lower()
    return Compiled(model, latents, computed, tuple(places), threads)


def _parts(name: str) -> list[str]:
    """``t:2.1``, an element of a part of the tuple ``t``, as ``t``, ``2`` and ``1``."""
    return name.replace(":", ".").split(".")


def _sites(names: list[str], start: int) -> tuple[Site, ...]:
    """``b.1.1, b.2.1, …`` as a site ``b`` with its shape; tuples and complex numbers as vectors."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_parts(name)[0], []).append(name)
    made = []
    for head, elements in found.items():
        shape: tuple[int, ...] = (len(elements),)
        indices = [_parts(name)[1:] for name in elements]
        plain = all(part.isdigit() for index in indices for part in index)
        # Parts of a tuple, and real and imaginary ones, come in another order than elements do.
        if plain and not any(":" in name for name in elements):
            shape = tuple(max(map(int, column)) for column in zip(*indices, strict=True))
        made.append(Site(head, slice(start, start + len(elements)), shape))
        start += len(elements)
    return tuple(made)


def _json(data: Any) -> str:
    """Data as Stan reads them."""
    if data is None:
        return ""
    if isinstance(data, Mapping):
        return json.dumps({str(k): _plain(k, v) for k, v in data.items()})
    text = os.fspath(data)
    if text.endswith(".json"):
        path = Path(text)
        if not path.is_file():
            raise ModelError(f"There is no file {text} of data for the Stan program.")
        return path.read_text()
    return str(text)


def _plain(name: str, value: Any) -> Any:
    array = np.asarray(value)
    if array.dtype.kind not in "iufb":
        raise ModelError(
            f"Data {name!r} are of type {array.dtype}: Stan takes numbers and arrays of them."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int((~np.isfinite(array)).sum())
        raise ModelError(
            f"Data {name!r} hold NaN or infinity at {bad} of {array.size} places. Leave them out, "
            "or declare them as parameters."
        )
    return array.astype(int).tolist() if array.dtype.kind == "b" else array.tolist()


def _library(code: Any) -> str:
    """A compiled library of the program; text is kept, and compiled, under its hash."""
    text = os.fspath(code)
    if text.endswith(LIBRARIES):
        if not Path(text).is_file():
            raise ModelError(f"There is no compiled Stan program {text}.")
        return text
    if "{" in text or "\n" in text:
        name = f"program_{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        folder = Path(tempfile.gettempdir()) / f"ppcore_stan_{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        path = folder / f"{name}.stan"
        if not path.exists():
            path.write_text(text)
    else:
        path = Path(text)
        if not path.is_file():
            raise ModelError(
                f"There is no Stan program {text}. Pass the text of one, or a path to a file."
            )
    return compiled(path)


def compiled(path: Path) -> str:
    """The library that BridgeStan makes of a ``.stan`` file.

    Raises
    ------
    PluginError
        If a part of the toolchain is missing.
    ModelError
        If the program does not compile, with what the compiler says.
    """
    import bridgestan

    for tool in ("make", "g++" if shutil.which("g++") else "clang++"):
        if shutil.which(tool) is None:
            raise PluginError(f"{tool} is missing. {TOOLCHAIN}.")
    try:
        return str(bridgestan.compile_model(path, make_args=["STAN_THREADS=True"]))
    except RuntimeError as error:
        raise ModelError(
            f"The Stan program {path.name} does not compile:\n{_said(error)}"
        ) from error
    except (OSError, ValueError) as error:
        raise PluginError(f"BridgeStan's sources cannot be had ({error}). {TOOLCHAIN}.") from error


def _said(error: Exception) -> str:
    """The compiler's own lines, without make's."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if "error" in line.lower()), 0)
    return "\n".join(line for line in lines[start : start + 20] if not line.startswith("make"))


def _instance(library: str, data: str) -> Any:
    """The program with its data.

    Raises :class:`~ppcore.errors.ModelError` with Stan's message if it refuses them.
    """
    import bridgestan

    try:
        return bridgestan.StanModel(library, data or None, warn=False)
    except RuntimeError as error:
        said = str(error).strip()
        hint = "Check the names and sizes in the data block."
        if "does not exist" in said or "not found" in said.lower():
            hint = "Pass it: from_stan(code, {name: value, ...})."
        raise ModelError(f"The Stan program refuses its data: {said}. {hint}") from error


FRONTEND = Frontend(read=from_stan)
"""What ``ppcore.from_stan`` calls."""
