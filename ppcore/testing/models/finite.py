"""Finite models: every state can be listed, so that checks are exact."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.testing.models.base import CheckModel, generic_feature_names, generic_features


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class FiniteTarget:
    """γ_β = prior × likelihood^β on the grid {0 … n₁−1} × … × {0 … n_d−1}.

    A state is x: float[d] that holds grid coordinates. ``table_prior`` is a normalised log
    prior and ``table_likelihood`` a log likelihood, both float[n₁, …, n_d].
    """

    table_prior: Any
    table_likelihood: Any
    beta: Any = 1.0

    has_reference = True
    has_gradient = False

    def tree_flatten(self) -> tuple[tuple[Any, Any, Any], None]:
        return (self.table_prior, self.table_likelihood, self.beta), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any, Any]) -> FiniteTarget:
        return cls(*leaves)

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(self.table_prior.shape)

    @property
    def dim(self) -> int:
        return len(self.sizes)

    @property
    def site_slices(self) -> dict[str, slice]:
        """Each coordinate is a site: x0, x1, …"""
        return {f"x{i}": slice(i, i + 1) for i in range(self.dim)}

    @property
    def states(self) -> Any:
        """Every state, in row-major order; float[S, d]."""
        grid = np.stack(np.meshgrid(*map(np.arange, self.sizes), indexing="ij"), axis=-1)
        return jnp.asarray(grid.reshape(-1, self.dim), float)

    def code(self, x: Any) -> Any:
        """The number of state x in :attr:`states`."""
        strides = np.cumprod((1, *self.sizes[:0:-1]))[::-1]
        return jnp.round(x).astype(int) @ jnp.asarray(strides.copy())

    @property
    def neighbours(self) -> Any:
        """States one step away along one axis, int[S, 2d]; the state itself beyond an edge."""
        grid = np.indices(self.sizes).reshape(self.dim, -1).T
        strides = np.cumprod((1, *self.sizes[:0:-1]))[::-1]
        rows = []
        for axis, size in enumerate(self.sizes):
            for side in (-1, 1):
                near = np.clip(grid[:, axis] + side, 0, size - 1)
                rows.append((near - grid[:, axis]) * strides[axis])
        return jnp.asarray(np.arange(len(grid))[:, None] + np.stack(rows, axis=1))

    def _at(self, table: Any, x: Any) -> Any:
        return table[tuple(jnp.round(x).astype(int))]

    def log_prior(self, x: Any) -> Any:
        return self._at(self.table_prior, x)

    def log_likelihood(self, x: Any) -> Any:
        return self._at(self.table_likelihood, x)

    def log_density(self, x: Any) -> Any:
        return self.log_prior(x) + self.beta * self.log_likelihood(x)

    @property
    def log_gamma(self) -> Any:
        """log γ_β of every state, in the order of :attr:`states`; float[S]."""
        return (self.table_prior + self.beta * self.table_likelihood).ravel()

    def sample_reference(self, key: Any, n: int) -> Any:
        return self.states[random.categorical(key, self.table_prior.ravel(), (n,))]

    def constrain(self, x: Any) -> dict[str, Any]:
        return {"x": x}

    def tempered(self, beta: Any) -> FiniteTarget:
        return replace(self, beta=beta)


def finite_target(prior: Any, likelihood: Any) -> FiniteTarget:
    """From positive tables; the prior is normalised here."""
    prior = np.asarray(prior, float)
    return FiniteTarget(
        jnp.asarray(np.log(prior / prior.sum())), jnp.asarray(np.log(likelihood)), jnp.ones(())
    )


def line() -> FiniteTarget:
    """Three states in a row, all weights different."""
    return finite_target([0.5, 0.2, 0.3], [0.3, 1.7, 0.6])


def grid() -> FiniteTarget:
    """Two correlated coordinates with two and three values, bimodal."""
    return finite_target([[0.2, 0.1, 0.15], [0.25, 0.2, 0.1]], [[2.0, 0.3, 0.2], [0.4, 0.5, 1.5]])


def hidden_chain() -> FiniteTarget:
    """A two-state hidden chain of length three, given its emissions."""
    move, emit = np.array([[0.8, 0.2], [0.3, 0.7]]), np.array([[0.9, 0.3], [0.2, 0.8], [0.6, 0.5]])
    prior = 0.5 * move[:, :, None] * move[None, :, :]
    likelihood = emit[0][:, None, None] * emit[1][None, :, None] * emit[2][None, None, :]
    return finite_target(prior, likelihood)


def _simulate_joint(key: Any) -> tuple[Any, FiniteTarget]:
    """x from the prior of :func:`grid`, one coin thrown whose odds depend on x."""
    k_x, k_y = random.split(key)
    target = grid()
    x = target.sample_reference(k_x, 1)[0]
    p = jnp.asarray([[0.2, 0.7, 0.4], [0.8, 0.5, 0.3]])
    hit = random.bernoulli(k_y, p[tuple(jnp.round(x).astype(int))])
    likelihood = jnp.log(jnp.where(hit, p, 1.0 - p))
    return x, FiniteTarget(target.table_prior, likelihood, jnp.ones(()))


COIN = CheckModel(
    name="finite_coin",
    dim=2,
    simulate_joint=_simulate_joint,
    raw_features=generic_features,
    feature_names=generic_feature_names(2),
)

FINITE = {"finite_line": line, "finite_grid": grid, "finite_hidden_chain": hidden_chain}
