"""What a block returns has the shapes and dtypes of the protocol, and is finite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from ppcore.testing.checks.base import Check
from ppcore.testing.checks.rig import N, rig, whole
from ppcore.testing.result import Finding
from ppcore.testing.session import Session


def run(session: Session) -> Iterator[Finding]:
    """draws: [chains, n, d] of x's dtype, finite; every stat [chains, n]; a carry that can be
    carried on (same structure, shapes and dtypes as ``init`` made)."""
    r = rig(session)
    wrong = _problem(r, *whole(session)(r.k_block, r.targets[0], r.tuned, r.x))
    yield Finding(r.model.name, wrong is None, wrong or "shapes, dtypes and values as promised")


def _problem(r: Any, carry: Any, draws: Any, stats: Any) -> str | None:
    import jax

    want = (len(r.x), N, r.model.dim)
    if jnp.shape(draws) != want:
        return f"draws have shape {jnp.shape(draws)}, expected [chains, n, d] = {want}."
    if draws.dtype != r.x.dtype:
        return f"draws are {draws.dtype}, but x is {r.x.dtype}: keep the dtype of x."
    if not np.all(np.isfinite(draws)):
        return f"{int(np.sum(~np.isfinite(draws)))} of {draws.size} draws are NaN or infinite."
    if not isinstance(stats, dict):
        return f"stats is a {type(stats).__name__}, expected a dict of arrays."
    for name, value in stats.items():
        if jnp.shape(value)[:2] != want[:2]:
            return f"stat {name!r} has shape {jnp.shape(value)}, expected [chains, n] = {want[:2]}."
    args = (r.k_init, r.targets[0], r.tuned, r.x)
    host = getattr(r.engine, "host", False)
    first = r.engine.init(*args) if host else jax.eval_shape(r.engine.init, *args)
    shape = jax.tree.map(
        lambda a: (jnp.shape(a), jnp.asarray(a).dtype if not hasattr(a, "dtype") else a.dtype),
        first,
    )
    after = jax.tree.map(lambda a: (jnp.shape(a), a.dtype), carry)
    if shape != after:
        return "the carry that block returns differs in structure, shape or dtype from init's."
    return None


CHECK = Check(
    name="outputs",
    law="draws, stats and carry are what the protocol says",
    applies=lambda s: s.engine is not None,
    run=run,
    manners=True,
)
