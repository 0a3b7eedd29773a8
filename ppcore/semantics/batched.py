"""Compiled, batched forms of the semantics; one trace per diagram and shape."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax

from ppcore.diagram import Diagram
from ppcore.semantics.log_density import pointwise
from ppcore.semantics.sample import simulate


def simulate_many(
    diagram: Diagram, inputs: tuple[Any, ...], given: dict[str, Any], key: Any, n: int
) -> dict[str, Any]:
    """``n`` forward draws; entries of ``given`` have a leading axis of length ``n``."""
    return _simulate(diagram, inputs, given, jax.random.split(key, n))  # type: ignore[no-any-return]


@partial(jax.jit, static_argnums=0)
def _simulate(diagram: Diagram, inputs: Any, given: Any, keys: Any) -> Any:
    return jax.vmap(lambda g, k: simulate(diagram, inputs, g, k))(given, keys)


@partial(jax.jit, static_argnums=0)
def pointwise_many(diagram: Diagram, inputs: Any, values: Any) -> Any:
    """Pointwise log likelihoods for a batch of latent values [N, ...]."""
    return jax.vmap(lambda v: pointwise(diagram, inputs, v))(values)
