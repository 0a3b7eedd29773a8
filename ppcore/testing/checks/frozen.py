"""Nothing adapts while sampling, and what is carried is only what the position implies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ppcore.testing.checks.base import Check
from ppcore.testing.checks.rig import block, rig, same, start, whole
from ppcore.testing.result import Finding
from ppcore.testing.session import Session

TOLERANCE = 1e-9


def run(session: Session) -> Iterator[Finding]:
    """Tuned parameters are bit-identical after a block, and the carry holds nothing else.

    A block run on from its carry must equal, to 1e-9, a block run from ``init`` at the same
    positions: otherwise the carry holds a stale cache or something that adapts. Engines that
    carry auxiliary variables by design (a persistent momentum) say so in an attribute
    ``auxiliary``, a tuple of their names; only the tuned parameters are then compared.
    """
    r = rig(session)
    name = r.model.name
    before = jax.tree.map(np.array, r.tuned)
    carry, draws, _ = whole(session)(r.k_block, r.targets[0], r.tuned, r.x)
    if not same(before, jax.tree.map(np.asarray, r.tuned)):
        yield Finding(name, False, "the tuned parameters changed during a block.")
        return
    if getattr(r.engine, "auxiliary", ()):
        yield Finding(name, True, "tuned parameters bit-identical; auxiliary variables declared")
        return
    gap = _memory(session, carry, draws)
    if gap > TOLERANCE:
        yield Finding(
            name,
            False,
            f"going on from the carry differs by {gap:.1e} from starting anew at the same "
            "position: the carry holds a stale cache or adapts. (An engine with auxiliary "
            "variables names them in `auxiliary`.)",
        )
        return
    yield Finding(name, True, "tuned parameters bit-identical; the carry is implied by x")


def _memory(session: Session, carry: Any, draws: Any) -> float:
    """Over several continuations, since a rejection may be needed to see a stale cache."""
    r = rig(session)
    target = r.targets[0]
    worst = 0.0
    for i in range(12):
        k_init, k_block = jax.random.split(jax.random.fold_in(r.k_init, i))
        anew = start(session)(k_init, target, r.tuned, draws[:, -1])
        carry, on, _ = block(session)(k_block, target, r.tuned, carry)
        _, off, _ = block(session)(k_block, target, r.tuned, anew)
        gap = jnp.max(jnp.abs(on - off) / (1.0 + jnp.abs(off)))
        worst = max(worst, float(jnp.where(jnp.isnan(gap), jnp.inf, gap)))
        draws = on
    return worst


CHECK = Check(
    name="frozen",
    law="tuned parameters and caches are bit-identical while sampling",
    applies=lambda s: s.engine is not None,
    run=run,
    manners=True,
)
