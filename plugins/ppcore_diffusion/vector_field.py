"""A time-dependent vector field on R^d with a Lipschitz constant that is known, not estimated.

    v(x, t) = W_3 tanh(W_2 tanh(W_1 x + B_1 τ(t)) + B_2 τ(t)) + B_3 τ(t)

Time enters through the biases alone and |tanh′| ≤ 1, so that for every t

    |v(x, t) − v(y, t)| ≤ ‖W_1‖ ‖W_2‖ ‖W_3‖ |x − y|        (spectral norms),

which is what makes the steps of :mod:`ppcore_diffusion.discrete_flow` bijections. Far from the
origin tanh is flat and v is bounded: what flows along v keeps the tails of where it began.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.settings import check_count

WAVES = 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class VectorField:
    """v(x, t) as above, ``v(x, t)``: float[d], float[] -> float[d].

    Attributes
    ----------
    weights : tuple of float[width, d], float[width, width], float[d, width]
        W_1, W_2, W_3.
    clocks : tuple of float[width, m], float[width, m], float[d, m]
        B_1, B_2, B_3.
    """

    weights: tuple[Any, Any, Any]
    clocks: tuple[Any, Any, Any]

    @property
    def dim(self) -> int:
        return int(self.weights[0].shape[1])

    def __call__(self, x: Any, t: Any) -> Any:
        now = clock(t, x.dtype)
        first, second, last = (b @ now for b in self.clocks)
        inner = jnp.tanh(self.weights[0] @ x + first)
        return self.weights[2] @ jnp.tanh(self.weights[1] @ inner + second) + last

    @property
    def lipschitz(self) -> Any:
        """‖W_1‖ ‖W_2‖ ‖W_3‖, a bound for all x and t; float[]."""
        norms = [jnp.linalg.norm(w, 2) for w in self.weights]
        return norms[0] * norms[1] * norms[2]

    def capped(self, most: Any) -> VectorField:
        """The field with its weights shrunk, all three alike, until ``lipschitz`` ≤ ``most``."""
        bound = jnp.maximum(self.lipschitz, jnp.finfo(self.weights[0].dtype).tiny)
        shrink = jnp.minimum(1.0, most / bound) ** (1.0 / 3.0)
        return replace(self, weights=tuple(shrink * w for w in self.weights))


def clock(t: Any, dtype: Any) -> Any:
    """τ(t) = (1, t, cos πkt, sin πkt, k = 1 … 3); float[] -> float[8]."""
    t = jnp.asarray(t, dtype)
    angles = jnp.pi * jnp.arange(1, WAVES + 1, dtype=dtype) * t
    return jnp.concatenate([jnp.stack([jnp.ones_like(t), t]), jnp.cos(angles), jnp.sin(angles)])


def vector_field(rng: np.random.Generator, dim: int, width: int, dtype: Any) -> VectorField:
    """A field with random first layers and W_3 = B_3 = 0: v = 0, whose flow is the identity.

    Parameters
    ----------
    rng : numpy.random.Generator
    dim, width : int
        d, and the neurons of each of the two hidden layers.
    dtype : dtype

    Raises
    ------
    ppcore.errors.SettingsError
        If a size is not a positive integer.

    >>> v = vector_field(np.random.default_rng(0), 2, 8, np.float32)
    >>> float(v.lipschitz), v(np.ones(2, np.float32), 0.5).tolist()
    (0.0, [0.0, 0.0])
    """
    check_count("dim", dim, 1)
    check_count("width", width, 1)
    size = 2 + 2 * WAVES

    def drawn(*shape: int) -> Any:
        return jnp.asarray(rng.standard_normal(shape) / np.sqrt(shape[1]), dtype)

    weights = (drawn(width, dim), drawn(width, width), jnp.zeros((dim, width), dtype))
    clocks = (drawn(width, size), drawn(width, size), jnp.zeros((dim, size), dtype))
    return VectorField(weights, clocks)
