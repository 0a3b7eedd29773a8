"""No random key is used twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import jax
from jax.errors import KeyReuseError

from ppcore.testing.checks.base import Check
from ppcore.testing.checks.rig import rig
from ppcore.testing.checks.transforms import traceable
from ppcore.testing.result import Finding
from ppcore.testing.session import Session


def _know_transposes() -> None:
    """JAX's checker has no rule for a transposed array of keys, which ``vmap`` of a ``scan``
    makes, and takes the result for used. A transpose uses its argument up and hands it on."""
    with suppress(ImportError, AttributeError):
        from jax.experimental.key_reuse import _core as checker

        rule = checker.KeyReuseSignature(checker.Sink(0), checker.Source(0))
        checker.key_reuse_signatures.setdefault(jax.lax.transpose_p, rule)


def run(session: Session) -> Iterator[Finding]:
    """JAX's key-reuse checker on the traced block, with typed keys; nothing is compiled."""
    r = rig(session)
    _know_transposes()
    try:
        with jax.debug_key_reuse(True):
            path = jax.jit(lambda *a: r.path(*a)[1])
            jax.eval_shape(path, r.k_block, r.targets[0], r.tuned, r.x)
    except KeyReuseError as error:
        first = str(error).strip().splitlines()[0]
        yield Finding(r.model.name, False, f"a key is used twice: {first}")
        return
    yield Finding(r.model.name, True, "every key is used once")


CHECK = Check(
    name="key_reuse",
    law="no key is used twice",
    applies=traceable,
    run=run,
    manners=True,
)
