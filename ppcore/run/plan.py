"""The sizes of a run, decided before anything is computed, and what tells one run from another."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ppcore.errors import SettingsError
from ppcore.run.checkpoint import read_manifest
from ppcore.run.describe import digest, engine_settings, type_name

SEEDS = 2**32


@dataclass(frozen=True)
class Plan:
    """``blocks`` blocks of ``block`` draws of every chain, of which ``draws`` are kept."""

    draws: int
    chains: int
    block: int
    dim: int
    precision: str

    @property
    def blocks(self) -> int:
        return -(-self.draws // self.block)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(self.precision)


def plan(
    engine: Any,
    target: Any,
    draws: int | None,
    chains: int | None,
    block_size: int | None,
    checkpoint: Path | None,
    precision: str,
) -> Plan:
    """Fill in what was left open: the engine's own sizes, or those of the saved run."""
    saved = read_manifest(checkpoint) if checkpoint is not None else None
    draws = count("draws", engine.default_draws if draws is None else draws)
    chains = count("chains", engine.default_chains if chains is None else chains)
    if block_size is not None:
        block = count("block_size", block_size)
    elif saved is not None:
        # More draws than before would suggest another size, and so other keys.
        block = int(saved.get("block_size", default_block(draws)))
    else:
        block = min(draws, getattr(engine, "block_size", None) or default_block(draws))
    dim = int(target.dim)
    if dim < 1:
        raise SettingsError(
            "The target has no unconstrained coordinate to sample: every site of the model is "
            "observed or discrete."
        )
    return Plan(draws, chains, block, dim, precision)


def default_block(draws: int) -> int:
    """The size of a block: a divisor of ``draws`` near a twentieth of it, where there is one.

    >>> default_block(1000), default_block(100), default_block(7)
    (50, 10, 7)
    """
    aim = min(max(draws // 20, 16), 50)
    divisors = [n for n in range(max(aim // 2, 1), aim + 1) if draws % n == 0]
    return min(draws, divisors[-1] if divisors else aim)


def count(name: str, value: Any) -> int:
    """``value`` as a positive int; raises :class:`~ppcore.errors.SettingsError`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise SettingsError(f"{name}={value!r} must be an integer, 1 or more.")
    return int(value)


def check_seed(seed: Any) -> int:
    """``seed`` as an int; raises :class:`~ppcore.errors.SettingsError` unless 0 <= seed < 2**32."""
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < SEEDS:
        raise SettingsError(f"seed={seed!r} must be an integer from 0 to 2**32 - 1.")
    return int(seed)


def identity(engine: Any, target: Any, plan: Plan, seed: int) -> dict[str, Any]:
    """What must agree for a saved run to be continued, as JSON-able data.

    The target is recognised by its type and sizes, a digest of its data, and its log density at
    three fixed points, which tells two models with the same data apart.
    """
    import jax

    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(target)]
    points = np.random.default_rng(0).normal(0.0, 0.5, (3, plan.dim)).astype(plan.dtype)
    densities = jax.jit(lambda t, x: jax.vmap(t.log_density)(x))(target, points)
    return {
        "engine": {"type": type_name(type(engine)), **engine_settings(engine)},
        "chains": plan.chains,
        "block_size": plan.block,
        "seed": seed,
        "precision": plan.precision,
        "dim": plan.dim,
        "target": type_name(type(target)),
        "data": digest(leaves),
        "log_density": [float(value) for value in np.asarray(densities)],
    }


def versions() -> dict[str, str]:
    """Versions of what the draws depend on."""
    return dict(_versions())


@cache
def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("ppcore", "jax", "numpyro", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a distribution"
    return found
