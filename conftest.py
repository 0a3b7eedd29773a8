"""What cannot be collected here: plugins whose libraries are not installed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

NEEDS = {
    "ppcore_pyro": ("torch", "pyro"),
    "ppcore_flows": ("equinox", "flowjax", "optax"),
    "ppcore_external/nutpie.py": ("nutpie",),
    "ppcore_external/emcee.py": ("emcee",),
    "ppcore_external/dynesty.py": ("dynesty",),
}
PLUGINS = Path(__file__).parent / "plugins"

collect_ignore = [
    str(PLUGINS / where)
    for where, modules in NEEDS.items()
    if not all(find_spec(module) for module in modules)
]
