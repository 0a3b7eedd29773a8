"""The same result under jit and not, vmap and loop; one trace per shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.testing.checks.base import Check
from ppcore.testing.checks.rig import block, rig, start, whole
from ppcore.testing.result import Finding
from ppcore.testing.session import Session
from ppcore.testing.subject import Subject

TOLERANCE = 1e-9


def run(session: Session) -> Iterator[Finding]:
    """Draws agree to 1e-9 with and without ``jit`` around the block, and over a batch of targets
    by ``vmap`` and one by one."""
    r = rig(session)
    name = r.model.name
    args = (r.k_block, r.targets[0], r.tuned, r.x)
    compiled = whole(session)(*args)[1]
    gap = _gap(r.path(*args)[1], compiled)
    if gap > TOLERANCE:
        yield Finding(name, False, f"draws under jit differ from those without by {gap:.1e}.")
        return
    stacked = jax.tree.map(lambda a, b: jnp.stack([jnp.asarray(a), jnp.asarray(b)]), *r.targets)
    batched = session.jit(jax.vmap(r.path, (None, 0, None, None)))
    together = batched(r.k_block, stacked, r.tuned, r.x)[1]
    for i, target in enumerate(r.targets):
        gap = _gap(together[i], whole(session)(r.k_block, target, r.tuned, r.x)[1])
        if gap > TOLERANCE:
            yield Finding(name, False, f"draws under vmap differ from a loop by {gap:.1e}.")
            return
    yield Finding(name, True, f"jit, vmap and loop agree to {TOLERANCE:.0e}")


def run_traces(session: Session) -> Iterator[Finding]:
    """Other data of the same shape, another temperature, another key and a carry carried on
    trace nothing anew."""
    r = rig(session)
    half = r.targets[0].tempered(jnp.asarray(np.asarray(0.5, r.x.dtype)))
    init, program = start(session), block(session)
    for target in (*r.targets, half):
        carry = init(r.k_init, target, r.tuned, r.x)
        after, _, _ = program(r.k_block, target, r.tuned, carry)
    program(r.k_init, r.targets[0], r.tuned, after)
    traces = program._cache_size()
    name = r.model.name
    if traces != 1:
        yield Finding(
            name,
            False,
            f"{traces} traces for one shape: data, temperature or carry are not plain "
            "arrays of fixed dtype (weak types count).",
        )
        return
    yield Finding(name, True, "one trace for two data sets, two temperatures and a carried state")


def _gap(a: Any, b: Any) -> float:
    gap = np.abs(np.asarray(a) - np.asarray(b)) / (1.0 + np.abs(np.asarray(b)))
    return float(np.max(np.where(np.isnan(gap), np.inf, gap)))


def traceable(subject: Subject) -> bool:
    """Whether there is an engine, and not one that runs on the host."""
    return subject.engine is not None and not getattr(subject.engine, "host", False)


TRANSFORMS = Check(
    name="transforms",
    law="jit, vmap and loop agree",
    applies=traceable,
    run=run,
    manners=True,
)
TRACES = Check(
    name="one_trace",
    law="one trace per shape",
    applies=traceable,
    run=run_traces,
    manners=True,
)
