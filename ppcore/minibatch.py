"""Targets whose log density can be estimated without bias from a minibatch of a plate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from ppcore import random
from ppcore.errors import SettingsError, UnsupportedError
from ppcore.semantics.minibatch import estimate, plate_named, plates


@jax.tree_util.register_pytree_node_class
@dataclass(frozen=True)
class Minibatched:
    """A model's target with an unbiased estimate of its log density; made by :func:`minibatch`.

    Attributes
    ----------
    whole : ModelTarget
        The target itself; everything but :meth:`estimate` is its own.
    plate : str
        Elements of this plate are drawn; static.
    size : int
        How many, n; static.
    """

    whole: Any
    plate: str
    size: int

    def tree_flatten(self) -> tuple[tuple[Any], tuple[str, int]]:
        return (self.whole,), (self.plate, self.size)

    @classmethod
    def tree_unflatten(cls, static: tuple[str, int], leaves: tuple[Any]) -> Minibatched:
        return cls(leaves[0], *static)

    @property
    def dim(self) -> int:
        """d, the number of unconstrained coordinates."""
        return int(self.whole.dim)

    @property
    def has_reference(self) -> bool:
        """Whether the prior can be drawn from."""
        return bool(self.whole.has_reference)

    @property
    def elements(self) -> int:
        """N, the size of the plate."""
        return plate_named(self.whole.diagram, self.plate).size

    def indices(self, key: Any) -> Any:
        """n elements of the plate, each uniform: int[n].

        Without replacement where n is a quarter of them or more; below, with replacement, which
        is nearly the same and spares a shuffle of the whole plate.
        """
        if self.elements <= 4 * self.size:
            return random.permutation(key, self.elements)[: self.size]
        cells = jnp.arange(1, self.elements) / self.elements
        u = random.uniform(key, (self.size,), cells=cells)
        return jnp.floor(u * self.elements).astype(int)

    def estimate(self, key: Any, x: Any) -> Any:
        """An unbiased estimate of ``log_density(x)`` from n elements: float[d] -> float[]."""
        return self.estimate_at(self.indices(key), x)

    def estimate_at(self, index: Any, x: Any) -> Any:
        """a(x) + (N/n) Σ_{i ∈ index} ℓ_i(x), the likelihood to the power β; index: int[n]."""
        where = plate_named(self.whole.diagram, self.plate)
        parts = estimate(self.whole.diagram, self.whole.inputs, where, index, x)
        return parts[0] + self.whole.beta * parts[1]

    def log_density(self, x: Any) -> Any:
        """log γ(x), from all elements."""
        return self.whole.log_density(x)

    def log_prior(self, x: Any) -> Any:
        """The prior's part, from all elements."""
        return self.whole.log_prior(x)

    def log_likelihood(self, x: Any) -> Any:
        """The likelihood's part, from all elements."""
        return self.whole.log_likelihood(x)

    def sample_reference(self, key: Any, n: int) -> Any:
        """``n`` prior draws; float[n, d]."""
        return self.whole.sample_reference(key, n)

    def constrain(self, x: Any) -> dict[str, Any]:
        """float[d] -> {site: array}."""
        return dict(self.whole.constrain(x))

    def tempered(self, beta: Any) -> Minibatched:
        """The same with the likelihood to the power ``beta``."""
        return replace(self, whole=self.whole.tempered(beta))


def minibatch(target: Any, plate: str | None, size: int) -> Minibatched:
    """``target`` with an unbiased estimate of its log density from ``size`` elements of ``plate``.

    Parameters
    ----------
    target : ModelTarget
        Of a declared model; its ``joint`` diagram says what the plate holds.
    plate : str or None
        None is the largest plate that holds evidence.
    size : int
        n, between 1 and the plate's size.

    Raises
    ------
    UnsupportedError
        If the target is no model's, finite latent sites are summed out, or there is no such plate.
    SettingsError
        If ``size`` is out of range.

    >>> import numpy as np, ppcore as pp
    >>> from ppcore import dist
    >>> @pp.model
    ... def mean(n):
    ...     mu = pp.sample("mu", dist.Normal(0, 1))
    ...     with pp.plate("item", n):
    ...         pp.sample("y", dist.Normal(mu, 1))
    >>> target = mean(4).observe(y=np.arange(4.0)).target()
    >>> batched = minibatch(target, "item", 2)
    >>> x = np.zeros(1, "float32")
    >>> halves = [batched.estimate_at(np.array(i), x) for i in ([0, 1], [2, 3])]
    >>> bool(abs(sum(halves) / 2 - target.log_density(x)) < 1e-5)
    True
    """
    if not hasattr(target, "joint") or not hasattr(target, "observed"):
        raise UnsupportedError(
            f"A minibatch is drawn from a plate of a declared model, and {type(target).__name__} "
            "has no diagram. Declare the model with plates, or use an engine with full gradients."
        )
    if target.labels:
        raise UnsupportedError(
            f"The discrete sites {', '.join(target.labels)} are summed out, so the log density is "
            "no sum over a plate. Use an engine with full gradients."
        )
    if plate is None:
        plate = largest_plate(target)
        if plate is None:
            raise UnsupportedError("The model has no plate with evidence to take minibatches of.")
    elements = plate_named(target.diagram, plate).size
    if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= elements:
        raise SettingsError(
            f"size={size!r} must be an integer from 1 to {elements}, the size of plate {plate!r}."
        )
    return Minibatched(target, plate, size)


def largest_plate(target: Any) -> str | None:
    """The largest plate that holds evidence, or None."""
    if not hasattr(target, "joint") or target.labels:
        return None
    held = {name: p.size for name, (p, data) in plates(target.diagram).items() if data}
    return max(held, key=lambda name: held[name]) if held else None
