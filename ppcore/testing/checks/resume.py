"""A run that is interrupted, saved and resumed equals one that is not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.testing.checks.base import Check
from ppcore.testing.checks.rig import SHORT, block, rig, same, start
from ppcore.testing.result import Finding
from ppcore.testing.session import Session


def run(session: Session) -> Iterator[Finding]:
    """Two blocks in a row against: one block, carry and tuned to host arrays and back, a fresh
    copy of the engine, one block. Draws and carries must agree bit for bit."""
    r = rig(session)
    target = r.targets[0]

    twin = copy.deepcopy(r.engine)
    on = block(session)
    again = session.jit(lambda *a: twin.block(*a, SHORT))
    carry = start(session)(r.k_init, target, r.tuned, r.x)
    middle, _, _ = on(r.k_block, target, r.tuned, carry)
    whole = on(r.k_init, target, r.tuned, middle)
    saved = jax.tree.map(_round_trip, (r.tuned, middle))
    resumed = again(r.k_init, target, *saved)
    ok = same(whole, resumed)
    yield Finding(
        r.model.name,
        ok,
        "resumed equals uninterrupted"
        if ok
        else "a resumed run differs from an uninterrupted one: the engine keeps state outside its "
        "carry.",
    )


def _round_trip(leaf: Any) -> Any:
    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        data = np.array(jax.random.key_data(leaf))
        return jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(leaf))
    return jnp.asarray(np.array(leaf))


CHECK = Check(
    name="resume",
    law="resume equals uninterrupted",
    applies=lambda s: s.engine is not None,
    run=run,
    manners=True,
)
