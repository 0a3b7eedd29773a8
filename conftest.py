"""What cannot be collected here, and the memory that tests leave behind."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

NEEDS = {
    "ppcore_pyro": ("torch", "pyro"),
    "ppcore_zuko": ("torch", "zuko"),
    "ppcore_flows": ("equinox", "flowjax", "optax"),
    "ppcore_flows/continuous.py": ("diffrax",),
    "ppcore_stan": ("bridgestan",),
    "ppcore_pymc": ("pymc",),
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

MAPPINGS = Path("/proc/self/maps")  # one line a mapped region of memory; only Linux has it


def pytest_runtest_teardown() -> None:
    """Compiled programs are dropped before they use up what one process may map.

    Each holds about ten regions and a megabyte and a half for as long as it is cached. Linux
    allows 65,530 regions; a process that runs half of the tests would die when it asks for more.
    """
    if not MAPPINGS.exists():
        return
    with MAPPINGS.open("rb") as lines:
        if sum(1 for _ in lines) < 6_000:
            return
    import jax

    jax.clear_caches()
