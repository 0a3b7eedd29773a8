"""What a Gaussian sample box says: value = location(inputs) + spread · ε with ε ~ N(0, I)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ppcore.diagram import Box, Hole
from ppcore.recording.template import Structure, from_template

# Which arguments say where the values lie, and which how far they spread.
_LOCATION = {
    "Normal": "loc",
    "MultivariateNormal": "loc",
    "LowRankMultivariateNormal": "loc",
    "GaussianRandomWalk": None,
    "Delta": "v",
}
_DENSE = ("MultivariateNormal", "LowRankMultivariateNormal")


@dataclass(frozen=True)
class Site:
    """A sample or observe box of a Gaussian family.

    Attributes
    ----------
    family : str
        NumPyro's name.
    arguments : dict of str to template
        Its arguments.
    masks : tuple of (template, int)
        Masks, with the number of event axes behind each.
    shape : tuple of int
        Of the value.
    """

    family: str
    arguments: dict[str, Any]
    masks: tuple[tuple[Any, int], ...]
    shape: tuple[int, ...]

    @property
    def location_holes(self) -> set[int]:
        """Inputs that the location reads."""
        name = _LOCATION[self.family]
        return holes(self.arguments.get(name)) if name else set()

    @property
    def other_holes(self) -> set[int]:
        """Inputs that anything else reads."""
        name = _LOCATION[self.family]
        found = (holes(t) for k, t in self.arguments.items() if k != name)
        return set().union(*found, *(holes(t) for t, _ in self.masks))

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """The shape of ε."""
        return (0,) if self.family == "Delta" else self.shape

    def location(self, values: Sequence[Any]) -> Any:
        """float[*shape]."""
        import jax.numpy as jnp

        name = _LOCATION[self.family]
        if name is None or name not in self.arguments:
            return jnp.zeros(self.shape)
        found = _array(from_template(self.arguments[name], values))
        return jnp.broadcast_to(found, self.shape)

    def spread(self, values: Sequence[Any]) -> Any:
        """Standard deviations float[*shape] of independent elements, or square roots
        float[*batch, event, event] of the covariances of events."""
        import jax.numpy as jnp

        given = {k: from_template(t, values) for k, t in self.arguments.items()}
        if self.family == "Normal":
            return jnp.broadcast_to(_array(given.get("scale", 1.0)), self.shape)
        if self.family == "Delta":
            return jnp.zeros(self.shape)
        n = self.shape[-1]
        if self.family == "GaussianRandomWalk":
            scale = _array(given.get("scale", 1.0))[..., None, None]
            root = scale * jnp.tril(jnp.ones((n, n)))
        elif self.family == "LowRankMultivariateNormal":
            w = _array(given["cov_factor"])
            root = root_of(w @ w.swapaxes(-1, -2) + _diagonal(_array(given["cov_diag"])))
        elif given.get("scale_tril") is not None:
            root = _array(given["scale_tril"])
        elif given.get("covariance_matrix") is not None:
            root = root_of(_array(given["covariance_matrix"]))
        else:
            root = root_of(_array(given["precision_matrix"]), inverse=True)
        return jnp.broadcast_to(root, (*self.shape[:-1], n, n))

    @property
    def dense(self) -> bool:
        """Whether the spread is a matrix per event."""
        return self.family in _DENSE or self.family == "GaussianRandomWalk"

    def mask(self, values: Sequence[Any]) -> Any:
        """bool[*shape]: which elements count; None if all do."""
        import jax.numpy as jnp

        found = None
        for template, behind in self.masks:
            own = jnp.asarray(from_template(template, values), bool)
            own = jnp.broadcast_to(own.reshape((*own.shape, *(1,) * behind)), self.shape)
            found = own if found is None else found & own
        return found


def apply_spread(spread: Any, noise: Any, dense: bool) -> Any:
    """spread · ε."""
    import jax.numpy as jnp

    return jnp.einsum("...ij,...j->...i", spread, noise) if dense else spread * noise


def site_of(box: Box) -> Site | None:
    """The Gaussian site of a sample or observe box, or None if it is of another family."""
    template: Any = box.spec[0]
    masks: list[tuple[Any, int]] = []
    seen = 0
    while getattr(template, "kind", "").startswith("describe:method:"):
        base, argument = template.items
        method = template.kind.rsplit(":", 1)[-1]
        if method == "to_event":
            seen += int(argument)
        elif method == "mask":
            masks.append((argument, seen))
        template = base
    family = getattr(template, "kind", "").rsplit(":", 1)[-1]
    if family not in _LOCATION:
        return None
    arguments = dict(zip(template.keys, template.items, strict=True))
    if family == "Delta" and arguments.get("log_density", 0.0) != 0.0:
        return None
    space = box.cod[0] if box.op == "sample" else box.dom[-1]
    if space.dtype not in ("float64", "float32"):
        return None
    # A mask covers the batch axes of what it is called on, so events made further in lie behind.
    own = 0 if family in ("Normal", "Delta") else 1
    placed = tuple((t, seen - outside + own) for t, outside in masks)
    return Site(family, arguments, placed, space.shape)


def holes(template: Any) -> set[int]:
    """The inputs that a template reads."""
    if isinstance(template, Hole):
        return {template.index}
    if isinstance(template, Structure):
        return set().union(*map(holes, template.items))
    return set()


def root_of(matrix: Any, inverse: bool = False) -> Any:
    """S with S Sᵀ = Σ (or Σ⁻¹) for a positive semi-definite Σ, rank and scale respected.

    The eigenvectors are those of the correlation matrix, so that variables of very different
    units do not drown each other; eigenvalues below rounding count as zero.
    """
    import jax.numpy as jnp

    d = jnp.sqrt(jnp.clip(jnp.diagonal(matrix, axis1=-2, axis2=-1), 0))
    d = jnp.where(d > 0, d, 1.0)
    values, vectors = jnp.linalg.eigh(matrix / (d[..., :, None] * d[..., None, :]))
    floor = 16 * matrix.shape[-1] * jnp.finfo(matrix.dtype).eps
    if inverse:
        return vectors / (jnp.sqrt(values)[..., None, :] * d[..., :, None])
    values = jnp.where(values > floor, values, 0.0)
    return d[..., :, None] * vectors * jnp.sqrt(values)[..., None, :]


def _diagonal(vector: Any) -> Any:
    import jax.numpy as jnp

    return vector[..., None] * jnp.eye(vector.shape[-1])


def _array(value: Any) -> Any:
    import jax.numpy as jnp

    return jnp.asarray(value, jnp.result_type(float))
