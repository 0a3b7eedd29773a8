"""Draws in the model's own coordinates, by a program that is compiled while sampling goes on."""

from __future__ import annotations

import threading
import warnings
from functools import cache
from typing import Any

import numpy as np

from ppcore import precision as precisions
from ppcore.compiled import BRIEF, QUICK, jit
from ppcore.report import SamplingWarning
from ppcore.run.keys import Keys

ROWS = 2048
LIGHT = 150_000
"""Numbers of all draws up to which their program is compiled in a hurry."""


class Constrain:
    """``target.constrain`` of all draws at once, compiled ahead of its use in another thread.

    Discrete sites that were summed out are drawn from their conditional given each draw.

    Parameters
    ----------
    target : Target
    precision : str
        The precision of the draws; each thread has to be told.
    shape : (int, int, int)
        chains, draws and d of the run that is expected.
    seed : int
        The run's.
    """

    def __init__(self, target: Any, precision: str, shape: tuple[int, int, int], seed: int) -> None:
        self.target, self.precision, self.shape = target, precision, shape
        self.key = Keys(seed).labels if getattr(target, "labels", ()) else None
        self.program = _program(int(np.prod(shape)) <= LIGHT)
        self.thread = threading.Thread(target=self._compile, name="ppcore-constrain")
        self.thread.start()

    def __call__(self, x: np.ndarray) -> dict[str, np.ndarray]:
        """float[chains, draws, d] -> {site: array[chains, draws, ...]}.

        Warns with :class:`~ppcore.report.SamplingWarning` if a value overflows on the way.
        """
        self.thread.join()
        chains, draws, dim = x.shape
        with precisions.scope(self.precision):
            flat = np.ascontiguousarray(x).reshape(-1, dim)
            parts = [self.program(self.target, self.key, rows) for rows in self._rows(flat)]
            values = {
                name: np.concatenate([np.asarray(p[name]) for p in parts])[: len(flat)]
                for name in parts[0]
            }
        for name, value in values.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                bad = int((~np.isfinite(value.reshape(len(value), -1))).any(axis=1).sum())
                warnings.warn(
                    f"Site {name!r} is not finite in {bad} of {len(value)} draws: it overflows on "
                    "the way from unconstrained coordinates. Give it a prior with lighter tails, "
                    "or rescale the data.",
                    SamplingWarning,
                    stacklevel=2,
                )
        return {
            name: value.reshape(chains, draws, *value.shape[1:]) for name, value in values.items()
        }

    def _rows(self, x: np.ndarray) -> list[np.ndarray]:
        """Without keys ``ROWS`` draws at a time, so that no number of draws compiles anew."""
        if self.key is not None:
            return [x]
        padded = np.concatenate([x, np.repeat(x[-1:], -len(x) % ROWS, axis=0)])
        return np.split(padded, len(padded) // ROWS)

    def _compile(self) -> None:
        import jax

        chains, draws, dim = self.shape
        with precisions.scope(self.precision):
            size = ROWS if self.key is None else chains * draws
            rows = jax.ShapeDtypeStruct((size, dim), np.dtype(self.precision))
            try:
                self.program.lower(self.target, self.key, rows).compile()
            except Exception:
                # The caller meets the same error when it asks for the values.
                return


@cache
def _program(light: bool) -> Any:
    import jax

    def values(target: Any, key: Any, x: Any) -> Any:
        if key is None:
            return jax.vmap(target.constrain)(x)
        return jax.vmap(target.complete)(jax.random.split(key, len(x)), x)

    return jit(values, QUICK if light else BRIEF)
