"""Imports point downwards only, the core knows no plugin, and plugins use public names only."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLUGINS = sorted(path.name for path in (ROOT / "plugins").glob("ppcore_*"))

# From the bottom up: a module imports from its own layer and from those before it.
LAYERS = (
    ("errors", "contract", "hooks", "registry", "precision", "settings", "compiled"),
    ("space", "diagram", "supports"),
    ("repaired", "simulated", "dist", "ops", "math", "recording"),
    ("semantics",),
    ("exact", "causal"),
    ("target", "model_target", "labelled_target", "foreign", "torch_view"),
    ("random", "engine", "kernel", "population", "transport", "state_space", "minibatch"),
    ("tuning", "chains"),
    ("rewrite",),
    ("compose", "stages", "paths"),
    ("testing",),
    ("plugins",),
    ("run",),
    ("report", "planner"),
    (
        "evidence",
        "fit",
        "estimators",
        "declare",
        "operations",
        "model_kernel",
        "foreign_model",
        "frontends",
    ),
    ("cli",),
)
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}

# What reaches up all the same, and why.
EXCEPTIONS: dict[tuple[str, str], str] = {}

CORE = sorted((ROOT / "ppcore").rglob("*.py"))
PLUGIN_FILES = sorted((ROOT / "plugins").rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, those of ``from`` included, wherever they stand."""
    tree = ast.parse(path.read_text(), str(path))
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func).endswith("import_module"):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def layer(path: Path) -> str:
    parts = path.relative_to(ROOT / "ppcore").with_suffix("").parts
    return parts[0]


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_core_imports_downwards(path: Path) -> None:
    here = layer(path)
    if here == "__init__":
        here = "cli"  # The front door offers names of every layer.
    assert here in RANK, f"{here!r} has no layer: add it to LAYERS in {__file__}"
    for name in imports(path):
        first, _, rest = name.partition(".")
        assert first not in PLUGINS, f"{path} imports the plugin {name}"
        if first != "ppcore":
            continue
        there = rest.partition(".")[0]
        if there not in RANK:
            # The front door offers names of every layer, so only the top may use it.
            top = RANK[here] == len(LAYERS) - 1
            assert top, f"{path} imports {name}: import it from its own module"
            continue
        relative = str(path.relative_to(ROOT))
        allowed = RANK[there] <= RANK[here] or (relative, there) in EXCEPTIONS
        assert allowed, f"{path} (layer {here}) imports {name} from the higher layer {there}"


@pytest.mark.parametrize("path", PLUGIN_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_plugins_use_public_names_of_lower_layers(path: Path) -> None:
    for name in imports(path):
        first, _, rest = name.partition(".")
        if first != "ppcore":
            continue
        assert not any(part.startswith("_") for part in rest.split(".")), f"{path}: {name}"
        there = rest.partition(".")[0]
        assert RANK.get(there, 0) < RANK["plugins"], f"{path} imports {name}, above the plugins"
    for owner, attribute in private_attributes(path):
        raise AssertionError(f"{path} uses {owner}.{attribute}, a private name")


def private_attributes(path: Path) -> Iterator[tuple[str, str]]:
    """Uses of ``module._name`` where ``module`` was imported from ppcore."""
    tree = ast.parse(path.read_text(), str(path))
    bound = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "ppcore":
            bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            bound |= {
                alias.asname or "ppcore"
                for alias in node.names
                if alias.name.split(".")[0] == "ppcore"
            }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or not node.attr.startswith("_"):
            continue
        if isinstance(node.value, ast.Name) and node.value.id in bound:
            if not node.attr.startswith("__"):
                yield node.value.id, node.attr


def test_exceptions_are_still_needed() -> None:
    for relative, there in EXCEPTIONS:
        used = {name.split(".")[1] for name in imports(ROOT / relative) if "." in name}
        assert there in used, f"{relative} no longer imports {there}: remove the exception"
