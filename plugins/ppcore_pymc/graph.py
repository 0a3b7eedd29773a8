"""A PyMC model's graphs as JAX functions of its data and of one vector."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.errors import UnsupportedError
from ppcore.torch_view import SeenByTorch


@dataclass(frozen=True)
class Place:
    """A latent variable: PyMC's name for it, and where its unconstrained value lies in x."""

    name: str
    at: slice
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Graph:
    """JAX functions ``(*unconstrained values, *data) -> list of arrays``; hashed by identity.

    Attributes
    ----------
    densities : callable
        [log prior with Jacobians, log likelihood with potentials].
    values : callable
        The variables ``named``, in PyMC's own coordinates.
    places : tuple of Place
        In the order of x.
    named : tuple of str
        Latent and deterministic variables.
    """

    densities: Callable[..., Any]
    values: Callable[..., Any]
    places: tuple[Place, ...]
    named: tuple[str, ...]

    def split(self, x: Any) -> list[Any]:
        """x: float[d] as one array for each latent variable."""
        return [x[p.at].reshape(p.shape) for p in self.places]


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class PyMCTarget(SeenByTorch):
    """γ_β = prior · likelihood^β of a PyMC model.

    Attributes
    ----------
    graph : Graph
        Static.
    data : tuple of arrays
        Observed values and ``pm.Data``; leaves.
    beta : float
        Inverse temperature; a leaf.
    """

    graph: Graph
    data: tuple[Any, ...]
    beta: Any = 1.0
    has_reference = False

    def tree_flatten(self) -> tuple[tuple[Any, Any], Graph]:
        return (self.data, self.beta), self.graph

    @classmethod
    def tree_unflatten(cls, graph: Graph, leaves: tuple[Any, Any]) -> PyMCTarget:
        return cls(graph, leaves[0], leaves[1])

    @property
    def dim(self) -> int:
        """d, the number of unconstrained coordinates."""
        return self.graph.places[-1].at.stop

    @property
    def site_slices(self) -> dict[str, slice]:
        """Where each latent variable lies in x."""
        return {p.name: p.at for p in self.graph.places}

    def _densities(self, x: Any) -> Any:
        found = self.graph.densities(*self.graph.split(x), *self.data)
        # What does not depend on x comes as NumPy's numbers.
        return [jnp.asarray(v, x.dtype).sum() for v in found]

    def log_density(self, x: Any) -> Any:
        """log prior + β log likelihood, Jacobians included; float[d] -> float[]."""
        prior, likelihood = self._densities(x)
        return prior + self.beta * likelihood

    def log_prior(self, x: Any) -> Any:
        """The latent variables' log density; float[d] -> float[]."""
        return self._densities(x)[0]

    def log_likelihood(self, x: Any) -> Any:
        """Log density of the observed variables, and the potentials; float[d] -> float[]."""
        return self._densities(x)[1]

    def constrain(self, x: Any) -> dict[str, Any]:
        """float[d] -> {variable: array}: latent and deterministic ones."""
        found = self.graph.values(*self.graph.split(x), *self.data)
        return {n: jnp.asarray(v) for n, v in zip(self.graph.named, found, strict=True)}

    def sample_reference(self, key: Any, n: int) -> Any:
        """Raises :class:`ppcore.errors.UnsupportedError`: only PyMC can draw from this prior."""
        raise UnsupportedError(
            "A PyMC model comes as a density, and its prior cannot be drawn from here. Use an "
            "engine that needs no reference (`ppcore engines` shows what each needs), or draw by "
            "pymc.sample_prior_predictive."
        )

    def tempered(self, beta: Any) -> PyMCTarget:
        """The same target with the likelihood to the power ``beta``."""
        return replace(self, beta=beta)


def places(names: list[str], shapes: list[tuple[int, ...]]) -> tuple[Place, ...]:
    """One after another in x."""
    made, end = [], 0
    for name, shape in zip(names, shapes, strict=True):
        size = int(np.prod(shape, dtype=int))
        made.append(Place(name, slice(end, end + size), tuple(shape)))
        end += size
    return tuple(made)
