"""All randomness comes from the key."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from ppcore.testing.checks.base import Check
from ppcore.testing.checks.rig import Rig, rig, same, whole
from ppcore.testing.result import Finding
from ppcore.testing.session import Session


def run(session: Session) -> Iterator[Finding]:
    """One key twice gives the same draws bit for bit, tracing twice gives the same program, and
    another key gives other draws (unless nothing moves at all)."""
    r = rig(session)
    name = r.model.name
    args = (r.targets[0], r.tuned, r.x)
    first, again = whole(session)(r.k_block, *args), whole(session)(r.k_block, *args)
    if not same(first, again):
        yield Finding(name, False, "the same key gave different draws.")
        return
    if not session.host and _program(r, args) != _program(r, args):
        yield Finding(
            name,
            False,
            "tracing twice gave two different programs: something random or stateful is read "
            "while tracing (draw from the key instead).",
        )
        return
    moved = whole(session)(r.k_init, *args)
    still = bool(np.all(np.asarray(first[1]) == np.asarray(r.x)[:, None]))
    if same(first[1], moved[1]) and not still:
        yield Finding(name, False, "another key gave the same draws: the key is ignored.")
        return
    yield Finding(name, True, "draws are a function of the key")


def _program(r: Rig, args: tuple[Any, ...]) -> str:
    """What a fresh trace of the path compiles to."""
    return str(jax.jit(lambda *a: r.path(*a)).lower(r.k_block, *args).as_text())


CHECK = Check(
    name="seed",
    law="draws are a function of the key",
    applies=lambda s: s.engine is not None,
    run=run,
    manners=True,
)
