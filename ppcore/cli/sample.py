"""``ppcore sample``: fit a model in a file to data in a file."""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import sys
import traceback
from pathlib import Path
from typing import Any

from ppcore import registry
from ppcore.cli import data as files
from ppcore.cli.summary import table
from ppcore.errors import ModelError, PPCoreError, SettingsError, did_you_mean


def run(arguments: argparse.Namespace) -> int:
    """Fit, save, and print the summary; what can be checked is checked before anything runs."""
    out = Path(arguments.out)
    if out.exists():
        raise SettingsError(f"--out {out} exists already. Remove it, or choose another folder.")
    settings = files.pairs(arguments.set, "--set")
    if arguments.engine is not None:
        registry.engine(arguments.engine, settings)
    elif settings:
        raise SettingsError("--set needs --engine NAME: settings belong to an engine.")
    data = files.read(Path(arguments.data)) if arguments.data else {}
    declare = load_model(arguments.model)
    parameters = registry.setting_names(declare)
    given = files.pairs(arguments.arg, "--arg")
    model = declare(**files.arguments(parameters, data, given))
    observed = files.evidence(arguments.observe, data)
    posterior = model.observe(observed) if observed else model
    chosen = {"draws": arguments.draws, "chains": arguments.chains}
    fit = posterior.infer(
        *([arguments.engine] if arguments.engine else []),
        seed=arguments.seed,
        **({"progress": "off"} if arguments.quiet else {}),
        **{name: value for name, value in chosen.items() if value is not None},
        **settings,
    )
    fit.save(out)
    print(table(fit))
    print(f"Saved in {out}; `ppcore summary {out}` shows this table again.")
    return 0


def load_model(where: str) -> Any:
    """The model function named by ``FILE.py:MODEL``.

    Raises :class:`~ppcore.errors.SettingsError` if there is no such file or name, and
    :class:`~ppcore.errors.ModelError` with the guilty line if the file fails to run.
    """
    file, colon, name = where.rpartition(":")
    path = Path(file)
    if not colon or not path.is_file():
        missing = f"{file} is not a file" if colon else f"{where!r} must read FILE.py:MODEL"
        raise SettingsError(f"{missing}. Example: ppcore sample radon.py:radon --out fit")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise SettingsError(f"{file} is not a Python file: its name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    # The model's file may import its neighbours, as it may when run by itself.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except PPCoreError as error:
        raise ModelError(
            f"While running {file}: {error} (Put what should not run here under "
            '`if __name__ == "__main__":`.)'
        ) from error
    except SyntaxError as error:
        raise ModelError(f"{file}, line {error.lineno}: {error.msg}") from error
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        place = f"{file}, line {lines[-1]}" if lines else file
        raise ModelError(f"{place}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    found = getattr(module, name, None)
    if found is None or not callable(found):
        models = [key for key, value in vars(module).items() if _declared_in(value, module)]
        raise SettingsError(f"{file} has no model {name!r}. {did_you_mean(name, models)}")
    return found


def _declared_in(value: Any, module: Any) -> bool:
    function = inspect.unwrap(value) if callable(value) else None
    return getattr(function, "__module__", None) == module.__name__
