"""Find plugins, list what they offer without importing it, and load it by name.

Distributions declare plugins in the entry-point group ``ppcore.plugins``. Each plugin is called on
its own: one that fails is reported by :func:`catalog`, and the others work. The environment
variable ``PPCORE_PLUGINS`` lists the only entry points to load, ``PPCORE_NO_PLUGINS`` those to
leave out (names separated by commas).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import Distribution, EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

import pluggy

from ppcore.errors import PluginError, PPCoreError, SettingsError, did_you_mean
from ppcore.hooks import (
    GROUP,
    KINDS,
    EngineSpec,
    FrontendSpec,
    Hooks,
    Origin,
    RewriteSpec,
    Spec,
    hookimpl,
)

__all__ = [
    "Catalog",
    "EngineSpec",
    "FrontendSpec",
    "Origin",
    "Plugin",
    "RewriteSpec",
    "Spec",
    "catalog",
    "engine",
    "hookimpl",
    "refresh",
    "register",
    "resolve",
    "rewrites",
    "setting_names",
    "spec",
    "unavailable",
]

ALLOW, BLOCK = "PPCORE_PLUGINS", "PPCORE_NO_PLUGINS"
HERE = Origin("register", "this session", "")


@dataclass(frozen=True)
class Plugin:
    """One entry point: where it comes from, what it offers, and why it is out of use."""

    origin: Origin
    specs: tuple[Spec, ...] = ()
    blocked: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Catalog:
    """Everything that is installed.

    Attributes
    ----------
    plugins : tuple of Plugin
        Every entry point, with the blocked and the broken.
    engines, rewrites, frontends : mapping of name to spec
        What can be named, by kind.
    refused : mapping of name to str
        Names that more than one plugin claims, and why neither is used.
    notes : tuple of str
        Other things a user should know, such as an unknown name in ``PPCORE_PLUGINS``.
    """

    plugins: tuple[Plugin, ...]
    engines: Mapping[str, EngineSpec]
    rewrites: Mapping[str, RewriteSpec]
    frontends: Mapping[str, FrontendSpec]
    refused: Mapping[str, str]
    notes: tuple[str, ...] = ()

    def of(self, kind: str) -> Mapping[str, Any]:
        """The specs of one kind: "engine", "rewrite" or "frontend"."""
        by_kind: dict[str, Mapping[str, Any]] = {
            "engine": self.engines,
            "rewrite": self.rewrites,
            "frontend": self.frontends,
        }
        return by_kind[kind]


_registered: dict[tuple[str, str], Spec] = {}


def catalog() -> Catalog:
    """What is installed and allowed now; each plugin's light module is imported once.

    >>> sorted(catalog().refused)
    []
    """
    return _assemble(os.environ.get(ALLOW), os.environ.get(BLOCK, ""), tuple(_registered.values()))


def refresh() -> None:
    """Look at the installed distributions again, after an installation in this process."""
    importlib.invalidate_caches()
    _plugin.cache_clear()
    _assemble.cache_clear()


def register(spec: Spec, *, replace_existing: bool = False) -> None:
    """Offer an engine, rewrite or frontend from a notebook, for the life of the process.

    Raises :class:`~ppcore.errors.PluginError` if the name is taken; with ``replace_existing``,
    what was registered here (never a plugin's) is replaced.
    """
    mine, place = replace(spec, origin=HERE), (spec.kind, spec.name)
    taken = catalog().of(spec.kind).get(spec.name)
    if taken is not None and taken != mine:
        if not (replace_existing and place in _registered):
            remedy = (
                "Pass replace_existing=True to replace it."
                if place in _registered
                else "Choose another name."
            )
            raise PluginError(
                f"The {spec.kind} name {spec.name!r} is taken by {taken.origin}. {remedy}"
            )
    _registered[place] = mine


def spec(name: str, kind: str = "engine") -> Any:
    """The spec of the engine (or other ``kind``) called ``name``.

    Raises :class:`~ppcore.errors.SettingsError` for an unknown name (with the nearest known one)
    and :class:`~ppcore.errors.PluginError` for a name that two plugins claim.
    """
    known = catalog()
    offered = known.of(kind)
    if name in offered:
        return offered[name]
    if name in known.refused:
        raise PluginError(known.refused[name])
    hints = [f"{kind.capitalize()} {name!r} is not known.", did_you_mean(name, offered)]
    out = [p for p in known.plugins if p.blocked or p.error]
    hints += [f"Not in use: plugin {p.origin.plugin!r}: {p.blocked or p.error}" for p in out]
    if not known.plugins:
        hints.append("No plugin is installed: install ppcore itself with pip.")
    raise SettingsError(" ".join(hints))


def rewrites(without: Iterable[str] = (), more: Iterable[str] = ()) -> dict[str, Any]:
    """The installed rewrites by name, loaded, in the order of application.

    Parameters
    ----------
    without : names
        Left out. A name that is none of the rewrites, nor of ``more``, is an error.
    more : names
        What else ``without`` may hold.

    Raises :class:`~ppcore.errors.SettingsError` for an unknown name (with the nearest known one)
    and :class:`~ppcore.errors.PluginError` for a rewrite that cannot be loaded.
    """
    known = catalog().rewrites
    left_out = (without,) if isinstance(without, str) else tuple(without)
    names = [*known, *more]
    for name in left_out:
        if name not in names:
            raise SettingsError(f"No rewrite is called {name!r}. {did_you_mean(name, names)}")
    order = sorted(known, key=lambda n: (known[n].order, n))
    kept = (n for n in order if n not in left_out and unavailable(known[n]) is None)
    found = {name: resolve(name, "rewrite") for name in kept}
    return {n: made() if isinstance(made, type) else made for n, made in found.items()}


def unavailable(spec: Spec) -> str | None:
    """Why the spec cannot be loaded here and what to install, or None; imports nothing.

    >>> unavailable(Spec("x", "m:X", requires=("json", "no_such_module")))
    "'x' needs the module no_such_module, which is not installed: pip install no_such_module"
    """
    missing = [module for module in spec.requires if not _found(module)]
    if not missing:
        return None
    what = " ".join(missing)
    if spec.extra is not None and spec.origin is not None:
        what = f'"{spec.origin.distribution}[{spec.extra}]"'
    many = len(missing) > 1
    return (
        f"{spec.name!r} needs the module{'s' * many} {' and '.join(missing)}, "
        f"which {'are' if many else 'is'} not installed: pip install {what}"
    )


def resolve(name: str, kind: str = "engine") -> Callable[..., Any]:
    """The class, constructor or object that ``name`` stands for; imports what it needs.

    Raises :class:`~ppcore.errors.PluginError` if a requirement is missing, or if the import fails.
    """
    found = spec(name, kind)
    reason = unavailable(found)
    if reason is not None:
        raise PluginError(f"{kind.capitalize()} {reason}")
    if not isinstance(found.load, str):
        return found.load
    module, _, attribute = found.load.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"{kind.capitalize()} {name!r} of {found.origin} could not be loaded from "
            f"{found.load!r}: {_said(error)}. Leave its plugin out with --no-plugin "
            f"{found.origin.plugin if found.origin else name}, or report this to its authors."
        ) from error


def engine(name: str, settings: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """The engine called ``name``, built with ``settings`` (its constructor's arguments).

    Raises :class:`~ppcore.errors.SettingsError` for a setting that is unknown (with the nearest
    known one), missing, or refused by the constructor.
    """
    make = resolve(name)
    known = setting_names(make)
    for key in settings:
        if key not in known:
            raise SettingsError(
                f"Engine {name!r} has no setting {key!r}. {did_you_mean(key, known)}"
            )
    for key, required in known.items():
        if required and key not in settings:
            raise SettingsError(f"Engine {name!r} needs the setting {key!r}: pass {key}=...")
    try:
        return make(**settings)
    except PPCoreError:
        raise
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        raise SettingsError(f"Engine {name!r} refuses ({given}): {error}") from error


def setting_names(make: Callable[..., Any]) -> dict[str, bool]:
    """The constructor's arguments that can be set by name, each with whether it is required."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default is p.empty for p in parameters if p.kind in by_name}


@lru_cache(maxsize=8)
def _assemble(allow: str | None, block: str, registered: tuple[Spec, ...]) -> Catalog:
    points = sorted(entry_points(group=GROUP), key=lambda p: (p.name, _origin(p).distribution))
    allowed, blocked = _names(allow or ""), _names(block)
    names = {p.name for p in points}
    notes = tuple(
        f"{variable} names {name!r}, which is not installed. {did_you_mean(name, names)}"
        for variable, listed in ((ALLOW, allowed), (BLOCK, blocked))
        for name in listed
        if name not in names
    )
    plugins = []
    for point in points:
        if allow is not None and point.name not in allowed:
            plugins.append(Plugin(_origin(point), blocked=f"not among {ALLOW}={allow}"))
        elif point.name in blocked:
            plugins.append(Plugin(_origin(point), blocked=f"blocked by {BLOCK}={block}"))
        else:
            plugins.append(_plugin(point, _origin(point)))
    offered = [*(s for p in plugins for s in p.specs), *registered]
    named, refused = {}, {}
    for kind in KINDS.values():
        unique, claimed = _unique([s for s in offered if s.kind == kind.kind])
        named[kind.kind] = MappingProxyType(unique)
        refused.update(claimed)
    return Catalog(
        tuple(plugins),
        named["engine"],
        named["rewrite"],
        named["frontend"],
        MappingProxyType(refused),
        notes,
    )


@cache
def _plugin(point: EntryPoint, origin: Origin) -> Plugin:
    """Import one plugin and call its hooks; whatever it raises becomes its ``error``.

    ``origin`` is a part of the cache's key: entry points of two distributions may be equal.
    """
    try:
        manager = pluggy.PluginManager("ppcore")
        manager.add_hookspecs(Hooks)
        module = point.load()
        manager.register(module, point.name)
        _refuse_unknown_hooks(manager)
        specs = [
            replace(_checked(spec, hook, kind), origin=origin)
            for hook, kind in KINDS.items()
            for offered in getattr(manager.hook, hook)()
            for spec in offered
        ]
        return Plugin(origin, tuple(specs))
    except (Exception, SystemExit) as error:
        return Plugin(origin, error=_said(error))


def _refuse_unknown_hooks(manager: pluggy.PluginManager) -> None:
    for hook in vars(manager.hook).values():
        if isinstance(hook, pluggy.HookCaller) and not hook.has_spec():
            if not all(implementation.optionalhook for implementation in hook.get_hookimpls()):
                raise PluginError(f"{hook.name!r} is no hook. {did_you_mean(hook.name, KINDS)}")


def _checked(spec: Any, hook: str, kind: type[Spec]) -> Spec:
    if not isinstance(spec, kind):
        raise PluginError(f"{hook} returned {spec!r}; it must return a list of {kind.__name__}.")
    return spec


def _unique(specs: Iterable[Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Specs by name; a name that two claim belongs to neither, whichever was installed first."""
    by_name: dict[str, list[Spec]] = {}
    for spec in specs:
        by_name.setdefault(spec.name, []).append(spec)
    refused = {}
    for name, claims in by_name.items():
        if len(claims) > 1:
            origins = [claim.origin for claim in claims if claim.origin is not None]
            who = " and ".join(f"{o} (plugin {o.plugin!r})" for o in origins)
            refused[name] = (
                f"The name {name!r} is claimed by {who}, so neither is used. "
                f"Leave one out with --no-plugin NAME or {BLOCK}=NAME, or uninstall one."
            )
    return {name: c[0] for name, c in by_name.items() if len(c) == 1}, refused


def _origin(point: EntryPoint) -> Origin:
    if point.dist is None:
        return Origin(point.name, "unknown distribution", "")
    return Origin(point.name, *_name_and_version(point.dist))


@cache
def _name_and_version(distribution: Distribution) -> tuple[str, str]:
    """Each would parse the whole of the metadata, and again for every entry point."""
    metadata = distribution.metadata
    return metadata["Name"], metadata["Version"]


def _names(listed: str) -> list[str]:
    return [name.strip() for name in listed.split(",") if name.strip()]


def _found(module: str) -> bool:
    """Whether the top-level package can be imported (looked up without running anything)."""
    try:
        return importlib.util.find_spec(module.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
