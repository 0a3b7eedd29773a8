"""An engine's ``init`` and ``block`` as compiled programs, shared by every run in the process."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax


class Program:
    """``init`` and ``block`` of an engine, compiled once for each shape.

    An engine whose ``block`` is already compiled (a ``jax.jit`` of its own, or the attribute
    ``compiled = True``) is called as it is, so that its warm-up and its sampling can share one
    program; any other is compiled here, and two engines with equal settings share.
    """

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.own = bool(getattr(engine, "compiled", False)) or hasattr(engine.block, "lower")
        self.static = _static(engine)

    def init(self, key: Any, target: Any, tuned: Any, x: Any) -> Any:
        if self.own:
            return _strong(self.engine.init(key, target, tuned, x))
        return _init(self.static, key, target, tuned, x)

    def block(self, key: Any, target: Any, tuned: Any, carry: Any, n: int) -> tuple[Any, Any, Any]:
        if self.own:
            carry, draws, stats = self.engine.block(key, target, tuned, carry, n)
            return _strong(carry), draws, stats
        return _block(self.static, key, target, tuned, carry, n)


class _ByIdentity:
    """An engine that cannot be hashed, told from others by its identity."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def __hash__(self) -> int:
        return id(self.engine)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and other.engine is self.engine


def _static(engine: Any) -> Any:
    try:
        hash(engine)
    except TypeError:
        return _ByIdentity(engine)
    return engine


def _unwrap(static: Any) -> Any:
    return static.engine if isinstance(static, _ByIdentity) else static


@partial(jax.jit, static_argnums=0)
def _init(static: Any, key: Any, target: Any, tuned: Any, x: Any) -> Any:
    return _strong(_unwrap(static).init(key, target, tuned, x))


@partial(jax.jit, static_argnums=(0, 5))
def _block(
    static: Any, key: Any, target: Any, tuned: Any, carry: Any, n: int
) -> tuple[Any, Any, Any]:
    carry, draws, stats = _unwrap(static).block(key, target, tuned, carry, n)
    return _strong(carry), draws, stats


def _strong(carry: Any) -> Any:
    """The carry without weak types, which would compile a second program for the second block."""

    def strong(leaf: Any) -> Any:
        if isinstance(leaf, (bool, int, float)):
            leaf = jax.numpy.asarray(leaf)
        if getattr(leaf, "weak_type", False):
            return jax.lax.convert_element_type(leaf, leaf.dtype)
        return leaf

    return jax.tree.map(strong, carry)
