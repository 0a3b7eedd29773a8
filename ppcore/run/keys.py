"""Keys of a run, computed on the host so that no program is compiled for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def threefry(key: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Threefry-2x32 with twenty rounds: ``count`` enciphered under ``key``, each uint32[2].

    Five groups of four rounds ``x0 += x1; x1 = rotl(x1, r) ^ x0``, each followed by an injection
    of the key schedule ``(k0, k1, k0 ^ k1 ^ parity)``.

    Source: Salmon, Moraes, Dror, Shaw (2011), doi:10.1145/2063384.2063405.

    >>> [hex(word) for word in threefry(np.zeros(2, np.uint32), np.zeros(2, np.uint32))]
    ['0x6b200159', '0x99ba4efe']
    """
    schedule = (key[0], key[1], key[0] ^ key[1] ^ _PARITY)
    with np.errstate(over="ignore"):
        x0, x1 = count[0] + schedule[0], count[1] + schedule[1]
        for group in range(5):
            for r in _ROTATIONS[group % 2]:
                x0 = x0 + x1
                x1 = (x1 << np.uint32(r)) | (x1 >> np.uint32(32 - r))
                x1 = x1 ^ x0
            x0 = x0 + schedule[(group + 1) % 3]
            x1 = x1 + schedule[(group + 2) % 3] + np.uint32(group + 1)
    return np.array([x0, x1], np.uint32)


@dataclass(frozen=True)
class Keys:
    """The keys of a run: ``warmup``, ``init``, one for each block of draws, and ``labels``.

    They are those of ``k = jax.random.key(seed)``: ``fold_in(k, 0)``, ``fold_in(k, 1)``,
    ``fold_in(fold_in(k, 2), i)`` and ``fold_in(k, 3)``, bit for bit. Block i's key depends on
    nothing but the seed and i, so that a resumed run continues exactly as if it had never stopped.

    Parameters
    ----------
    seed : int
        From 0 to 2**32 − 1.
    """

    seed: int

    @property
    def warmup(self) -> Any:
        return _typed(self._fold(0))

    @property
    def init(self) -> Any:
        return _typed(self._fold(1))

    def block(self, index: int) -> Any:
        return _typed(_fold_in(self._fold(2), index))

    @property
    def labels(self) -> Any:
        """For draws of discrete sites given those of the others."""
        return _typed(self._fold(3))

    def _fold(self, number: int) -> np.ndarray:
        return _fold_in(np.array([0, self.seed], np.uint32), number)


def _fold_in(key: np.ndarray, number: int) -> np.ndarray:
    return threefry(key, np.array([0, number], np.uint32))


def _typed(data: np.ndarray) -> Any:
    import jax

    words: Any = data
    return jax.random.wrap_key_data(words, impl="threefry2x32")
