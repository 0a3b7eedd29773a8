"""From coordinates of a rewritten target to the sites of the model, one program for all draws."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ppcore.planner.rewriting import Prepared


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True, eq=False)
class Recovered:
    """What ``Constrain`` needs of a target, for draws of a rewritten one.

    A recovery that draws what was integrated out, and says how many standard normals it needs
    (``noise_size``) and what it makes of them (``given``), is fed from the host: each row of draws
    then carries its numbers behind its coordinates, and the program needs no generator, which
    would take longer to compile than all the rest.

    Parameters
    ----------
    origin : ModelTarget
        As the model was written.
    recoveries : tuple of Recovery
        In the order in which the rewrites were applied.
    dim : int
        Coordinates of the rewritten target.
    sizes : tuple of (int or None)
        Normals for each of ``recoveries``; None for one that draws with a key.
    """

    origin: Any
    recoveries: tuple[Any, ...]
    dim: int
    sizes: tuple[int | None, ...]

    def tree_flatten(self) -> tuple[Any, Any]:
        return (self.origin, self.recoveries), (self.dim, self.sizes)

    @classmethod
    def tree_unflatten(cls, static: Any, leaves: Any) -> Recovered:
        return cls(*leaves, *static)

    @classmethod
    def of(cls, prepared: Prepared) -> Recovered:
        """For all rewrites of ``prepared``; found once, since counting the noise traces them."""
        if prepared not in _made:
            _made[prepared] = cls._of(prepared)
        return _made[prepared]

    @classmethod
    def _of(cls, prepared: Prepared) -> Recovered:
        recoveries = prepared.rewriting.recoveries
        sizes = []
        x: Any = jax.ShapeDtypeStruct((prepared.target.dim,), np.dtype(float))
        for back in reversed(recoveries):
            size, x = _noise(back, x)
            sizes.append(size)
        return cls(prepared.origin, recoveries, prepared.target.dim, tuple(reversed(sizes)))

    @property
    def width(self) -> int:
        """Numbers in a row: coordinates, then noise."""
        return self.dim + sum(s or 0 for s in self.sizes)

    @property
    def labels(self) -> tuple[str, ...]:
        """Not empty if a key is needed."""
        return tuple(getattr(self.origin, "labels", ())) or ("",) * (None in self.sizes)

    def rows(
        self, x: np.ndarray, rng: np.random.Generator, samplers: Sequence[Any] = ()
    ) -> np.ndarray:
        """float[chains, draws, d′] -> float[chains, draws, width].

        ``samplers`` make the noise of each recovery, standard normals where they are None.
        """
        made = [x]
        makers = tuple(samplers) or (None,) * len(self.sizes)
        for make, size in zip(reversed(makers), reversed(self.sizes), strict=True):
            if size:
                shape = (*x.shape[:-1], size)
                made.append(rng.standard_normal(shape) if make is None else make(rng, *shape[:2]))
        return np.concatenate(made, axis=-1).astype(x.dtype)

    def _back(self, key: Any, row: Any) -> Any:
        x, rest = row[: self.dim], row[self.dim :]
        pairs = list(zip(self.recoveries, self.sizes, strict=True))
        for i, (back, size) in enumerate(reversed(pairs)):
            if size is None:
                x = back(jax.random.fold_in(key, i), x)
            elif not hasattr(back, "noise_size"):
                x = back(None, x)
            else:
                x, rest = back.given(x, rest[:size]), rest[size:]
        return x

    def whole(self, row: Any) -> Any:
        """float[width] -> float[d], the coordinates of the model as it was written."""
        return self._back(None, row)

    def constrain(self, row: Any) -> dict[str, Any]:
        """float[width] -> {site: array} of the model as it was written."""
        return self.origin.constrain(self._back(None, row))  # type: ignore[no-any-return]

    def complete(self, key: Any, row: Any) -> dict[str, Any]:
        """The same where a recovery, or a discrete site, is drawn with a key."""
        back, labels = jax.random.split(key)
        return self.origin.complete(labels, self._back(back, row))  # type: ignore[no-any-return]


_made: weakref.WeakKeyDictionary[Prepared, Recovered] = weakref.WeakKeyDictionary()


def _noise(back: Any, x: Any) -> tuple[int | None, Any]:
    """How many normals a recovery takes, None if it draws with a key; and what it returns for x."""
    if hasattr(back, "noise_size"):
        size = int(back.noise_size)
        return size, jax.eval_shape(back.given, x, jax.ShapeDtypeStruct((size,), x.dtype))
    try:
        return 0, jax.eval_shape(lambda v: back(None, v), x)
    except Exception:
        # It asks the key for something, so it needs one.
        return None, jax.eval_shape(lambda v: back(jax.random.key(0), v), x)
