"""A distribution on the nodes of a finite graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore import random
from ppcore.errors import SettingsError


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class GraphTarget:
    """π(i) ∝ exp(log_mass_i) on the nodes of a finite, connected, undirected graph.

    A state is x: float[1] that holds the number of a node.

    Parameters
    ----------
    neighbours : int[n, k]
        The neighbours of each node; rows of nodes with fewer are filled up with the node itself.
    log_mass : float[n]
        Unnormalised.

    Raises
    ------
    ppcore.errors.SettingsError
        In :func:`graph`, which builds one from a list of edges.

    >>> ring = graph([(0, 1), (1, 2), (2, 0)], np.log([1.0, 2.0, 3.0]))
    >>> ring.neighbours.tolist()
    [[1, 2], [0, 2], [0, 1]]
    """

    neighbours: Any
    log_mass: Any

    dim = 1
    has_reference = True
    has_gradient = False

    def tree_flatten(self) -> tuple[tuple[Any, Any], None]:
        return (self.neighbours, self.log_mass), None

    @classmethod
    def tree_unflatten(cls, _: None, leaves: tuple[Any, Any]) -> GraphTarget:
        return cls(*leaves)

    @property
    def states(self) -> Any:
        """Every state: float[n, 1]."""
        return jnp.arange(self.log_mass.shape[0], dtype=self.log_mass.dtype)[:, None]

    def code(self, x: Any) -> Any:
        """The number of the node that x holds."""
        return jnp.round(x[..., 0]).astype(int)

    def log_density(self, x: Any) -> Any:
        return jnp.asarray(self.log_mass)[self.code(x)]

    def log_prior(self, x: Any) -> Any:
        """Uniform over the nodes."""
        return -jnp.log(self.log_mass.shape[0] * jnp.ones((), self.log_mass.dtype))

    def log_likelihood(self, x: Any) -> Any:
        return self.log_density(x) - self.log_prior(x)

    def sample_reference(self, key: Any, n: int) -> Any:
        return self.states[random.randint(key, (n,), self.log_mass.shape[0])]

    def constrain(self, x: Any) -> dict[str, Any]:
        return {"node": self.code(x)}

    def tempered(self, beta: Any) -> GraphTarget:
        return GraphTarget(self.neighbours, beta * self.log_mass)


def graph(edges: Any, log_mass: Any) -> GraphTarget:
    """The target on an undirected graph given by its ``edges`` (pairs of nodes 0 … n − 1).

    Raises
    ------
    ppcore.errors.SettingsError
        If an edge names no node, a mass is not finite, or the graph is not connected: the walk
        would never reach a part of it.

    >>> float(graph([(0, 1)], [0.0, 1.0]).log_density(jnp.array([1.0])))
    1.0
    """
    mass = np.asarray(log_mass, float)
    near: list[set[int]] = [set() for _ in mass]
    for i, j in edges:
        for node in (i, j):
            if not 0 <= node < len(mass):
                raise SettingsError(
                    f"edge ({i}, {j}): log_mass has {len(mass)} nodes, 0 to {len(mass) - 1}."
                )
        if i != j:
            near[i].add(int(j))
            near[j].add(int(i))
    if not np.isfinite(mass).all():
        node = int(np.flatnonzero(~np.isfinite(mass))[0])
        raise SettingsError(f"log_mass[{node}]={mass[node]} must be finite: leave the node out.")
    reached, front = {0}, [0]
    while front:
        new = near[front.pop()] - reached
        reached |= new
        front += new
    if len(reached) < len(mass):
        lost = min(set(range(len(mass))) - reached)
        raise SettingsError(
            f"node {lost} cannot be reached from node 0: the graph must be connected. Add an edge, "
            "or sample its parts one by one."
        )
    width = max(map(len, near), default=0) or 1
    rows = [sorted(n) + [i] * (width - len(n)) for i, n in enumerate(near)]
    return GraphTarget(np.asarray(rows), mass)
