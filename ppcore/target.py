"""An unnormalised density on R^d, as engines see it: a pytree with no closures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from ppcore.errors import UnsupportedError
from ppcore.torch_view import SeenByTorch


@runtime_checkable
class Target(Protocol):
    """An unnormalised density γ on R^d (after supports are unconstrained).

    Every implementation is a JAX pytree: data and the inverse temperature ``beta`` are leaves,
    so that new data of the same shape, or another temperature, retraces nothing. What is static
    (the diagram, the layout) hashes and compares by structure.

    Attributes
    ----------
    dim : int
        d, the number of unconstrained coordinates.
    """

    @property
    def dim(self) -> int: ...

    @property
    def has_reference(self) -> bool:
        """Whether :meth:`sample_reference` can draw (the prior is proper)."""
        ...

    def log_density(self, x: Any) -> Any:
        """log γ_β(x) = log_prior(x) + β · log_likelihood(x); x: float[d] -> float[]."""
        ...

    def log_prior(self, x: Any) -> Any:
        """The prior's log density at x (Jacobian included); float[d] -> float[]."""
        ...

    def log_likelihood(self, x: Any) -> Any:
        """log γ_1 − log_prior; float[d] -> float[]."""
        ...

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` draws from the prior in unconstrained coordinates; float[n, d]."""
        ...

    def constrain(self, x: Any) -> dict[str, Any]:
        """float[d] -> {site: array} in the model's own coordinates."""
        ...

    def tempered(self, beta: Any) -> Target:
        """The target γ_β = prior × likelihood^β."""
        ...


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class DensityTarget(SeenByTorch):
    """A target from a plain JAX log density ``log_density_fn(x, data) -> float[]``.

    Parameters
    ----------
    log_density_fn : callable
        A module-level pure function (it is static: hashed by identity); x is float[d].
    dim : int
        d.
    data : pytree
        Arrays the density needs; leaves of the target.
    log_reference_fn, sample_reference_fn : callable, optional
        ``(x, data) -> float[]`` normalised and ``(key, data) -> float[d]``: a normalised
        distribution to anneal from. With them, log_likelihood = log_density − log_reference.
    beta : float
        Inverse temperature of the likelihood.

    >>> import jax.numpy as jnp
    >>> def normal(x, data): return -0.5 * jnp.sum(x**2)
    >>> float(DensityTarget(normal, 2).log_density(jnp.array([1.0, 1.0])))
    -1.0
    """

    log_density_fn: Callable[[Any, Any], Any]
    dim: int
    data: Any = ()
    log_reference_fn: Callable[[Any, Any], Any] | None = None
    sample_reference_fn: Callable[[Any, Any], Any] | None = None
    beta: Any = 1.0

    def tree_flatten(self) -> tuple[tuple[Any, Any], tuple[Any, ...]]:
        static = (self.log_density_fn, self.dim, self.log_reference_fn, self.sample_reference_fn)
        return (self.data, self.beta), static

    @classmethod
    def tree_unflatten(cls, static: tuple[Any, ...], leaves: tuple[Any, Any]) -> DensityTarget:
        fn, dim, log_ref, sample_ref = static
        return cls(fn, dim, leaves[0], log_ref, sample_ref, leaves[1])

    @property
    def has_reference(self) -> bool:
        return self.log_reference_fn is not None and self.sample_reference_fn is not None

    def log_prior(self, x: Any) -> Any:
        if self.log_reference_fn is None:
            return jnp.zeros((), x.dtype)
        return self.log_reference_fn(x, self.data)

    def log_likelihood(self, x: Any) -> Any:
        return self.log_density_fn(x, self.data) - self.log_prior(x)

    def log_density(self, x: Any) -> Any:
        if self.log_reference_fn is None:
            return self.beta * self.log_density_fn(x, self.data)
        return self.log_prior(x) + self.beta * self.log_likelihood(x)

    def sample_reference(self, key: Any, n: int) -> Any:
        if self.sample_reference_fn is None:
            raise UnsupportedError(
                "This target has no reference distribution to draw from. Give "
                "`log_reference_fn` and `sample_reference_fn`, or use an engine that needs none."
            )
        keys = jax.random.split(key, n)
        return jax.vmap(self.sample_reference_fn, (0, None))(keys, self.data)

    def constrain(self, x: Any) -> dict[str, Any]:
        return {"x": x}

    def tempered(self, beta: Any) -> DensityTarget:
        return replace(self, beta=beta)


def value_and_gradient(target: Any, x: Any) -> tuple[Any, Any]:
    """log γ and ∇ log γ at each row of ``x``: float[chains, d]."""
    return jax.vmap(jax.value_and_grad(lambda t, v: t.log_density(v), 1), (None, 0))(target, x)
