"""JAX's persistent compilation cache, in a folder of the user's."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from pathlib import Path
from typing import Any

VARIABLE, SWITCH = "PPCORE_CACHE_DIR", "PPCORE_CACHE"


def folder() -> Path:
    """Where ppcore caches: ``$PPCORE_CACHE_DIR``, else the platform's own place for caches."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "ppcore"
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return Path(local) / "ppcore" if local else Path.home() / "AppData" / "Local" / "ppcore"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "ppcore"


def enable() -> Path | None:
    """Switch the cache on for this process; the folder in use, or None if there is none.

    ``PPCORE_CACHE=off`` leaves JAX as it is, and so does a cache folder that the user configured
    (``JAX_COMPILATION_CACHE_DIR`` or ``jax.config``). A folder that cannot be written is passed
    over: the cache saves time, and a run must not fail for want of it.
    """
    import jax

    if os.environ.get(SWITCH, "").lower() in ("off", "0", "no", "false"):
        return None
    settings: Any = jax.config
    configured = settings.jax_compilation_cache_dir
    if configured is not None:
        return Path(configured)
    if not settings.jax_enable_compilation_cache:
        return None
    try:
        place = folder() / "xla" / _machine()
        # What is cached is executed, so nobody else may write there.
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    if not os.access(place, os.W_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(place))
    # The programs of a run are many and small; JAX by default keeps those above one second.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return place


def _machine() -> str:
    """A name for this processor: a home folder may be shared by machines whose code differs."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(x for x in lines if x.lower().startswith(("flags", "features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"
