"""Random numbers for a chunk of transitions, from programs that no model is part of.

XLA spends half a second on a threefry generator in double precision, more than on most models'
gradients. Kept apart, with sizes rounded up, the program is the same for all models and comes
from JAX's disk cache. Flat arrays compile several times faster than shaped ones, and with
threefry a longer array starts with the shorter one, so that rounding changes no number.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

SMALLEST = 4096


def rounded(size: int) -> int:
    """The next power of two, at least ``SMALLEST``.

    >>> rounded(10), rounded(5000)
    (4096, 8192)
    """
    return max(SMALLEST, 1 << (size - 1).bit_length())


@partial(jax.jit, static_argnames=("normals", "uniforms", "dtype"))
def flat_noise(key: Any, index: Any, normals: int, uniforms: int, dtype: Any) -> tuple[Any, Any]:
    """``normals`` N(0, 1) and ``uniforms`` U(0, 1) numbers of stream ``index`` of ``key``."""
    for_normals, for_uniforms = jax.random.split(jax.random.fold_in(key, index))
    z = jax.random.normal(for_normals, (normals,), dtype)
    return z, jax.random.uniform(for_uniforms, (uniforms,), dtype)


def spawned(key: Any, count: int) -> list[Any]:
    """``count`` keys of the kind of ``key``, hashed from it on the host: nothing is compiled.

    >>> first, second = spawned(jax.random.key(0), 2)
    >>> bool(first == second)
    False
    """
    words = np.asarray(jax.random.key_data(key))
    children = np.random.SeedSequence([int(word) for word in words.ravel()]).spawn(count)
    states: list[Any] = [
        child.generate_state(words.size).reshape(words.shape) for child in children
    ]
    impl = str(jax.random.key_impl(key))
    return [jax.random.wrap_key_data(state, impl=impl) for state in states]


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is a JAX tracer: the caller is then inside ``jit`` or ``vmap``."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def noise(key: Any, index: Any, normals: int, uniforms: int, dtype: Any) -> tuple[Any, Any]:
    """At least ``normals`` and ``uniforms`` numbers; exactly as many while being traced."""
    dtype = jnp.dtype(dtype).name
    if is_traced(key, index):
        return flat_noise(key, index, normals, uniforms, dtype)
    return flat_noise(key, index, rounded(normals), rounded(uniforms), dtype)
