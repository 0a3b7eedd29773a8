"""The command ``ppcore``: every subcommand lives in a module of its own, imported when called."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

from ppcore import registry
from ppcore.cli import check
from ppcore.errors import PPCoreError, SettingsError, did_you_mean


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``ppcore ARGV`` and return its exit status: 2 for a mistake of the user's.

    >>> main(["summary", "no_such_folder"])
    2
    """
    arguments = _parser().parse_args(argv)
    try:
        _block(arguments.no_plugin)
        command = importlib.import_module(f"ppcore.cli.{arguments.command}")
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            return command.run(arguments)
    except PPCoreError as error:
        print(f"ppcore {arguments.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"ppcore {arguments.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read the output has gone (`ppcore engines | head`): nothing is left to say, and
        # the interpreter's last flush must not say it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _show_warning(message: Warning | str, *where: Any, **more: Any) -> None:
    """A warning without the line of ppcore's own code that it was raised from."""
    print(f"warning: {message}", file=sys.stderr)


def _block(names: Sequence[str]) -> None:
    """Add ``--no-plugin`` to the environment, so that processes started from here inherit it."""
    if not names:
        return
    known = {plugin.origin.plugin for plugin in registry.catalog().plugins}
    for name in names:
        if name not in known:
            raise SettingsError(f"--no-plugin {name}: no such plugin. {did_you_mean(name, known)}")
    before = os.environ.get(registry.BLOCK)
    os.environ[registry.BLOCK] = ",".join([*([before] if before else []), *names])


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--no-plugin",
        action="append",
        default=[],
        metavar="NAME",
        help="leave out the plugin of this entry point (may be repeated)",
    )
    parser = argparse.ArgumentParser(
        prog="ppcore", description="Declare a model once; sample it with any engine."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, help: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=help, description=help, parents=[common])

    engines = command("engines", "list the engines that are installed")
    engines.add_argument("--json", action="store_true", help="print JSON")
    rewrites = command("rewrites", "list the rewrites that models go through, in their order")
    rewrites.add_argument("--json", action="store_true", help="print JSON")
    command("doctor", "show versions, devices, folders and plugins, and what is wrong with them")
    _sample_arguments(command("sample", "fit a model in a file to data in a file"))
    summary = command("summary", "summarise a saved fit")
    summary.add_argument("fit", metavar="DIR", help="where `ppcore sample` saved it")
    demo = command("demo", "fit two hierarchical models to real data")
    demo.add_argument("--engine", help="an engine of `ppcore engines`")
    demo.add_argument("--seed", type=int, default=1)
    demo.add_argument("--out", default="demo_output", metavar="DIR", help="where to save the fits")
    check.add_parser(command)
    return parser


def _sample_arguments(sample: argparse.ArgumentParser) -> None:
    sample.add_argument("model", metavar="FILE.py:MODEL", help="a function marked @pp.model")
    sample.add_argument("--data", metavar="FILE", help="a .json file or a .csv file with a header")
    sample.add_argument(
        "--arg",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an argument of the model that the data file lacks (may be repeated)",
    )
    sample.add_argument(
        "--observe",
        action="append",
        default=[],
        metavar="SITE[=COLUMN]",
        help="a site and the column of the data that it was observed to be (may be repeated)",
    )
    sample.add_argument("--engine", help="an engine of `ppcore engines`")
    sample.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a setting of the engine (may be repeated)",
    )
    sample.add_argument("--seed", type=int, default=0)
    sample.add_argument("--draws", type=int, help="draws of each chain")
    sample.add_argument("--chains", type=int)
    sample.add_argument("--out", required=True, metavar="DIR", help="where to save the fit")
    sample.add_argument("--quiet", action="store_true", help="show no progress")
