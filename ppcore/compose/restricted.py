"""A target as a function of some of its coordinates, the others held where they are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from ppcore.errors import UnsupportedError


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Restricted:
    """γ(u, x_rest) as an unnormalised density of u = x[where]: the conditional of those sites.

    Parameters
    ----------
    whole : Target
    x : float[d]
        Where the other coordinates are.
    names : tuple of str
        The sites whose coordinates are free; static.
    where : tuple of int
        Those coordinates; static.
    """

    whole: Any
    x: Any
    names: tuple[str, ...]
    where: tuple[int, ...]

    has_reference = False

    def tree_flatten(self) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
        return (self.whole, self.x), (self.names, self.where)

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], leaves: tuple[Any, Any]) -> Restricted:
        return cls(*leaves, *static)

    @property
    def dim(self) -> int:
        return len(self.where)

    @property
    def beta(self) -> Any:
        return self.whole.beta

    @property
    def has_gradient(self) -> bool:
        """Whether γ can be differentiated with respect to u."""
        return _smooth(self.whole, self.where)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many values each free coordinate of a finite target has."""
        return tuple(self.whole.sizes[i] for i in self.where)

    @property
    def site_slices(self) -> dict[str, slice]:
        """Where the free sites lie in u."""
        found, start = {}, 0
        for name in self.names:
            at = self.whole.site_slices[name]
            found[name] = slice(start, start + at.stop - at.start)
            start += at.stop - at.start
        return found

    def at(self, u: Any) -> Any:
        """x with the free coordinates set to ``u``: float[d]."""
        return self.x.at[np.array(self.where)].set(u)

    def log_density(self, u: Any) -> Any:
        return self.whole.log_density(self.at(u))

    def log_prior(self, u: Any) -> Any:
        return self.whole.log_prior(self.at(u))

    def log_likelihood(self, u: Any) -> Any:
        return self.whole.log_likelihood(self.at(u))

    def sample_reference(self, key: Any, n: int) -> Any:
        """Raises :class:`UnsupportedError`: a conditional cannot be drawn from in general."""
        raise UnsupportedError("Some sites given the others have no reference to draw from.")

    def constrain(self, u: Any) -> dict[str, Any]:
        return self.whole.constrain(self.at(u))

    def tempered(self, beta: Any) -> Restricted:
        return replace(self, whole=self.whole.tempered(beta))


def _smooth(target: Any, where: tuple[int, ...]) -> bool:
    """Whether a target can be differentiated in some coordinates."""
    finite = getattr(target, "finite_coordinates", None)
    if finite is None:
        return bool(getattr(target, "has_gradient", True))
    return not set(finite) & set(where)


def restrict(preconditioner: Any, where: tuple[int, ...]) -> Any:
    """The preconditioner of coordinates ``where`` given the others, of the same kind.

    From a dense one, F_b with F_b F_bᵀ = ((Σ⁻¹)_bb)⁻¹, the covariance of a Gaussian's block given
    the rest; from a low-rank one the standard deviations of the block alone, as a diagonal.
    """
    from ppcore.tuning.preconditioner import Dense, LowRank

    at = np.array(where)
    if preconditioner is None:
        return None
    if isinstance(preconditioner, LowRank):
        spread = 1 + (np.asarray(preconditioner.basis)[at] ** 2) @ (
            np.asarray(preconditioner.stretch) ** 2 - 1
        )
        scale = np.asarray(preconditioner.scale)[at]
        dtype, rank = scale.dtype, preconditioner.basis.shape[1]
        made = scale * np.sqrt(np.maximum(spread, 1e-12))
        return LowRank(made.astype(dtype), np.zeros((len(at), rank), dtype), np.ones(rank, dtype))
    assert isinstance(preconditioner, Dense)
    factor = np.asarray(preconditioner.factor, float)
    covariance = factor @ factor.T
    scale = np.sqrt(np.diag(covariance))
    inverse = np.linalg.inv(covariance / np.outer(scale, scale) + 1e-9 * np.eye(len(scale)))
    inner = np.linalg.inv(inverse[np.ix_(at, at)])
    made = scale[at][:, None] * np.linalg.cholesky(0.5 * (inner + inner.T))
    return Dense(made.astype(preconditioner.factor.dtype))
