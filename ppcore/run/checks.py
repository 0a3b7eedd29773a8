"""What an engine returns is checked before it is kept: a bad result never becomes a posterior."""

from __future__ import annotations

from typing import Any

import numpy as np

from ppcore.errors import PPCoreError, StartError


class EngineError(PPCoreError):
    """An engine returned draws that cannot be a posterior's; the message names the block."""


def check_warm(engine: Any, x: np.ndarray, chains: int, dim: int, dtype: np.dtype) -> None:
    """Start positions are finite floats, one row for each chain.

    Raises :class:`EngineError` for a wrong shape or dtype, and
    :class:`~ppcore.errors.StartError` for a position that is not finite.
    """
    _check_array(engine, "warm-up", "start positions", x, (chains, dim), dtype)
    if not np.all(np.isfinite(x)):
        row = int(np.argwhere(~np.isfinite(x))[0, 0])
        raise StartError(
            f"Engine {name_of(engine)!r} left its warm-up with chain {row} at a position that is "
            "not finite."
        )


def check_block(
    engine: Any,
    target: Any,
    index: int,
    draws: np.ndarray,
    stats: dict[str, np.ndarray],
    shape: tuple[int, int, int],
    dtype: np.dtype,
) -> None:
    """Draws are finite floats[chains, n, d]; stats are [chains, n]; log densities are finite."""
    where = f"block {index}"
    _check_array(engine, where, "draws", draws, shape, dtype)
    for key, values in stats.items():
        if np.shape(values) != shape[:2]:
            raise EngineError(
                f"Engine {name_of(engine)!r}, {where}: stat {key!r} has shape {np.shape(values)}; "
                f"it must be {shape[:2]}: [chains, draws of the block]."
            )
    wrong = ~np.isfinite(draws)
    if wrong.any():
        chain, draw, coordinate = (int(i) for i in np.argwhere(wrong)[0])
        raise EngineError(
            f"Engine {name_of(engine)!r}, {where}: {int(wrong.any(-1).sum())} of "
            f"{shape[0] * shape[1]} draws are not finite, first in chain {chain}, draw {draw}, "
            f"{coordinate_name(target, coordinate)} = {draws[chain, draw, coordinate]}. "
            "Nothing of the block is kept; this is a defect of the engine."
        )
    log_density = stats.get("log_density")
    if log_density is not None and not np.all(np.isfinite(log_density)):
        chain, draw = (int(i) for i in np.argwhere(~np.isfinite(log_density))[0])
        raise EngineError(
            f"Engine {name_of(engine)!r}, {where}: the log density of draw {draw} in chain {chain} "
            f"is {log_density[chain, draw]}: a point without density was accepted. "
            "Nothing of the block is kept; this is a defect of the engine."
        )


def coordinate_name(target: Any, coordinate: int) -> str:
    """Which site an unconstrained coordinate belongs to, as far as the target can tell."""
    for site, where in getattr(target, "site_slices", {}).items():
        if where.start <= coordinate < where.stop:
            inner = coordinate - where.start
            return f"site {site!r} (unconstrained coordinate {inner})"
    return f"coordinate {coordinate}"


def name_of(engine: Any) -> str:
    """What to call an engine in a message."""
    return str(getattr(engine, "name", None) or type(engine).__name__)


def _check_array(
    engine: Any,
    where: str,
    what: str,
    value: np.ndarray,
    shape: tuple[int, ...],
    dtype: np.dtype,
) -> None:
    if value.shape != shape:
        raise EngineError(
            f"Engine {name_of(engine)!r}, {where}: {what} have shape {value.shape}; "
            f"they must have shape {shape}."
        )
    if value.dtype != dtype:
        raise EngineError(
            f"Engine {name_of(engine)!r}, {where}: {what} have dtype {value.dtype}; the run "
            f"computes in {dtype}. An engine follows the dtype of the positions it is given."
        )
