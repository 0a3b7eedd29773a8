"""Points of a lattice, int[..., d], as sorted integers that can be looked up."""

from __future__ import annotations

import numpy as np

SPREAD = np.int64(1 << 20)
"""Coordinates lie between −SPREAD and SPREAD."""


def code_of(cells: np.ndarray) -> np.ndarray:
    """One integer for each cell."""
    code = np.zeros(cells.shape[:-1], np.int64)
    for i in range(cells.shape[-1]):
        code = code * (2 * SPREAD) + cells[..., i] + SPREAD
    return code


def unique(cells: np.ndarray) -> np.ndarray:
    """Each of the cells int[..., d] once."""
    code, dim = np.sort(code_of(cells), axis=None), cells.shape[-1]
    code = code[np.concatenate([[True], code[1:] != code[:-1]])]
    out = np.empty((len(code), dim), int)
    for i in reversed(range(dim)):
        code, rest = np.divmod(code, 2 * SPREAD)
        out[:, i] = rest - SPREAD
    return out


def encoded(cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sorted codes of cells, and which cell each is."""
    code = code_of(cells)
    order = np.argsort(code)
    return code[order], order


def find(codes: np.ndarray, order: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """Which of the :func:`encoded` cells each of ``cells`` is, or −1."""
    wanted = code_of(cells)
    at = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
    return np.where(codes[at] == wanted, order[at], -1)


def look_up(
    codes: np.ndarray, order: np.ndarray, values: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    """The value of each of ``cells``, 0 for those that are not among the encoded ones."""
    at = find(codes, order, cells)
    return np.where(at >= 0, values[np.maximum(at, 0)], 0.0)
