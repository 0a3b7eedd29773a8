"""What a plugin is made of: hooks that return specs. A spec is cheap; what it names is not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import pluggy

from ppcore.contract import Contract, Equivalent
from ppcore.errors import PluginError, did_you_mean

GROUP = "ppcore.plugins"
"""The entry-point group in which distributions name their plugins."""

CAPABILITIES = ("gradient", "reference")
"""What an engine may need of a target: a differentiable log density; a prior to draw from."""

hookspec = pluggy.HookspecMarker("ppcore")
hookimpl = pluggy.HookimplMarker("ppcore")


@dataclass(frozen=True)
class Origin:
    """Who offers a spec: the entry point's name, and the distribution that declares it."""

    plugin: str
    distribution: str
    version: str

    def __str__(self) -> str:
        return f"{self.distribution} {self.version}".strip()


@dataclass(frozen=True)
class Spec:
    """What is known of an extension without importing it; the base of every kind of spec.

    Parameters
    ----------
    name : str
        What a user types. Unique among all installed plugins.
    load : "module:attribute", or the object itself in a notebook
        Imported only when the name is used.
    requires : tuple of str
        Top-level modules that ``load`` imports; looked up, not imported, to tell availability.
    extra : str, optional
        The extra of the offering distribution that installs ``requires``.
    summary, reference : str
        One line for listings; the source (authors, year, identifier).
    origin : Origin, optional
        Filled in by the registry.

    Raises
    ------
    PluginError
        If a field has no meaning.
    """

    kind: ClassVar[str] = "extension"

    name: str
    load: str | Callable[..., Any]
    _: KW_ONLY
    requires: tuple[str, ...] = ()
    extra: str | None = None
    summary: str = ""
    reference: str = ""
    origin: Origin | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if isinstance(self.load, str) and not all(self.load.partition(":")):
            raise PluginError(
                f"{self.name!r}: load={self.load!r} must read 'package.module:attribute'."
            )
        if isinstance(self.requires, str):
            raise PluginError(
                f"{self.name!r}: requires={self.requires!r} must be a tuple of module names, "
                f"such as ({self.requires!r},)."
            )


@dataclass(frozen=True)
class EngineSpec(Spec):
    """An engine, as listed: :class:`Spec` with what it promises and what it needs.

    Parameters
    ----------
    contract : Contract
        What the engine, built with its default settings, promises about the distribution.
    needs : tuple of str
        Capabilities of the target, from :data:`CAPABILITIES`.

    >>> from ppcore.contract import Invariant
    >>> spec = EngineSpec("rwm", "my_package.rwm:RandomWalk", contract=Invariant(reversible=True))
    >>> spec.needs
    ()
    """

    kind: ClassVar[str] = "engine"

    contract: Contract = field(kw_only=True)
    needs: tuple[str, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.contract, Contract):
            raise PluginError(
                f"{self.name!r}: contract={self.contract!r} must be an instance of a class in "
                "ppcore.contract, such as Invariant()."
            )
        for need in (self.needs,) if isinstance(self.needs, str) else self.needs:
            if need not in CAPABILITIES or isinstance(self.needs, str):
                raise PluginError(
                    f"{self.name!r}: needs={self.needs!r} must be a tuple of capabilities of a "
                    f"target. {did_you_mean(need, CAPABILITIES)}"
                )


@dataclass(frozen=True)
class RewriteSpec(Spec):
    """A rewrite of models, as listed: ``load`` names a :class:`ppcore.rewrite.protocol.Rewrite`.

    Parameters
    ----------
    contract : Contract
        What it does to posterior and evidence.
    order : int
        Rewrites are applied in ascending order, and by name where orders are equal: 10 tidies,
        20 to 40 sum and integrate out, 60 to 80 change coordinates.

    >>> RewriteSpec("mine", "my_package.mine:REWRITE", summary="Does nothing yet.").contract
    Equivalent()
    """

    kind: ClassVar[str] = "rewrite"

    contract: Contract = field(default=Equivalent(), kw_only=True)
    order: int = field(default=50, kw_only=True)


@dataclass(frozen=True)
class FrontendSpec(Spec):
    """A way in, and perhaps out, for models of another library.

    ``load`` names a :class:`ppcore.foreign.Frontend`.

    >>> FrontendSpec("edward", "my_package.frontend:FRONTEND").kind
    'frontend'
    """

    kind: ClassVar[str] = "frontend"


class Hooks:
    """The hooks a plugin may implement, each a module-level function marked ``@hookimpl``."""

    @staticmethod
    @hookspec
    def ppcore_engines() -> Sequence[EngineSpec]:  # type: ignore[empty-body]
        """The engines that the plugin offers."""

    @staticmethod
    @hookspec
    def ppcore_rewrites() -> Sequence[RewriteSpec]:  # type: ignore[empty-body]
        """The rewrites that the plugin offers."""

    @staticmethod
    @hookspec
    def ppcore_frontends() -> Sequence[FrontendSpec]:  # type: ignore[empty-body]
        """The frontends that the plugin offers."""


KINDS: dict[str, type[Spec]] = {
    "ppcore_engines": EngineSpec,
    "ppcore_rewrites": RewriteSpec,
    "ppcore_frontends": FrontendSpec,
}
"""Hook name -> the class of the specs it returns; a new kind is a hook and a row here."""
