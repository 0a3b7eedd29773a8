"""A small fixture for the checks of good behaviour: one model, two chains, a few transitions.

An engine that needs more chains than two says so in an attribute ``least_chains``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from ppcore.testing.models import COIN, CONJUGATE, CheckModel, simulate
from ppcore.testing.session import Session, take

CHAINS = 2
N = 5
SHORT = 3


@dataclass(frozen=True)
class Rig:
    """An engine, two targets of one shape, tuned parameters, starts and keys."""

    engine: Any
    model: CheckModel
    targets: tuple[Any, Any]
    tuned: Any
    x: Any
    k_init: Any
    k_block: Any

    def path(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        """``(carry, draws, stats)`` after ``N`` transitions; pure."""
        k_init, k_block = jax.random.split(key)
        carry = self.engine.init(k_init, target, tuned, x)
        return self.engine.block(k_block, target, tuned, carry, N)


def rig(session: Session) -> Rig:
    """The fixture, on the conjugate normal model, or a finite one for an engine that says
    ``finite``; built once per session."""
    found = session.shelf.get("rig")
    if found is None:
        model = COIN if getattr(session.subject.engine, "finite", False) else CONJUGATE
        chains = getattr(session.subject.engine, "least_chains", CHAINS)
        x, batch = simulate(model, jax.random.split(session.key("rig", model.name), chains))
        found = Rig(
            session.subject.engine,
            model,
            (take(batch, model, 0), take(batch, model, 1)),
            session.tuned(model),
            x,
            session.key("rig-init"),
            session.key("rig-block"),
        )
        session.shelf["rig"] = found
    return found


def whole(session: Session) -> Any:
    """``rig.path`` compiled once for all checks of the session."""
    return _compiled(session, "whole", rig(session).path)


def start(session: Session) -> Any:
    """``init(key, target, tuned, x)``, compiled once."""
    return _compiled(session, "start", rig(session).engine.init)


def block(session: Session) -> Any:
    """``block(key, target, tuned, carry)`` of ``SHORT`` transitions, compiled once."""
    engine = rig(session).engine
    return _compiled(session, "block", lambda *a: engine.block(*a, SHORT))


def _compiled(session: Session, name: str, fn: Any) -> Any:
    if name not in session.shelf:
        session.shelf[name] = session.jit(fn)
    return session.shelf[name]


def same(a: Any, b: Any) -> bool:
    """Whether two pytrees are equal bit for bit."""
    if bool(jax.tree.structure(a) != jax.tree.structure(b)):  # type: ignore[operator]
        return False
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(_bits(p) == _bits(q) for p, q in pairs)


def _bits(leaf: Any) -> bytes:
    if hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.asarray(leaf)
    return repr((array.shape, array.dtype.str)).encode() + array.tobytes()
